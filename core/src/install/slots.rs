//! Writes an image into the slot that does not run, and switches to it.

use super::part::{Part, not_begun, storage};
use super::{ImageInfo, ImageState, Installer, Restart, boot_id, memory, space};
use crate::update::{Code, Failure};
use crate::{disk, json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage::{Memory, Stage};
use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

mod medium;
mod options;
mod running;
mod stage;
mod switch;

pub use options::{Running, Slot, SlotCommands, SlotsOptions, Switch, TryBoot, UBoot};

/// Installs an image into one of two slots (A/B): the one that does not run.
///
/// The image is written straight into the slot, a block device or an image file, with no temporary
/// space. The slot that runs is never written: which one that is is read anew each time, as
/// [`Running`] says, and what is not clear is an error. A slot that is mounted, or that is the
/// running one under another name, is refused.
///
/// | step | what happens |
/// |---|---|
/// | `begin` | the other slot is excluded from being started, then opened |
/// | `activate` | the [`Switch`] is set to *try* the new slot |
/// | `confirm` | the switch is set to *keep* the new slot |
/// | `rollback` | the switch is set to keep the old slot |
///
/// How far it has come is remembered in `slots.json` in the state directory, which lies in neither
/// slot. A slot whose image is not whole is never activated, and the switch is set before anything is
/// written so that no boot loader falls back on it.
#[derive(Debug)]
pub struct SlotsInstall {
    state_dir: PathBuf,
    options: SlotsOptions,
    /// Where `proc` and `dev` lie: `/`, but in tests.
    root: PathBuf,
    writing: Option<Writing>,
    /// U-Boot's environment was last written by this process, with success.
    settled: Cell<bool>,
}

/// The new image while it is written.
#[derive(Debug)]
struct Writing {
    part: Part,
    place: medium::Place,
    memory: Memory,
}

/// What another process needs to do the same.
#[derive(Serialize, Deserialize)]
struct Description {
    state_dir: PathBuf,
    options: SlotsOptions,
}

impl SlotsInstall {
    /// An installer for two slots. `state_dir` is the updater's state directory.
    ///
    /// # Errors
    /// The slots' names or paths are the same, or a name has characters other than letters,
    /// digits, `.`, `_` and `-`.
    pub fn new(state_dir: impl Into<PathBuf>, options: SlotsOptions) -> Result<Self, Failure> {
        let [a, b] = &options.slots;
        let fits = |slot: &Slot| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !slot.name.is_empty() && slot.name.chars().all(fits)
        };
        for slot in [a, b] {
            if !fits(slot) {
                let text = format_args!(
                    "a slot cannot be called {:?}: letters, digits, \".\", \"_\" and \"-\" can be",
                    slot.name
                );
                return Err(Failure::new(Code::InstallFailed, text));
            }
        }
        if a.name == b.name || a.path == b.path {
            let text = format_args!(
                "two slots need two names and two places, not {} and {}",
                shown(a),
                shown(b)
            );
            return Err(Failure::new(Code::InstallFailed, text));
        }
        Ok(Self {
            state_dir: state_dir.into(),
            options,
            root: "/".into(),
            writing: None,
            settled: Cell::new(false),
        })
    }

    pub(super) fn from_description(description: &Value) -> Option<Self> {
        let description = json::of::<Description>(description).ok()?;
        Self::new(description.state_dir, description.options).ok()
    }

    /// `proc` and `dev` lie elsewhere.
    #[cfg(test)]
    pub(crate) fn with_root(mut self, root: &Path) -> Self {
        self.root = root.into();
        self
    }

    fn memory_path(&self) -> PathBuf {
        self.state_dir.join("slots.json")
    }

    fn memory(&self) -> Result<Option<Memory>, Failure> {
        memory::load(&self.memory_path())
    }

    fn save(&self, memory: &Memory) -> Result<(), Failure> {
        memory::save(&self.memory_path(), memory)
    }

    /// The slot of this name, and the other one.
    fn pair(&self, name: &str) -> Result<(&Slot, &Slot), Failure> {
        let [a, b] = &self.options.slots;
        match name {
            name if name == a.name => Ok((a, b)),
            name if name == b.name => Ok((b, a)),
            _ => Err(Failure::new(
                Code::InstallFailed,
                format_args!(
                    "the last update went to slot {name}; the configuration has {} and {}",
                    shown(a),
                    shown(b)
                ),
            )),
        }
    }

    /// The start of the system in which the switch was set, if it is this one still; with the slot
    /// that ran then.
    fn same_boot<'a>(&self, memory: Option<&'a Memory>) -> Option<&'a str> {
        let (boot, ran) = memory?.boot.as_ref()?;
        (self.boot_id().as_ref() == Some(boot)).then_some(ran)
    }

    fn boot_id(&self) -> Option<String> {
        boot_id(&self.root)
    }

    /// The slot that runs.
    fn runs(&self, memory: Option<&Memory>) -> Result<&Slot, Failure> {
        // A link or a variable says what will run after the restart, not what runs until then.
        match self.same_boot(memory) {
            Some(ran) => Ok(self.pair(ran)?.0),
            None => self.asked(),
        }
    }

    fn runs_now(&self, slot: &Slot) -> Option<(String, String)> {
        let system = self.options.restart.is_of_system();
        Some((self.boot_id().filter(|_| system)?, slot.name.clone()))
    }

    /// The memory of an image that is whole, with its slot and the other one.
    fn whole(&self) -> Result<(Memory, &Slot, &Slot), Failure> {
        match self.memory()? {
            Some(memory) if memory.stage != Stage::Writing => {
                let (new, old) = self.pair(&memory.slot)?;
                Ok((memory, new, old))
            }
            _ => Err(Failure::new(
                Code::InstallFailed,
                "no slot has a whole new image: the update has to be started again",
            )),
        }
    }
}

