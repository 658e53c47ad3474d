//! Writes an image and switches to it.
//!
//! One trait, [`Installer`], and the installers built in.

#[cfg(unix)]
mod file;

#[cfg(unix)]
pub use file::FileInstall;

use crate::update::Failure;
use std::fmt;

/// Which image runs, or would run at the next start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    /// The old image: the new one is not activated, or was rolled back.
    Old,
    /// The new image: it is activated.
    New,
    /// The old image, and a new one that is only partly written.
    Partial,
    /// It cannot be told.
    Unknown,
}

/// What is to be installed, as far as it is known before its bytes come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageInfo {
    /// The image's size in bytes, if announced by request or server.
    pub size: Option<u64>,
    /// The version asked for, if the request names one.
    pub version: Option<String>,
}

/// What makes an activated image run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Restart {
    /// Nothing: it is used from the next time on that somebody opens it.
    #[default]
    None,
    /// This process ends and its supervisor starts it again.
    Exit,
    /// A command restarts the program that uses the image, or the device.
    Command(Vec<String>),
    /// The device reboots.
    System,
}

/// Writes an image and switches to it.
///
/// All methods are called from one thread, one at a time: the updater's pipeline thread. They may
/// block. Every method but [`write`](Self::write) may be called again after a crash in the middle
/// of it, and must then end in the same state. A [`Failure`] names the path or command that failed.
///
/// The order is: [`inspect`](Self::inspect) at every start; for an update [`begin`](Self::begin),
/// many `write` and [`sync`](Self::sync), [`finish`](Self::finish), [`activate`](Self::activate),
/// a restart if [`restart`](Self::restart) says so, then [`confirm`](Self::confirm) or
/// [`rollback`](Self::rollback). [`abort`](Self::abort) ends an update before `activate`.
pub trait Installer: Send + fmt::Debug {
    /// Which image runs. Asked at every start, and after a crash.
    fn inspect(&mut self) -> Result<ImageState, Failure>;

    /// Makes ready to write an image. `resume_at` is the offset of the last checkpoint, in bytes;
    /// the answer is where writing really starts: `resume_at` where the bytes before it are still
    /// there, else 0. Checks that there is room for what is still to come when the size is known.
    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure>;

    /// Writes bytes at an offset. Offsets follow one another without gaps from where `begin` said.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// Makes durable what was written; the answer is up to which offset that is, which may be less
    /// than what was written.
    fn sync(&mut self) -> Result<u64, Failure>;

    /// All bytes are written, synced and verified: make the image ready to be activated.
    fn finish(&mut self) -> Result<(), Failure>;

    /// Switches to the new image, in one step that no power cut can halve.
    fn activate(&mut self) -> Result<(), Failure>;

    /// The new image has proved itself: it stays.
    fn confirm(&mut self) -> Result<(), Failure>;

    /// Switches back to the old image, which is then active again, or will be after a restart.
    fn rollback(&mut self) -> Result<(), Failure>;

    /// Ends an update that was not activated: what was written of the new image goes.
    fn abort(&mut self) -> Result<(), Failure>;

    /// What makes an activated image run.
    fn restart(&self) -> Restart {
        Restart::None
    }
}
