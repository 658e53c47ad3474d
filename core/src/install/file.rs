//! Replaces one file by another.

use super::part::{Part, cannot, create, metadata, not_begun, open, same_file, storage};
use super::{ImageInfo, ImageState, Installer, Restart, past_cache, space};
use crate::disk::{self, Step};
use crate::update::{Code, Failure};
use rustix::fs::OFlags;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    ffi::OsString,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

mod attributes;

/// Installs an image as a file: a program, a container's image, a data file.
///
/// The image is written beside its target, in the same directory, and takes the target's place by a
/// rename: whoever opens the target at any moment gets the whole old file or the whole new one. Beside
/// `app.bin` there may be:
///
/// | file | what it is |
/// |---|---|
/// | `.app.bin.twinflash-part` | the new file, being written |
/// | `.app.bin.twinflash-new` | the new file, whole and ready to be activated |
/// | `.app.bin.twinflash-old` | the old file, from just before activation until the next update begins |
/// | `.app.bin.twinflash-none` | empty; stands for the old file where there was none |
///
/// They are all the memory this installer has: it can be dropped and made anew at any time. Every
/// step that a later one depends on is synced before that one.
///
/// The new file takes over the target's mode, owner and extended attributes (its access control
/// list among them); a process that may not give a file its target's owner cannot replace it. Where
/// there was no target, it is made with mode 0644. The old file is kept by a hard link, which
/// takes no space; where the file system has none (vfat), by a copy, which takes as much as the old file.
///
/// A target that is a symbolic link stays one: what it points to is replaced, and the files above
/// lie there. The link must not be changed while an update runs.
#[derive(Debug)]
pub struct FileInstall {
    target: PathBuf,
    restart: Restart,
    part: Option<Part>,
    reads_back: bool,
    /// The new file, as it was when it was read back.
    checked: Option<Stamp>,
}

/// What changes with a file: device, inode, length, and the time of the last change of any kind.
type Stamp = (u64, u64, u64, (i64, i64));

fn stamp(of: &Metadata) -> Stamp {
    let changed = (of.ctime(), of.ctime_nsec());
    (of.dev(), of.ino(), of.len(), changed)
}

/// Where everything lies.
#[derive(Debug)]
struct Paths {
    directory: PathBuf,
    target: PathBuf,
    part: PathBuf,
    new: PathBuf,
    old: PathBuf,
    /// A copy being made that will be `old`.
    old_part: PathBuf,
    none: PathBuf,
}

impl FileInstall {
    /// An installer that replaces `target`, which need not exist; its directory must.
    pub fn new(target: impl Into<PathBuf>) -> Self {
        Self {
            target: target.into(),
            restart: Restart::None,
            part: None,
            reads_back: false,
            checked: None,
        }
    }

    /// The new file is read from its medium, past all caches, and compared with what was verified,
    /// before it takes the target's place; and it is made sure then that nothing has changed it since.
    /// For where others may write in the target's directory, and for media that wear out.
    #[must_use]
    pub fn verify_read_back(mut self) -> Self {
        self.reads_back = true;
        self
    }

    /// What makes the new file run; [`Restart::None`] unless said.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    fn paths(&self) -> Result<Paths, Failure> {
        let unusable = |why: &str| {
            let shown = self.target.display();
            Failure::new(Code::Storage, format_args!("cannot install {shown}: {why}"))
        };
        let mut target = std::path::absolute(&self.target)
            .map_err(|error| storage("find", &self.target)(error))?;
        let mut links = 0;
        while let Ok(to) = fs::read_link(&target) {
            links += 1;
            if links > 40 {
                return Err(unusable("its symbolic links lead in a circle"));
            }
            target = target.parent().unwrap_or(&target).join(to);
        }
        let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(unusable("it is no file's path"));
        };
        let beside = |what: &str| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(".twinflash-");
            hidden.push(what);
            directory.join(hidden)
        };
        Ok(Paths {
            part: beside("part"),
            new: beside("new"),
            old: beside("old"),
            old_part: beside("old-part"),
            none: beside("none"),
            directory: directory.to_path_buf(),
            target,
        })
    }
}

impl Installer for FileInstall {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        let paths = self.paths()?;
        // Where nothing can be installed, that is said at the start, not when an update comes.
        let target = paths.target()?;
        // What a killed process did may be seen before it is durable; it will be acted upon.
        disk::sync_dir(&paths.directory).map_err(storage("sync", &paths.directory))?;
        let old = metadata(&paths.old)?;
        let none = metadata(&paths.none)?.is_some();
        let part = metadata(&paths.part)?.is_some();
        let new = metadata(&paths.new)?.is_some();
        Ok(match (part, new) {
            (true, true) => ImageState::Unknown,
            (true, false) => ImageState::Partial,
            (false, true) => ImageState::Old,
            (false, false) => match (old, none, target) {
                (None, false, _) | (None, true, None) => ImageState::Old,
                (None, true, Some(_)) => ImageState::New,
                (Some(old), false, Some(target)) if same_file(&old, &target) => ImageState::Old,
                (Some(_), false, Some(_)) => ImageState::New,
                (Some(_), _, _) => ImageState::Unknown,
            },
        })
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.part = None;
        let paths = self.paths()?;
        let target = paths.target()?;
        paths.forget_old()?;