impl Installer for SlotsInstall {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        let Some(memory) = self.memory()? else {
            return Ok(ImageState::Old);
        };
        self.settle()?;
        let (new, _) = self.pair(&memory.slot)?;
        let is_new = match (memory.stage, self.same_boot(Some(&memory))) {
            (Stage::Writing, _) => return Ok(ImageState::Partial),
            (Stage::Written, _) => false,
            (Stage::Activated, Some(_)) => true,
            (Stage::Activating | Stage::RolledBack, Some(_)) => false,
            // What was begun has to be done again: only where the new one runs does it say so.
            (Stage::RollingBack, Some(ran)) => ran == new.name,
            _ => self.runs(Some(&memory))? == new,
        };
        Ok(match is_new {
            true => ImageState::New,
            false => ImageState::Old,
        })
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.writing = None;
        // What cannot be read is no reason never to update again: the slot that runs is known without.
        let before = self.memory().ok().flatten();
        let runs = self.runs(before.as_ref())?;
        let (_, target) = self.pair(&runs.name)?;
        if let Some(before) = &before
            && self.same_boot(Some(before)) == Some(before.slot.as_str())
        {
            let text = format_args!(
                "slot {} still runs after it was given up: the device has to restart first",
                before.slot
            );
            return Err(Failure::new(Code::Storage, text));
        }
        let (file, place) = medium::open(target, runs)?;
        place.holds(image.size.unwrap_or_default())?;

