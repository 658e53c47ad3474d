//! Hands an image to a command.

use super::part::{Part, create, metadata, not_begun, open, storage};
use super::{ImageInfo, ImageState, Installer, Restart, boot_id, memory, space};
use crate::update::{Code, Failure};
use crate::{command, disk, json, seconds::Seconds};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::TryLockError,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// What a [`CommandInstall`] is made with. In the commands' arguments `{image}` is the image's path and
/// `{version}` the version asked for, empty where the request names none. No shell comes between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CommandOptions {
    /// Installs the image, such as `rauc install {image}` or `swupdate -i {image}`. It is run again
    /// when a crash or a power cut came before its end.
    pub install: Vec<String>,
    /// The time [`install`](Self::install) has. Default: 30 min.
    pub install_time: Duration,
    /// Tells which image runs: it prints `new`, `old` or `unknown` on its first line. Without it the
    /// new one is taken to run once `install` has succeeded; so where a boot loader can go back to the
    /// old image by itself, it is needed.
    pub inspect: Option<Vec<String>>,
    /// Makes the new image stay, such as `rauc status mark-good`. What `rollback` needs must be there
    /// still when it is done: where the power is cut before that is saved, the new image has to prove
    /// itself once more, and may run out of starts.
    pub confirm: Option<Vec<String>>,
    /// Makes the old image the active one again. Also run where `install` failed, which may have got
    /// half-way.
    pub rollback: Option<Vec<String>>,
    /// The time each other command has. Default: 60 s.
    pub command_time: Duration,
    /// What makes the new image run. Default: nothing.
    pub restart: Restart,
}

impl CommandOptions {
    /// A command that installs, and nothing else.
    pub fn new(install: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            install: install.into_iter().map(Into::into).collect(),
            install_time: Duration::from_secs(30 * 60),
            inspect: None,
            confirm: None,
            rollback: None,
            command_time: Duration::from_secs(60),
            restart: Restart::None,
        }
    }
}

/// Installs an image by a command: another updater, a script.
///
/// The image is written to a file in the state directory, which only its owner may read, and is
/// removed when the command has succeeded:
///
/// | file | what it is |
/// |---|---|
/// | `image.part` | the image, being written |
/// | `image` | the image, whole |
/// | `image.json` | what is known of it |
/// | `image.lock` | empty; held by the command while it runs |
///
/// How commands are run: with this process's environment but for what begins with `TWINFLASH_`, with
/// an empty file or nothing as input, in a process group of their own, which is ended when the time is up. The end of what they
/// print goes to the log, and never to the cloud.
#[derive(Debug)]
pub struct CommandInstall {
    state_dir: PathBuf,
    options: CommandOptions,
    /// Where `proc` lies: `/`, but in tests.
    root: PathBuf,
    part: Option<Part>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    /// The image is written.
    Begun,
    /// Its command runs.
    Installing,
    /// Its command has succeeded.
    Installed,
    /// The old image is active again.
    RolledBack,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    stage: Stage,
    version: String,
    /// The system's start in which the stage was reached.
    boot: Option<String>,
}

/// What another process needs to do the same.
#[derive(Serialize, Deserialize)]
struct Description {
    state_dir: PathBuf,
    options: CommandOptions,
}

impl CommandInstall {
    /// An installer that runs commands. `state_dir` is the updater's state directory.
    pub fn new(state_dir: impl Into<PathBuf>, options: CommandOptions) -> Self {
        Self {
            state_dir: state_dir.into(),
            options,
            root: "/".into(),
            part: None,
        }
    }

    pub(super) fn from_description(description: &Value) -> Option<Self> {
        let description = json::of::<Description>(description).ok()?;
        Some(Self::new(description.state_dir, description.options))
    }

    /// `proc` lies elsewhere.
    #[cfg(test)]
    pub(crate) fn with_root(mut self, root: &Path) -> Self {
        self.root = root.into();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state_dir.join(name)
    }

    fn memory(&self) -> Result<Option<Memory>, Failure> {
        memory::load(&self.path("image.json"))
    }

    fn save(&self, stage: Stage, version: String) -> Result<(), Failure> {
        let memory = Memory {
            stage,
            version,
            boot: boot_id(&self.root),
        };
        memory::save(&self.path("image.json"), &memory)
    }

    fn filled(&self, command: &[String], version: &str) -> Result<Vec<String>, Failure> {
        // A command may change its directory.
        let image = self.path("image");
        let image = std::path::absolute(&image).map_err(storage("find", &image))?;
        let image = image.to_string_lossy();
        let values = [("image", &*image), ("version", version)];
        Ok(command::fill(command, &values))
    }

    fn run_other(&self, command: &[String], version: &str) -> Result<String, Failure> {
        let command = self.filled(command, version)?;
        command::run(&command, self.options.command_time)
    }