        let both = metadata(&paths.part)?.is_some() && metadata(&paths.new)?.is_some();
        if resume_at == 0 || both {
            paths.forget_new()?;
        } else if metadata(&paths.new)?.is_some() {
            disk::rename(&paths.new, &paths.part).map_err(storage("resume", &paths.new))?;
        }
        let failed = |error| storage("write", &paths.part)(error);
        let file = match create(&paths.part) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                // A finished file has its target's mode, which may be read-only.
                disk::remove(&paths.part).and_then(|_| create(&paths.part))
            }
            other => other,
        }
        .map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len();
        let start = if there < resume_at { 0 } else { resume_at };
        disk::set_length(&file, &paths.part, start).map_err(failed)?;
        disk::sync_dir(&paths.directory).map_err(storage("sync", &paths.directory))?;

        let ready = (|| {
            if let Some(target) = &target {
                // What cannot be done at the end is better said now.
                attributes::take_owner(&file, target)
                    .map_err(storage("give the target's owner to", &paths.part))?;
            }
            match image.size {
                Some(size) => space::reserve(&file, &paths.part, start, size),
                None => Ok(()),
            }
        })();
        if let Err(failure) = ready {
            // The space it takes may be what is missing.
            let _ = disk::remove(&paths.part);
            return Err(failure);
        }
        self.part = Some(Part::new(file, paths.part, start));
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
        let paths = self.paths()?;
        if metadata(&paths.part)?.is_some() {
            let failed = |error| storage("finish", &paths.part)(error);
            let file = open(&paths.part, OFlags::RDONLY).map_err(failed)?;
            match paths.target()? {
                Some(target) => attributes::take_over(&file, &paths.part, &paths.target, &target),
                None => attributes::set_default(&file, &paths.part),
            }
            .map_err(storage(
                "give the target's owner, mode and attributes to",
                &paths.part,
            ))?;
            disk::sync_file(&file, &paths.part).map_err(failed)?;
            disk::rename(&paths.part, &paths.new).map_err(failed)?;
        } else if metadata(&paths.new)?.is_none() {
            return Err(nothing_staged(&paths));
        }
        disk::sync_dir(&paths.directory).map_err(storage("sync", &paths.directory))
    }

    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        if !self.reads_back {
            return Ok(());
        }
        let paths = self.paths()?;
        let failed = |error| storage("read back", &paths.new)(error);
        let file = past_cache::open(|flags| open(&paths.new, flags)).map_err(failed)?;
        // Before it is read: a change while it is being read is one, too.
        let found = file.metadata().map_err(failed)?;
        if found.len() != size || past_cache::sha256(&file, size).map_err(failed)? != *sha256 {
            return Err(not_what_was_verified(&paths));
        }
        self.checked = Some(stamp(&found));
        Ok(())
    }

    fn activate(&mut self) -> Result<(), Failure> {
        let paths = self.paths()?;
        let failed = |error| cannot(Code::InstallFailed, "replace", &paths.target)(error);
        if let Some(new) = metadata(&paths.new)? {
            if self.checked.take().is_some_and(|it| it != stamp(&new)) {
                return Err(not_what_was_verified(&paths));
            }
            paths.keep_old()?;
            disk::sync_dir(&paths.directory).map_err(failed)?;
            disk::rename(&paths.new, &paths.target).map_err(failed)?;
        } else if self.inspect()? != ImageState::New {
            return Err(nothing_staged(&paths));
        }
        disk::sync_dir(&paths.directory).map_err(failed)
    }

    /// Nothing is left to do: the old file stays until the next update begins, so that an operator
    /// can still go back by hand.
    fn confirm(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        let paths = self.paths()?;
        let failed = |error| cannot(Code::RollbackFailed, "bring back", &paths.target)(error);
        let staged = metadata(&paths.part)?.is_some() || metadata(&paths.new)?.is_some();
        if !staged && metadata(&paths.old)?.is_some() {
            disk::rename(&paths.old, &paths.target).map_err(failed)?;
        } else if !staged && metadata(&paths.none)?.is_some() {
            disk::remove(&paths.target).map_err(failed)?;
        }
        disk::sync_dir(&paths.directory).map_err(failed)?;
        self.abort()
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.part = None;
        let paths = self.paths()?;
        // The old file's second name first: without the new one beside it, it would say that the
        // new one had been activated.
        paths.forget_old()?;
        paths.forget_new()?;
        disk::sync_dir(&paths.directory).map_err(storage("sync", &paths.directory))
    }

    fn restart(&self) -> Restart {
        self.restart.clone()
    }

    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        let paths = self.paths()?;
        let failed = |error| storage("read", &paths.target)(error);
        let file = match fs::File::open(&paths.target) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        let mut hash = Sha256::new();
        read_all(&file, &paths.target, |bytes| {
            hash.update(bytes);
            Ok(())
        })
        .map_err(failed)?;
        Ok(hash.finalize().as_slice() == sha256)
    }

    fn describe(&self) -> Option<Value> {
        let target = std::path::absolute(&self.target).ok()?;
        Some(serde_json::json!({ "file": target.to_str()? }))
    }
}

