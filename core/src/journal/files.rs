//! The two copies as files of a directory.

use super::{
    copy::{self, Copy},
    lock,
};
use crate::disk::{self, Step};
use crate::update::{Code, Failure};
use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

/// A file is a multiple of this long, in bytes: a record that grows within it needs no new block,
/// which a full disk would refuse, and no change of the file's size, which would be more to sync.
const ROOM: usize = 16 * 1024;

const NAMES: [&str; 2] = ["journal.a", "journal.b"];

/// What [`Journal::open`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing was ever saved here.
    Empty,
    /// The payload last saved.
    Record(Vec<u8>),
    /// Something was saved here, and no copy of it can be read. The files stay where they are until the next
    /// [`Journal::save`], so that a later start may find them readable; it puts them aside, as
    /// `<name>.lost-<number>`, and nobody removes them.
    Lost {
        /// The files that cannot be read, or were put aside by a save that did not come to its end.
        files: Vec<PathBuf>,
    },
}

/// The record's place on disk. As long as it lives, no other process can open the same directory.
pub struct Journal {
    directory: PathBuf,
    sequence: u64,
    /// The copy that is written next: not the one that counts.
    next: usize,
    /// Copies that are not whole, where none is: the next save puts them aside.
    lost: Vec<PathBuf>,
    /// The directory may hold entries that are not durable yet.
    sync_directory: bool,
    _lock: lock::Lock,
}

impl Journal {
    /// Opens a state directory, made if it is not there (mode 0700; the mode of one that exists is
    /// left alone), and reads the record. Files have mode 0600 in any case: a record holds URIs
    /// with their secrets.
    ///
    /// # Errors
    /// [`Code::Locked`] where another process holds the directory, naming it;
    /// [`Code::NoPermission`], [`Code::NoSpace`] or [`Code::State`] with the path otherwise. A
    /// damaged record is not an error, but [`Loaded::Lost`].
    pub fn open(directory: &Path) -> Result<(Self, Loaded), Failure> {
        let directory =
            std::path::absolute(directory).map_err(cannot("find the directory", directory))?;
        make(&directory)?;
        let lock = lock::take(&directory)?;
        let mut journal = Self {
            directory,
            sequence: 0,
            next: 0,
            lost: Vec::new(),
            sync_directory: true,
            _lock: lock,
        };
        let loaded = journal.load()?;
        Ok((journal, loaded))
    }

    /// Saves the record: when this returns, it survives a power cut.
    ///
    /// After an error the record saved before still counts, or this one does: as after a crash. It
    /// may be tried again.
    ///
    /// # Errors
    /// [`Code::NoSpace`], [`Code::NoPermission`] or [`Code::State`], naming the file.
    pub fn save(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let path = self.path(self.next);
        let failed = |error| cannot("save the state in", &path)(error);
        if payload.len() > copy::MAX_PAYLOAD {
            let (bytes, max) = (payload.len(), copy::MAX_PAYLOAD);
            let message = format!("a record of {bytes} bytes is more than {max}");
            return Err(failed(io::Error::other(message)));
        }
        let sequence = self.sequence.wrapping_add(1);
        match open_copy(&path).map_err(failed)? {
            Some(file) if self.lost.is_empty() => overwrite(&file, &path, sequence, payload),
            _ => {
                self.sync_directory = true;
                self.create(&path, sequence, payload)
            }
        }
        .map_err(failed)?;
        if self.sync_directory {
            disk::sync_dir(&self.directory).map_err(failed)?;
            self.sync_directory = false;
        }
        self.sequence = sequence;
        self.next = 1 - self.next;
        Ok(())
    }

    /// What [`open`](Self::open) would find, with nothing changed.
    #[cfg(test)]
    pub(crate) fn peek(directory: &Path) -> Loaded {
        let paths = NAMES.map(|name| directory.join(name));
        let copies = paths.iter().filter_map(|path| fs::read(path).ok());
        let copies: Vec<_> = copies.map(|c| Copy::read(&c)).collect();
        let there = !copies.is_empty() || !set_aside_in(directory).unwrap().is_empty();
        match copies
            .into_iter()
            .flatten()
            .max_by_key(|copy| copy.sequence)
        {
            Some(copy) => Loaded::Record(copy.payload),
            None if there => Loaded::Lost { files: Vec::new() },
            None => Loaded::Empty,
        }
    }

    fn path(&self, index: usize) -> PathBuf {
        self.directory
            .join(NAMES.get(index).copied().unwrap_or_default())
    }

