//! What goes into the engine and what comes out.

use crate::twin::Report;
use crate::update::{
    Ended, Failure, ImageInfo, ImageState, Job, LocalImage, Outcome, Phase, Progress, Record, Stage,
};
use alloc::{boxed::Box, string::String, vec::Vec};
use core::time::Duration;

/// The two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Only ever grows; no jump of the wall clock moves it. Where it starts does not matter.
    pub monotonic: Duration,
    /// Wall time in milliseconds since 1970 as the clock has it, believable or not; `None` where
    /// there is no clock.
    pub wall: Option<u64>,
}

/// What the journal held at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Nothing: the first start.
    Empty,
    /// A record, as [`Record::to_json`] made it.
    Record(Vec<u8>),
    /// It cannot be read.
    Lost,
}

/// What happens to the engine.
#[derive(Debug)]
pub enum Input<'a> {
    /// The start: first of all inputs, once.
    Boot {
        /// What the journal held.
        stored: Stored,
        /// What the installer's `inspect` answered.
        image: ImageState,
    },
    /// The hub is connected.
    Connected,
    /// The hub is no longer connected.
    Disconnected,
    /// A twin was read, or its desired properties were patched.
    Twin {
        /// The whole twin (`{"desired": …, "reported": …}`), not a patch of the desired properties.
        complete: bool,
        /// The document.
        json: &'a [u8],
    },
    /// [`Output::ReadTwin`] was refused.
    TwinFailed,
    /// A direct method was called. [`Output::Answer`] follows, with its id.
    Method {
        /// Any number; it comes back with the answer.
        id: u64,
        /// The method's name: one the engine [takes](super::Engine::takes_method).
        name: &'a str,
        /// Its payload.
        payload: &'a [u8],
    },
    /// A report's result.
    ReportDone {
        /// The report's id.
        id: u64,
        /// The hub's status; 0 if the report was lost.
        status: u16,
    },
    /// A running download says something.
    Transfer(Progress),
    /// The download ended.
    TransferEnded(Ended),
    /// A step of the installation ended.
    Done(Step, Result<(), Failure>),
    /// A save was not possible. What was to come after it was not performed.
    SaveFailed(Failure),
    /// The command that restarts has been started. It may be about to end this process: what comes of
    /// this input is to be performed at once.
    Restarting,
    /// The restart that was asked for: done, where the engine outlives it (the command restarted
    /// another program), or not possible.
    Restarted(Result<(), Failure>),
    /// The application says that the new version is good.
    Confirm,
    /// The running update is to be cancelled.
    Cancel,
    /// The download is to be paused.
    Pause,
    /// A paused download is to go on, or one that waits for its next attempt is to make it.
    Resume,
    /// Somebody at the device wants this file installed; nothing happens where
    /// [`Engine::can_install`](super::Engine::can_install) says why not.
    Install(&'a LocalImage),
    /// The user agrees to what the update waits for ([`Wait::Consent`]).
    Approve,
    /// The user wants to be left alone for so long: until then nothing new is begun, and nobody asked.
    Defer(Duration),
    /// Who was asked by [`Output::Ask`] has answered.
    Reply {
        /// Of the question.
        id: u64,
        /// What was said.
        reply: Reply,
    },
    /// The wall clock was set, or the device has slept.
    ClockSet,
    /// Time has passed.
    Tick,
}

/// A step of the installation, as the installer's method of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `finish`
    Finish,
    /// `activate`
    Activate,
    /// `confirm`
    Confirm,
    /// `rollback`
    Rollback,
    /// `abort`
    Abort,
    /// `holds`, of the SHA-256 [`Engine::wanted_sha256`](super::Engine::wanted_sha256) names;
    /// [`Input::Done`] is an error where it does not.
    Compare,
    /// The health command of [`Confirm::Health`](crate::update::Confirm::Health).
    CheckHealth,
}

/// What is asked before a stage begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Comes back with the [reply](Input::Reply).
    pub id: u64,
    /// What is asked.
    pub question: Question,
    /// What is about to begin.
    pub stage: Stage,
    /// The version asked for, if it is known.
    pub version: Option<String>,
    /// The image's size in bytes, if it is known.
    pub size: Option<u64>,
}

/// What is asked, and of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// [`Policy::consent_command`](crate::update::Policy::consent_command): does the user agree?
    Consent,
    /// [`Policy::ready`](crate::update::Policy::ready): can the device take it now?
    Ready,
}

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It may begin.
    Yes,
    /// Not yet; to be asked again after this, or after the policy's time.
    Later(Option<Duration>),
    /// The update is not wanted and is cancelled. To [`Question::Ready`] this is not yet.
    No,
}

