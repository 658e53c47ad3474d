//! Writes an image and switches to it.
//!
//! One trait, [`Installer`], and the installers built in.

#[cfg(unix)]
mod command;
#[cfg(all(test, unix))]
mod course;
mod dry;
#[cfg(unix)]
mod file;
#[cfg(unix)]
mod memory;
#[cfg(unix)]
mod part;
#[cfg(unix)]
mod past_cache;
#[cfg(unix)]
mod slots;
#[cfg(unix)]
mod space;

pub use crate::update::{ImageInfo, ImageState, Restart};
#[cfg(unix)]
pub use command::{CommandInstall, CommandOptions};
#[cfg(unix)]
pub use file::FileInstall;
#[cfg(unix)]
pub use slots::{Running, Slot, SlotCommands, SlotsInstall, SlotsOptions, Switch, TryBoot, UBoot};

pub use dry::DryInstall;

use crate::update::Failure;
use serde_json::Value;
use std::{fmt, path::Path};

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
    /// Which image runs. Asked at every start, and after a crash. The new one is the one written last, also
    /// once it is confirmed: power may fail before that is saved. From `begin` on it is the one being
    /// written, which does not run.
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

    /// After `finish`, and only where the installer is asked to: reads the finished image from its
    /// medium and compares it with its size in bytes and its SHA-256. By default nothing.
    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        let _ = (size, sha256);
        Ok(())
    }

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

    /// Whether the active image is, byte for byte, one of this SHA-256. Asked where an update asks for
    /// what was installed last, so as not to fetch it again. `false` where it cannot be told cheaply:
    /// then it is fetched.
    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        let _ = sha256;
        Ok(false)
    }

    /// What [`guard`](crate::device::guard) needs to roll back without the application's
    /// configuration; kept in the journal. `None` where only the application can roll back.
    fn describe(&self) -> Option<Value> {
        None
    }
}

/// One that is chosen while the program runs.
impl Installer for Box<dyn Installer> {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        (**self).inspect()
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        (**self).begin(image, resume_at)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        (**self).write(offset, bytes)
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        (**self).sync()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        (**self).finish()
    }

    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        (**self).read_back(size, sha256)
    }

    fn activate(&mut self) -> Result<(), Failure> {
        (**self).activate()
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        (**self).confirm()
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        (**self).rollback()
    }

    fn abort(&mut self) -> Result<(), Failure> {
        (**self).abort()
    }

    fn restart(&self) -> Restart {
        (**self).restart()
    }

    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        (**self).holds(sha256)
    }

    fn describe(&self) -> Option<Value> {
        (**self).describe()
    }
}

/// The system's boot id: another one after each start of the system. `None` where there is none.
/// `proc` lies in `root`.
pub(crate) fn boot_id(root: &Path) -> Option<String> {
    let id = std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).ok()?;
    Some(id.trim().to_owned())
}

/// The installer a [description](Installer::describe) is of; `None` where there is none that can be
/// made from it.
pub fn from_description(description: &Value) -> Option<Box<dyn Installer>> {
    #[cfg(unix)]
    if let Some(target) = description.get("file").and_then(Value::as_str) {
        return Some(Box::new(FileInstall::new(target)));
    }
    #[cfg(unix)]
    if let Some(slots) = description.get("slots") {
        return Some(Box::new(SlotsInstall::from_description(slots)?));
    }
    #[cfg(unix)]
    if let Some(command) = description.get("command") {
        return Some(Box::new(CommandInstall::from_description(command)?));
    }
    let _ = description;
    None
}