    /// Runs the command that installs. One that a crash of this process left behind is waited for: it
    /// holds a lock on the file that is its standard input, for as long as it lives.
    fn run_install(&self, version: &str) -> Result<(), Failure> {
        let command = self.filled(&self.options.install, version)?;
        let (time, since) = (self.options.install_time, Instant::now());
        let path = self.path("image.lock");
        let failed = storage("lock", &path);
        let lock = open(&path, OFlags::RDONLY | OFlags::CREATE).map_err(&failed)?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if since.elapsed() < time => {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => {
                    let program = command.first().map_or("", String::as_str);
                    let text = format_args!(
                        "{program} was started before, and has not ended within {} s",
                        Seconds(time)
                    );
                    return Err(Failure::new(Code::InstallFailed, text));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        command::run_with(&command, time, lock.into()).map(drop)
    }

    fn remove(&self, name: &str) -> Result<bool, Failure> {
        let path = self.path(name);
        disk::remove(&path).map_err(storage("remove", &path))
    }

    fn sync_dir(&self) -> Result<(), Failure> {
        disk::sync_dir(&self.state_dir).map_err(storage("sync", &self.state_dir))
    }
}

impl Installer for CommandInstall {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        if metadata(&self.path("image.part"))?.is_some() {
            return Ok(ImageState::Partial);
        }
        let Some(memory) = self.memory()? else {
            return Ok(ImageState::Old);
        };
        let system = self.options.restart.is_of_system();
        let same_boot = memory.boot.is_some() && memory.boot == boot_id(&self.root);
        let (said, ask) = match memory.stage {
            Stage::Begun => (ImageState::Old, false),
            // It did not come to its end, and who knows what was done by then.
            Stage::Installing => (ImageState::Unknown, !same_boot),
            // Until the device restarts the other one runs, whatever comes after.
            Stage::Installed => (ImageState::New, !(system && same_boot)),
            Stage::RolledBack => (ImageState::Old, !(system && same_boot)),
        };
        let Some(inspect) = self.options.inspect.as_ref().filter(|_| ask) else {
            return Ok(said);
        };
        let printed = self.run_other(inspect, &memory.version)?;
        match printed.lines().next().unwrap_or_default().trim() {
            "new" => Ok(ImageState::New),
            "old" => Ok(ImageState::Old),
            "unknown" => Ok(ImageState::Unknown),
            _ => {
                let program = inspect.first().map_or("", String::as_str);
                let text = format_args!("{program} must print new, old or unknown first");
                Err(Failure::new(Code::InstallFailed, text))
            }
        }
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.part = None;
        let (part, whole) = (self.path("image.part"), self.path("image"));
        if resume_at == 0 {
            self.remove("image.part")?;
            self.remove("image")?;
        } else if metadata(&whole)?.is_some() {
            disk::rename(&whole, &part).map_err(storage("resume", &whole))?;
        }
        self.save(Stage::Begun, image.version.clone().unwrap_or_default())?;
        let failed = storage("write", &part);
        let file = create(&part).map_err(&failed)?;
        let there = file.metadata().map_err(&failed)?.len();
        let start = if there < resume_at { 0 } else { resume_at };
        disk::set_length(&file, &part, start).map_err(&failed)?;
        self.sync_dir()?;
        if let Some(size) = image.size
            && let Err(failure) = space::reserve(&file, &part, start, size)
        {
            // The space it takes may be what is missing.
            let _ = disk::remove(&part);
            return Err(failure);
        }
        self.part = Some(Part::new(file, part.clone(), start));
        Ok(start)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.part
            .as_mut()
            .ok_or_else(not_begun)?
            .write(offset, bytes)
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        self.part.as_ref().ok_or_else(not_begun)?.sync()
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.part = None;
        let (part, whole) = (self.path("image.part"), self.path("image"));
        if metadata(&part)?.is_some() {
            disk::rename(&part, &whole).map_err(storage("finish", &part))?;
        } else if metadata(&whole)?.is_none() && !self.is_installed()? {
            return Err(nothing_staged(&whole));
        }
        self.sync_dir()
    }

    fn activate(&mut self) -> Result<(), Failure> {
        let whole = self.path("image");
        if !self.is_installed()? {
            if metadata(&whole)?.is_none() {
                return Err(nothing_staged(&whole));
            }
            let version = self.version()?;
            self.save(Stage::Installing, version.clone())?;
            self.run_install(&version)?;
            self.save(Stage::Installed, version)?;
        }
        self.remove("image")?;
        self.sync_dir()
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        // It is still there where a crash came before its removal.
        self.remove("image")?;
        self.sync_dir()?;
        match &self.options.confirm {
            Some(confirm) => self.run_other(confirm, &self.version()?).map(drop),
            None => Ok(()),
        }
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        let Some(memory) = self.memory()? else {
            return Ok(());
        };
        if let Some(rollback) = &self.options.rollback {
            self.run_other(rollback, &memory.version)?;
            return self.save(Stage::RolledBack, memory.version);
        }
        if self.inspect()? == ImageState::New {
            let program = self.options.install.first().map_or("", String::as_str);
            let text = format_args!(
                "what {program} installed cannot be undone: no rollback command is configured"
            );
            return Err(Failure::new(Code::RollbackFailed, text));
        }
        Ok(())
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.part = None;
        self.remove("image.part")?;
        self.remove("image")?;
        // Last: it is what the command's image is known by.
        memory::forget(&self.path("image.json"))
    }

    fn restart(&self) -> Restart {
        self.options.restart.clone()
    }

    /// Where the device restarts, its boot loader goes back by itself.
    fn describe(&self) -> Option<Value> {
        if self.options.rollback.is_none() || self.options.restart.is_of_system() {
            return None;
        }
        let description = Description {
            state_dir: std::path::absolute(&self.state_dir).ok()?,
            options: self.options.clone(),
        };
        let description = serde_json::to_value(description).ok()?;
        Some(serde_json::json!({ "command": description }))
    }
}

impl CommandInstall {
    fn is_installed(&self) -> Result<bool, Failure> {
        let memory = self.memory()?;
        Ok(memory.is_some_and(|memory| memory.stage == Stage::Installed))
    }

    fn version(&self) -> Result<String, Failure> {
        Ok(self
            .memory()?
            .map(|memory| memory.version)
            .unwrap_or_default())
    }
}

fn nothing_staged(image: &Path) -> Failure {
    let text = format_args!("cannot install {}: it is gone", image.display());
    Failure::new(Code::InstallFailed, text)
}

#[cfg(test)]
mod tests;
