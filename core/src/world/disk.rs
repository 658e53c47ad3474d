//! What a disk holds, and what it would hold after a power cut.
//!
//! The code under test works on a real directory (in memory). This keeps account of each step it
//! makes: what was made durable by a sync, and what was not. A power cut rewrites the directory to
//! one of the states a real disk may be found in: of what was not synced, any part may be there,
//! in any order. Nothing is assumed of a file system but what POSIX and Linux promise:
//!
//! - a file's `fsync` makes its content, length and mode durable, not its name;
//! - a directory's `fsync` makes its entries durable, not the files' content;
//! - a rename is one step: the new name is never missing where there was one;
//! - what is not synced is written at any time, sector by sector, and a sector may be torn;
//! - a file may have got its new length and not its content: then other data is in it;
//! - after an `fsync` that failed, what it was to write is forgotten, and the next one succeeds.

use super::case::{Blow, Left, Random};
use crate::disk::Step;
use std::{
    any::Any,
    collections::BTreeMap,
    fs::{self, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink},
    panic::resume_unwind,
    path::{Path, PathBuf},
};

mod account;

pub(super) use account::Account;

const SECTOR: usize = 512;
/// What a sector holds that was never written.
const GARBAGE: u8 = 0xa5;

/// Thrown where a process ends in the middle of its work.
pub(super) struct Stopped(pub(super) Blow);

/// Ends the process here.
pub(super) fn stop(blow: Blow) -> ! {
    resume_unwind(Box::new(Stopped(blow)) as Box<dyn Any + Send>)
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Held {
    bytes: Vec<u8>,
    mode: u32,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
    Mode(u32),
}

impl Held {
    fn take(&mut self, change: &Change) {
        match change {
            Change::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[*offset..end].copy_from_slice(bytes);
            }
            Change::Length(length) => self.bytes.resize(*length, 0),
            Change::Mode(mode) => self.mode = *mode,
        }
    }
}

/// A file or a symbolic link, whatever its names are.
#[derive(Debug, Clone, Default)]
struct Node {
    now: Held,
    durable: Held,
    /// What is not durable yet, in order.
    pending: Vec<Change>,
    link: Option<PathBuf>,
}

#[derive(Debug, Clone)]
enum Entry {
    Set(String, usize),
    Remove(String),
    Rename(String, String, usize),
}

type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone, Default)]
struct Directory {
    now: Names,
    durable: Names,
    pending: Vec<Entry>,
}

fn enter(names: &mut Names, entry: &Entry) {
    match entry {
        Entry::Set(name, node) => {
            names.insert(name.clone(), *node);
        }
        Entry::Remove(name) => {
            names.remove(name);
        }
        Entry::Rename(from, to, node) => {
            if names.get(from) == Some(node) {
                names.remove(from);
            }
            names.insert(to.clone(), *node);
        }
    }
}