impl Paths {
    /// What is known of the target, if there is one.
    fn target(&self) -> Result<Option<Metadata>, Failure> {
        let refuse = |why: &str, path: &Path| {
            let (target, path) = (self.target.display(), path.display());
            let message = format_args!("cannot install {target}: {path} {why}");
            Err(Failure::new(Code::Storage, message))
        };
        match metadata(&self.directory)? {
            None => return refuse("does not exist; make that directory", &self.directory),
            Some(found) if !found.is_dir() => return refuse("is no directory", &self.directory),
            Some(_) => {}
        }
        match metadata(&self.target)? {
            Some(found) if found.is_dir() => refuse("is a directory, not a file", &self.target),
            Some(found) if !found.is_file() => refuse("is not a regular file", &self.target),
            found => Ok(found),
        }
    }

    /// Keeps the old file under a second name, or says that there is none.
    fn keep_old(&self) -> Result<(), Failure> {
        let failed = |error| cannot(Code::InstallFailed, "keep the old file as", &self.old)(error);
        let Some(target) = self.target()? else {
            disk::remove(&self.old).map_err(failed)?;
            create(&self.none).map_err(cannot(Code::InstallFailed, "write", &self.none))?;
            return Ok(());
        };
        // One kept by an activation that was cut short may be another than the target is by now.
        for leftover in [&self.none, &self.old] {
            disk::remove(leftover).map_err(failed)?;
        }
        if disk::hard_link(&self.target, &self.old).is_ok() {
            return Ok(());
        }
        // No hard links here, or not to this file; if a copy fails too, that says why.
        (|| {
            let to = create(&self.old_part)?;
            disk::set_length(&to, &self.old_part, 0)?;
            let mut offset = 0;
            read_all(
                &open(&self.target, OFlags::RDONLY)?,
                &self.target,
                |bytes| {
                    disk::write(&to, &self.old_part, offset, bytes)?;
                    offset += bytes.len() as u64;
                    Ok(())
                },
            )?;
            attributes::take_over(&to, &self.old_part, &self.target, &target)?;
            disk::sync_file(&to, &self.old_part)?;
            disk::rename(&self.old_part, &self.old)
        })()
        .map_err(failed)
    }

    /// Removes what was kept of the old file, durably.
    fn forget_old(&self) -> Result<(), Failure> {
        let mut removed = false;
        for path in [&self.old, &self.old_part, &self.none] {
            removed |= disk::remove(path).map_err(storage("remove", path))?;
        }
        if removed {
            disk::sync_dir(&self.directory).map_err(storage("sync", &self.directory))?;
        }
        Ok(())
    }

    /// Removes what there is of the new file.
    fn forget_new(&self) -> Result<(), Failure> {
        for path in [&self.part, &self.new] {
            disk::remove(path).map_err(storage("remove", path))?;
        }
        Ok(())
    }
}

/// Hands over a file's content, a piece at a time.
fn read_all(
    mut file: &fs::File,
    path: &Path,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = disk::step(Step::Read { path }, || {
            io::Read::read(&mut file, &mut buffer)
        });
        match read {
            Ok(0) => return Ok(()),
            Ok(read) => take(buffer.get(..read).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn not_what_was_verified(paths: &Paths) -> Failure {
    let (target, new) = (paths.target.display(), paths.new.display());
    let message = format_args!(
        "cannot install {target}: {new} is not what was verified; somebody has changed it, or its medium is worn out"
    );
    Failure::new(Code::Storage, message)
}

fn nothing_staged(paths: &Paths) -> Failure {
    let (target, new) = (paths.target.display(), paths.new.display());
    let message = format_args!("cannot install {target}: the new file {new} is gone");
    Failure::new(Code::InstallFailed, message)
}

#[cfg(test)]
mod tests;
