//! What the engine wants done, as C sees it.

use alloc::string::String;
use core::ffi::c_char;
use core::ptr;
use twinflash::engine::Event;
use twinflash::update::{Failure, Outcome, Phase};

/// What is to be done.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_sansio_kind {
    /// Nothing, until twinflash_sansio_wake_at or until something comes in.
    Nothing = 0,
    /// Send `text`, a patch of the reported properties, to the hub; then call
    /// twinflash_sansio_report_done with `id`.
    Report = 1,
    /// Read the twin, then call twinflash_sansio_twin or twinflash_sansio_twin_failed.
    ReadTwin = 2,
    /// Answer the method of this `id` with `status` and `text`, which is JSON.
    Answer = 3,
    /// Ask a server for the image at `text`, a URI; from byte `offset` on, where that is not 0 ("Range:
    /// bytes=OFFSET-"), under the condition `validator`, where that is not NULL ("If-Range:
    /// VALIDATOR"). Then call twinflash_sansio_answered, twinflash_sansio_bytes and
    /// twinflash_sansio_ended, or twinflash_sansio_broken. Where `https_only` is set no redirect may lead
    /// to http. What the URI's query has is secret.
    Fetch = 4,
    /// Close the connection to the server.
    StopFetch = 5,
    /// Restart the board now. Call twinflash_sansio_restart_failed where that is not possible.
    Restart = 6,
    /// The update has come to `phase`. From here on: for the application to know, nothing to be done.
    Phase = 20,
    /// `offset` of `size` bytes (0: not known) are there. At most ten a second, and one as an attempt ends.
    Progress = 21,
    /// The update ended by `outcome`, with `status` and `text` where that is no success.
    Ended = 22,
    /// An attempt at the download failed, and is made again; `status` and `text` say why.
    Retry = 23,
    /// A request was refused; `status` and `text` say why.
    Refused = 24,
    /// `text` is something a person should look at.
    Warning = 25,
}

use twinflash_sansio_kind as Kind;

/// Something to be done. What it points to lives until the next call of twinflash_sansio_poll.
#[repr(C)]
pub struct twinflash_sansio_output {
    /// A twinflash_sansio_kind, which says what the others mean.
    pub kind: i32,
    /// Of a method's answer, its status such as 200; of an event, a failure's number.
    pub status: i32,
    /// A report's, or a method's.
    pub id: u64,
    /// Never NULL; a zero follows it.
    pub text: *const c_char,
    /// Its length in bytes, without the zero.
    pub length: usize,
    /// May be NULL; a zero follows it.
    pub validator: *const c_char,
    /// In bytes.
    pub offset: u64,
    /// In bytes; 0 where it is not known.
    pub size: u64,
    /// 1 waiting, 2 downloading, 3 verifying, 4 applying, 5 rebooting, 6 confirming, 7 rolling back; 0:
    /// no update runs. As twinflash_phase in twinflash.h.
    pub phase: i32,
    /// 1 completed, 2 up to date, 3 failed, 4 rolled back, 5 cancelled, 6 superseded, 7 another one; 0:
    /// none ended yet. As twinflash_outcome in twinflash.h.
    pub outcome: i32,
    /// Only https is allowed.
    pub https_only: bool,
}

/// An output that waits for the application.
pub(crate) struct Output {
    pub(crate) kind: Kind,
    pub(crate) status: i32,
    pub(crate) id: u64,
    /// With a zero at its end.
    pub(crate) text: String,
    pub(crate) validator: Option<String>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    pub(crate) phase: i32,
    pub(crate) outcome: i32,
    pub(crate) https_only: bool,
}

impl Output {
    pub(crate) fn new(kind: Kind, text: &str) -> Self {
        Self {
            kind,
            status: 0,
            id: 0,
            text: terminated(text),
            validator: None,
            offset: 0,
            size: 0,
            phase: 0,
            outcome: 0,
            https_only: false,
        }
    }

    fn failure(kind: Kind, failure: &Failure) -> Self {
        Self {
            status: failure.code.number().into(),
            ..Self::new(kind, &failure.message)
        }
    }

    /// `None` for what is of no use to anybody.
    pub(crate) fn event(event: Event) -> Option<Self> {
        Some(match event {
            Event::Phase(phase) => Self {
                phase: phase_number(Some(phase)),
                ..Self::new(Kind::Phase, "")
            },
            Event::Progress { bytes, total } => Self {
                offset: bytes,
                size: total.unwrap_or_default(),
                ..Self::new(Kind::Progress, "")
            },
            Event::Retry { failure, .. } => Self::failure(Kind::Retry, &failure),
            Event::Refused(failure) => Self::failure(Kind::Refused, &failure),
            Event::Ended(outcome) => Self {
                outcome: outcome_number(Some(&outcome)),
                ..match outcome.failure() {
                    Some(failure) => Self::failure(Kind::Ended, failure),
                    None => Self::new(Kind::Ended, ""),
                }
            },
            Event::Warning(text) => Self::new(Kind::Warning, &text),
            _ => return None,
        })
    }

    pub(crate) fn as_c(&self) -> twinflash_sansio_output {
        twinflash_sansio_output {
            kind: self.kind as i32,
            status: self.status,
            id: self.id,
            text: self.text.as_ptr().cast(),
            length: self.text.len().saturating_sub(1),
            validator: (self.validator.as_ref()).map_or(ptr::null(), |text| text.as_ptr().cast()),
            offset: self.offset,
            size: self.size,
            phase: self.phase,
            outcome: self.outcome,
            https_only: self.https_only,
        }
    }
}

/// A text as C has it. What is behind a zero in it is left out.
pub(crate) fn terminated(text: &str) -> String {
    let text = text.split('\0').next().unwrap_or_default();
    let mut made = String::with_capacity(text.len() + 1);
    made.push_str(text);
    made.push('\0');
    made
}

pub(crate) fn phase_number(phase: Option<Phase>) -> i32 {
    match phase {
        None => 0,
        Some(Phase::Waiting) => 1,
        Some(Phase::Downloading) => 2,
        Some(Phase::Verifying) => 3,
        Some(Phase::Applying) => 4,
        Some(Phase::Rebooting) => 5,
        Some(Phase::Confirming) => 6,
        Some(Phase::RollingBack) => 7,
    }
}

pub(crate) fn outcome_number(outcome: Option<&Outcome>) -> i32 {
    match outcome {
        None => 0,
        Some(Outcome::Completed) => 1,
        Some(Outcome::UpToDate) => 2,
        Some(Outcome::Failed { .. }) => 3,
        Some(Outcome::RolledBack(_)) => 4,
        Some(Outcome::Cancelled(_)) => 5,
        Some(Outcome::Superseded) => 6,
        Some(_) => 7,
    }
}