/// Says what is wrong with a disk, if anything is.
pub(super) type Check = Box<dyn Fn(&Disk, Option<Step<'_>>) -> Result<(), String>>;

pub(super) struct Disk {
    nodes: Vec<Node>,
    directories: BTreeMap<PathBuf, Directory>,
    /// Steps so far.
    pub(super) steps: usize,
    /// What happens at which step.
    pub(super) blows: Vec<(usize, Blow)>,
    /// So many steps more fail with this error.
    failing: Option<(i32, u32)>,
    /// Steps that have failed.
    pub(super) failed: usize,
    /// What could not be read, and cannot be when that is tried again at once.
    bad: Option<PathBuf>,
    /// A copy of the record could not be read.
    pub(super) unread: bool,
    /// What must hold after each step.
    pub(super) check: Option<Check>,
}

impl Disk {
    /// Takes account of what is there in these directories, all of it durable.
    pub(super) fn of(directories: &[PathBuf]) -> Self {
        let mut disk = Self {
            nodes: Vec::new(),
            directories: BTreeMap::new(),
            steps: 0,
            blows: Vec::new(),
            failing: None,
            failed: 0,
            bad: None,
            unread: false,
            check: None,
        };
        for path in directories {
            let mut directory = Directory::default();
            for (name, (held, link)) in read(path) {
                let node = Node {
                    now: held.clone(),
                    durable: held,
                    pending: Vec::new(),
                    link,
                };
                disk.nodes.push(node);
                directory.now.insert(name, disk.nodes.len() - 1);
            }
            directory.durable = directory.now.clone();
            disk.directories.insert(path.clone(), directory);
        }
        disk
    }

    fn directory(&mut self, path: &Path) -> &mut Directory {
        self.directories
            .get_mut(path)
            .unwrap_or_else(|| panic!("{} is no directory of this world", path.display()))
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let (directory, name) = split(path);
        self.directories.get(directory)?.now.get(&name).copied()
    }

    fn there(&self, path: &Path) -> usize {
        self.find(path)
            .unwrap_or_else(|| panic!("{} was made behind the account's back", path.display()))
    }

    fn change(&mut self, path: &Path, change: Change) {
        let node = self.there(path);
        let node = &mut self.nodes[node];
        node.now.take(&change);
        node.pending.push(change);
    }

    fn enter(&mut self, directory: &Path, entry: Entry) {
        let directory = self.directory(directory);
        enter(&mut directory.now, &entry);
        directory.pending.push(entry);
    }

    /// Something else than the device's own system gives a file a new content, for good.
    pub(super) fn put(&mut self, path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        let node = self.there(path);
        let node = &mut self.nodes[node];
        node.now.bytes = bytes.to_vec();
        node.durable.bytes = bytes.to_vec();
    }

    /// A file's content.
    pub(super) fn content(&self, path: &Path) -> Option<&[u8]> {
        Some(&self.nodes[self.find(path)?].now.bytes)
    }

    pub(super) fn mode(&self, path: &Path) -> Option<u32> {
        Some(self.nodes[self.find(path)?].now.mode)
    }

    /// Where a symbolic link points to.
    pub(super) fn link(&self, path: &Path) -> Option<&Path> {
        self.nodes[self.find(path)?].link.as_deref()
    }

    /// What can be lost, each by itself: a file's changes, and each change of a directory.
    pub(super) fn units(&self) -> usize {
        let files = self.nodes.iter().filter(|n| !n.pending.is_empty()).count();
        let entries = self.directories.values().map(|d| d.pending.len());
        files + entries.sum::<usize>()
    }

    /// All is written, as by an orderly shutdown.
    pub(super) fn flush(&mut self) {
        for node in &mut self.nodes {
            for change in node.pending.drain(..) {
                node.durable.take(&change);
            }
        }
        for directory in self.directories.values_mut() {
            for entry in directory.pending.drain(..) {
                enter(&mut directory.durable, &entry);
            }
        }
        self.failing = None;
    }

    /// The power is cut: of what is not durable, this is left.
    pub(super) fn cut(&mut self, left: Left) {
        self.compare();
        let mut random = Random(match left {
            Left::Torn(seed) => seed,
            Left::Units(_) => 0,
        });
        let mut unit = 0;
        let mut keeps = |random: &mut Random| {
            unit += 1;
            match left {
                Left::Units(units) => units >> (unit - 1).min(63) & 1 == 1,
                Left::Torn(_) => random.one_in(2),
            }
        };
        for node in self.nodes.iter_mut().filter(|n| !n.pending.is_empty()) {
            let pending = std::mem::take(&mut node.pending);
            match left {
                Left::Units(_) if keeps(&mut random) => {
                    pending.iter().for_each(|change| node.durable.take(change));
                }
                Left::Units(_) => {}
                Left::Torn(_) => tear(&mut node.durable, &pending, &mut random),
            }
            node.now = node.durable.clone();
        }
        for directory in self.directories.values_mut() {
            for entry in std::mem::take(&mut directory.pending) {
                if keeps(&mut random) {
                    enter(&mut directory.durable, &entry);
                }
            }
            directory.now = directory.durable.clone();
        }
        // What an earlier failed sync has forgotten shows now.
        for node in &mut self.nodes {
            node.now = node.durable.clone();
        }
        self.failing = None;
        self.write_down();
        self.judge(None);
    }

    /// The real directories become what this account says.
    fn write_down(&self) {
        let mut written = BTreeMap::<usize, PathBuf>::new();
        for (path, directory) in &self.directories {
            for entry in fs::read_dir(path).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
            }
            for (name, index) in &directory.now {
                let (node, path) = (&self.nodes[*index], path.join(name));
                if let Some(to) = &node.link {
                    symlink(to, path).unwrap();
                    continue;
                }
                if let Some(other) = written.get(index) {
                    fs::hard_link(other, path).unwrap();
                    continue;
                }
                let mut options = OpenOptions::new();
                let mut file = options
                    .write(true)
                    .create_new(true)
                    .mode(node.now.mode)
                    .open(&path)
                    .unwrap();
                file.write_all(&node.now.bytes).unwrap();
                file.set_permissions(Permissions::from_mode(node.now.mode))
                    .unwrap();
                written.insert(*index, path);
            }
        }
    }

    /// Fails where a step was made that this account was not told of.
    pub(super) fn compare(&self) {
        for (path, directory) in &self.directories {
            let mut real = read(path);
            let names = directory.now.iter();
            let mut ours: BTreeMap<_, _> = names
                .map(|(name, node)| {
                    let node = &self.nodes[*node];
                    let held = node.link.is_none().then(|| node.now.clone());
                    (name.clone(), (held.unwrap_or_default(), node.link.clone()))
                })
                .collect();
            // Opened also by who looks on.
            for lock in ["lock", "image.lock"] {
                real.remove(lock);
                ours.remove(lock);
            }
            if real != ours {
                let keys = |map: &BTreeMap<String, _>| map.keys().cloned().collect::<Vec<_>>();
                panic!(
                    "a step was not told of in {}: {:?}, and in account {:?}",
                    path.display(),
                    keys(&real),
                    keys(&ours)
                );
            }
        }
    }

    fn judge(&self, step: Option<Step<'_>>) {
        if let Some(check) = &self.check
            && let Err(why) = check(self, step)
        {
            match step {
                Some(step) => panic!("{why}, after {step:?}"),
                None => panic!("{why}, after a power cut"),
            }
        }
    }

    /// What a step that fails does all the same.
    fn half(&mut self, step: Step<'_>) {
        match step {
            Step::Write {
                path,
                offset,
                bytes,
            } => {
                let half = &bytes[..bytes.len() / 2];
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(half, offset).unwrap();
                self.change(path, Change::Write(offset as usize, half.to_vec()));
            }
            Step::Sync { path } => {
                let node = self.there(path);
                self.nodes[node].pending.clear();
            }
            _ => {}
        }
    }
}