/// What an update waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Its start is delayed, so that not all of a fleet come at once.
    StartDelay,
    /// The user has put it off.
    Deferral,
    /// The user has to agree: [`Input::Approve`].
    Consent,
    /// A maintenance window.
    Window,
    /// The device is not ready: see [`Policy::ready`](crate::update::Policy::ready).
    Ready,
    /// The clock cannot be believed yet, and a window or a manifest wants to know the time.
    Clock,
}

impl Wait {
    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartDelay => "start-delay",
            Self::Deferral => "deferral",
            Self::Consent => "consent",
            Self::Window => "window",
            Self::Ready => "ready",
            Self::Clock => "clock",
        }
    }
}

/// What an update waits for, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// What it waits for.
    pub on: Wait,
    /// What cannot begin.
    pub before: Stage,
    /// So long, where only time is waited for; somebody who was asked is asked again then.
    pub after: Option<Duration>,
    /// When that is, in milliseconds since 1970, where the clock can be believed.
    pub until: Option<u64>,
}

/// What the engine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Make this record durable before anything that comes after it.
    Save {
        /// The record.
        record: Box<Record>,
        /// Only a checkpoint: where it cannot be saved, what comes after it may still be done.
        checkpoint: bool,
    },
    /// Answer a method.
    Answer {
        /// Of the method's input.
        id: u64,
        /// The status for the caller.
        status: u16,
        /// JSON, never empty.
        payload: String,
    },
    /// Send a patch of the reported properties; [`Input::ReportDone`] follows.
    Report(Report),
    /// Read the twin; [`Input::Twin`] follows.
    ReadTwin,
    /// Download; [`Input::Transfer`] and [`Input::TransferEnded`] follow.
    Download(Box<Job>, ImageInfo),
    /// Fetch the manifest beside an image; [`Input::TransferEnded`] follows, with
    /// [`Ended::Manifest`] where it has come.
    FetchManifest(Box<Job>),
    /// Stop the running download; [`Input::TransferEnded`] follows.
    StopDownload,
    /// Ask somebody; [`Input::Reply`] follows.
    Ask(Ask),
    /// Perform a step of the installation; [`Input::Done`] follows.
    Install(Step),
    /// Restart, in the way the engine was configured with.
    Restart,
    /// Something the application may want to know.
    Event(Event),
}

/// Something that happened, for the application.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A request was accepted.
    Accepted {
        /// The image's address, as it may be shown.
        uri: String,
        /// The version asked for.
        version: Option<String>,
    },
    /// The update has come to a phase.
    Phase(Phase),
    /// So much of the image is there. At most ten a second, and one as an attempt ends.
    Progress {
        /// Bytes.
        bytes: u64,
        /// The image's size, if it is known.
        total: Option<u64>,
    },
    /// The update waits for something else than before.
    Waiting(Waiting),
    /// An attempt failed and is repeated.
    Retry {
        /// Why.
        failure: Failure,
        /// After this pause.
        after: Duration,
    },
    /// The image is there and passed what it is checked by.
    Verified {
        /// What that was.
        by: Verified,
        /// Its size in bytes.
        bytes: u64,
        /// Its SHA-256 in hexadecimal.
        sha256: String,
    },
    /// The update ended.
    Ended(Outcome),
    /// A request was refused.
    Refused(Failure),
    /// Something a person should look at, such as a line of what a command printed that failed.
    Warning(String),
    /// The application is to fetch something else, or nothing any more; see
    /// [`Updater::wanted`](https://docs.rs/twinflash). Only where the application brings the bytes.
    Wanted,
    /// Other keys are trusted from now on.
    KeysRotated {
        /// The new key set's version.
        version: u64,
    },
}

/// What vouches for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verified {
    /// Only how it came: by https, with a body that ends where it said it would; or as a file of this device.
    Transport,
    /// The request's checks.
    Checks,
    /// A signed manifest.
    Signature,
}

impl Verified {
    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Checks => "checks",
            Self::Signature => "signature",
        }
    }
}

/// Where everything stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The running update's phase; `None` when none runs.
    pub phase: Option<Phase>,
    /// The version the running or last update asked for.
    pub version: Option<String>,
    /// Bytes of the image that are there.
    pub bytes: u64,
    /// The image's size, if it is known.
    pub size: Option<u64>,
    /// How the last update ended; `None` while one runs, and before the first.
    pub outcome: Option<Outcome>,
    /// The version that runs now.
    pub running_version: Option<String>,
    /// The download is paused.
    pub paused: bool,
    /// The last attempt at the download failed, and no byte has come since.
    pub retry: Option<Retrying>,
    /// What the running update waits for, besides its next attempt.
    pub waiting: Option<Waiting>,
}

/// A download that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retrying {
    /// Why the last attempt failed.
    pub failure: Failure,
    /// Attempts that have failed.
    pub attempts: u32,
    /// The next attempt is made after this; `None` while one is being made, or the download is paused.
    pub after: Option<Duration>,
}