    fn load(&mut self) -> Result<Loaded, Failure> {
        let mut found = None::<Copy>;
        let mut lost = Vec::new();
        for index in 0..NAMES.len() {
            let path = self.path(index);
            let failed = |error| cannot("read the state in", &path)(error);
            let Some(file) = open_copy(&path).map_err(failed)? else {
                continue;
            };
            // A sector that cannot be read is damage like any other, but for a read that fails once and
            // then does not.
            let read = || {
                disk::step(Step::Read { path: &path }, || {
                    (&file).rewind()?;
                    read_copy(&file)
                })
            };
            let copy = read().or_else(|_| read()).unwrap_or_default();
            // What a killed process wrote may be seen before it is durable; it will be acted upon. It
            // is written again, the same bytes: after a sync that failed, the kernel holds for written
            // what it could not write (fsync(2)), and the next sync does nothing. Where it cannot be
            // written, it is no worse than it was.
            if let Some(copy) = &copy {
                let _ = disk::write(&file, &path, 0, &copy.bytes());
            }
            disk::sync_data(&file, &path).map_err(failed)?;
            match copy {
                None => lost.push(path),
                Some(copy) if found.as_ref().is_some_and(|f| !copy.is_newer_than(f)) => {}
                Some(copy) => {
                    self.sequence = copy.sequence;
                    self.next = 1 - index;
                    found = Some(copy);
                }
            }
        }
        if let Some(copy) = found {
            // Its name, too: the process may have been killed before it could sync the directory.
            disk::sync_dir(&self.directory).map_err(cannot("sync", &self.directory))?;
            self.sync_directory = false;
            return Ok(Loaded::Record(copy.payload));
        }
        let mut files = set_aside_in(&self.directory)
            .map_err(|error| cannot("read the directory", &self.directory)(error))?;
        files.extend_from_slice(&lost);
        self.lost = lost;
        Ok(match files.is_empty() {
            true => Loaded::Empty,
            false => Loaded::Lost { files },
        })
    }

    /// Gives copies that are not whole another name, one that nothing has yet. The lock keeps that true.
    fn set_aside(&mut self) -> io::Result<()> {
        while let Some(path) = self.lost.last() {
            let free = (1..).map(|number| {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".lost-{number}"));
                PathBuf::from(name)
            });
            let is_free = |path: &PathBuf| {
                fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            };
            for name in free.filter(is_free).take(1) {
                disk::rename(path, &name)?;
            }
            self.lost.pop();
        }
        Ok(())
    }

    fn create(&mut self, path: &Path, sequence: u64, payload: &[u8]) -> io::Result<()> {
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        private(&mut options);
        let file = disk::create(&new, &options, true)?;
        let mut bytes = copy::encode(sequence, payload);
        fill(&mut bytes);
        disk::write(&file, &new, 0, &bytes)?;
        disk::sync_file(&file, &new)?;
        // Only now, when there is something in their place; and durably before it counts: a copy left
        // beside it might be readable one day, and the newer one by its number.
        if !self.lost.is_empty() {
            self.set_aside()?;
            disk::sync_dir(&self.directory)?;
        }
        disk::rename(&new, path)
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("directory", &self.directory)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Copies put aside by earlier saves. Where there is no copy beside them, the save did not come to its end:
/// the loss still stands.
fn set_aside_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if NAMES.iter().any(|n| name.starts_with(&format!("{n}.lost"))) {
            // In order: they are few, and a sort would be 5 kB of code.
            paths.insert(paths.partition_point(|other| *other < path), path);
        }
    }
    Ok(paths)
}

/// Opens a copy if it exists.
fn open_copy(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    private(&mut options);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) if !file.metadata()?.is_file() => Err(io::Error::other("it is no file")),
        Ok(file) => Ok(Some(file)),
    }
}

/// Reads a copy; `None` if it is none, or not whole. Never reads more than the longest one has.
fn read_copy(mut file: impl Read) -> io::Result<Option<Copy>> {
    let mut header = [0; copy::HEADER];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let Some(length) = copy::payload_length(&header) else {
        return Ok(None);
    };
    let mut payload = Vec::new();
    file.take(length).read_to_end(&mut payload)?;
    Ok(Copy::new(header, payload))
}

/// Puts zeros up to the end of a copy's room.
fn fill(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ROOM), 0);
}

fn overwrite(file: &File, path: &Path, sequence: u64, payload: &[u8]) -> io::Result<()> {
    let mut bytes = copy::encode(sequence, payload);
    if bytes.len() as u64 > file.metadata()?.len() {
        fill(&mut bytes);
    }
    disk::write(file, path, 0, &bytes)?;
    disk::sync_data(file, path)
}

/// Makes the directory, durably.
fn make(directory: &Path) -> Result<(), Failure> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .map_err(cannot("make the state directory", directory))?;
    for parent in directory.ancestors().skip(1) {
        // A parent that may not be read was not made here.
        let _ = disk::sync_dir(parent);
    }
    Ok(())
}

/// A file only its owner may read, and no link to somewhere else.
pub(super) fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
}

pub(super) fn cannot<'a>(doing: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| disk::failure(&error, Code::State, doing, path)
}

#[cfg(test)]
mod tests;