/// Sector by sector, any of it may be there.
fn tear(durable: &mut Held, pending: &[Change], random: &mut Random) {
    // No content came that far, but the length.
    let empty = random.one_in(4);
    for change in pending {
        match change {
            Change::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if durable.bytes.len() < end && random.one_in(2) {
                    durable.bytes.resize(end, GARBAGE);
                }
                let mut at = *offset;
                while at < end {
                    let next = ((at / SECTOR + 1) * SECTOR).min(end);
                    let mut upto = next;
                    if random.one_in(8) {
                        upto = at + random.below(next - at);
                    }
                    if !empty && random.one_in(2) {
                        if durable.bytes.len() < upto {
                            durable.bytes.resize(upto, GARBAGE);
                        }
                        durable.bytes[at..upto].copy_from_slice(&bytes[at - offset..upto - offset]);
                    }
                    at = next;
                }
            }
            other if random.one_in(2) => durable.take(other),
            _ => {}
        }
    }
}

fn split(path: &Path) -> (&Path, String) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    (path.parent().unwrap(), name)
}

/// What really is in a directory.
fn read(path: &Path) -> BTreeMap<String, (Held, Option<PathBuf>)> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let path = entry.path();
            let found = fs::symlink_metadata(&path).unwrap();
            let held = match found.is_symlink() {
                true => (Held::default(), Some(fs::read_link(&path).unwrap())),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    let mode = found.permissions().mode() & 0o7777;
                    (Held { bytes, mode }, None)
                }
            };
            (split(&path).1, held)
        })
        .collect()
}