        let same = before.as_ref().filter(|before| before.slot == target.name);
        let there = same.map_or(0, |same| place.length.min(same.durable));
        let start = if resume_at <= there { resume_at } else { 0 };
        if same.is_none_or(|same| same.stage != Stage::Writing) {
            self.keep(runs, target)?;
        }
        let memory = Memory {
            stage: Stage::Writing,
            slot: target.name.clone(),
            durable: start,
            boot: None,
        };
        if before.as_ref() != Some(&memory) {
            self.save(&memory)?;
        }
        if !place.is_device() {
            let failed = storage("write", &place.path);
            disk::set_length(&file, &place.path, start).map_err(&failed)?;
            disk::sync_dir(place.path.parent().unwrap_or(&place.path)).map_err(&failed)?;
            if let Some(size) = image.size {
                space::reserve(&file, &place.path, start, size)?;
            }
        }
        self.writing = Some(Writing {
            part: Part::new(file, place.path.clone(), start),
            place,
            memory,
        });
        Ok(start)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let writing = self.writing.as_mut().ok_or_else(not_begun)?;
        let end = offset.saturating_add(bytes.len() as u64);
        writing.place.holds(end)?;
        writing.part.write(offset, bytes)
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        let mut writing = self.writing.take().ok_or_else(not_begun)?;
        let durable = writing.part.sync()?;
        if writing.memory.durable != durable {
            writing.memory.durable = durable;
            self.save(&writing.memory)?;
        }
        self.writing = Some(writing);
        Ok(durable)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.writing = None;
        match self.memory()? {
            Some(memory) if memory.stage == Stage::Writing => self.save(&Memory {
                stage: Stage::Written,
                ..memory
            }),
            _ => self.whole().map(drop),
        }
    }

    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        if !self.options.read_back {
            return Ok(());
        }
        let (_, new, _) = self.whole()?;
        medium::read_back(new, size, sha256)
    }

    fn activate(&mut self) -> Result<(), Failure> {
        let (mut memory, new, old) = self.whole()?;
        let runs = self.runs(Some(&memory))?;
        if runs == new {
            return Ok(());
        }
        memory.stage = Stage::Activating;
        memory.boot = self.runs_now(runs);
        self.save(&memory)?;
        self.try_slot(new, old)?;
        memory.stage = Stage::Activated;
        self.save(&memory)
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        let (mut memory, new, old) = self.whole()?;
        let runs = self.runs(Some(&memory))?;
        if runs != new {
            let text = format_args!(
                "slot {} runs, not {} with the new image",
                runs.name, new.name
            );
            return Err(Failure::new(Code::InstallFailed, text));
        }
        if memory.stage == Stage::Confirmed {
            return Ok(());
        }
        self.keep(new, old)?;
        memory.stage = Stage::Confirmed;
        memory.boot = None;
        self.save(&memory)
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        let Some(mut memory) = self.memory()? else {
            return Ok(());
        };
        if matches!(memory.stage, Stage::Writing | Stage::Written) {
            return Ok(());
        }
        let (new, old) = self.pair(&memory.slot)?;
        // Where it cannot be told which one runs, the old one is still brought back.
        let runs = self.runs(Some(&memory)).unwrap_or(new);
        memory.stage = Stage::RollingBack;
        memory.boot = self.runs_now(runs);
        let begun = self.save(&memory);
        // Until the device restarts, nothing else says which slot runs. Where it does not restart, the
        // switch does, and no full disk keeps the old slot from coming back.
        let needed = self.options.restart.is_of_system();
        if needed {
            begun?;
        }
        self.keep(old, new)?;
        memory.stage = Stage::RolledBack;
        let done = self.save(&memory);
        if needed { done } else { Ok(()) }
    }

    /// The slot keeps what was written to it, and is not started.
    fn abort(&mut self) -> Result<(), Failure> {
        self.writing = None;
        let Some(memory) = self.memory()? else {
            return Ok(());
        };
        let (new, old) = self.pair(&memory.slot)?;
        match memory.stage {
            Stage::Writing | Stage::Written => {}
            _ if self.runs(Some(&memory))? == new => return Ok(()),
            _ => self.keep(old, new)?,
        }
        memory::forget(&self.memory_path())
    }

    fn restart(&self) -> Restart {
        self.options.restart.clone()
    }

    /// Where the device restarts, its boot loader goes back by itself.
    fn describe(&self) -> Option<Value> {
        if self.options.restart.is_of_system() {
            return None;
        }
        let description = Description {
            state_dir: std::path::absolute(&self.state_dir).ok()?,
            options: self.options.clone(),
        };
        let description = serde_json::to_value(description).ok()?;
        Some(serde_json::json!({ "slots": description }))
    }
}

fn shown(slot: &Slot) -> String {
    format!("{} ({})", slot.name, slot.path.display())
}

/// Whether two paths lead to the same file or device.
fn same_place(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) => {
            let devices = one.file_type().is_block_device() && other.file_type().is_block_device();
            (devices && one.rdev() == other.rdev())
                || (one.dev(), one.ino()) == (other.dev(), other.ino())
        }
        _ => match (std::path::absolute(one), std::path::absolute(other)) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests;
