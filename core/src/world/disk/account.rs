//! Takes account of a thread's steps, and lets them fail.

use super::super::case::Blow;
use super::super::note;
use super::super::outside::here;
use super::{Change, Disk, Entry, Held, Node, enter, split, stop};
use crate::disk::{Step, observe::Observer};
use std::{cell::RefCell, io, path::Path, rc::Rc};

const EIO: i32 = 5;

/// Whether a step can fail with this error.
fn fits(step: Step<'_>, error: i32) -> bool {
    const ENOSPC: i32 = 28;
    const EROFS: i32 = 30;
    !matches!(
        (error, step),
        (_, Step::Run { .. })
            | (
                ENOSPC | EROFS,
                Step::Read { .. } | Step::SyncDirectory { .. }
            )
            | (
                ENOSPC,
                Step::Remove { .. } | Step::SetMode { .. } | Step::TakeOver { .. }
            )
            | (EROFS, Step::Sync { .. })
    )
}

/// Tells an account of a thread's steps.
pub(in super::super) struct Account(pub(in super::super) Rc<RefCell<Disk>>);

impl Observer for Account {
    fn before(&mut self, step: Step<'_>) -> io::Result<()> {
        let mut disk = self.0.borrow_mut();
        let number = disk.steps;
        note(|| match step {
            Step::Write {
                path,
                offset,
                bytes,
            } => {
                let length = bytes.len();
                format!(
                    "        {number} Write {{ {}, {offset}, {length} bytes }}",
                    path.display()
                )
            }
            step => format!("        {number} {step:?}"),
        });
        disk.steps += 1;
        let blow = disk.blows.iter().find(|(at, _)| *at == number);
        match blow.map(|(_, blow)| *blow) {
            Some(Blow::Error(error, times)) => disk.failing = Some((error, times)),
            Some(blow) => {
                drop(disk);
                stop(blow);
            }
            None => {}
        }
        let read = match step {
            Step::Read { path } => Some(path),
            _ => None,
        };
        if read.is_some() && disk.bad.take().as_deref() == read {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let Some((error, left)) = disk.failing else {
            return Ok(());
        };
        if !fits(step, error) {
            return Ok(());
        }
        disk.bad = read.map(Path::to_owned);
        disk.failing = (left > 1).then_some((error, left - 1));
        disk.failed += 1;
        disk.unread |= matches!(step, Step::Read { path } if split(path).1.starts_with("journal."));
        here().borrow_mut().disk_failed = true;
        disk.half(step);
        note(|| format!("        failed with {error}"));
        Err(io::Error::from_raw_os_error(error))
    }

    fn after(&mut self, step: Step<'_>) {
        let mut disk = self.0.borrow_mut();
        match step {
            Step::Create { path, empty } => {
                if disk.find(path).is_none() {
                    let (directory, name) = split(path);
                    let held = Held {
                        bytes: Vec::new(),
                        mode: 0o600,
                    };
                    disk.nodes.push(Node {
                        now: held.clone(),
                        durable: held,
                        ..Node::default()
                    });
                    let node = disk.nodes.len() - 1;
                    disk.enter(directory, Entry::Set(name, node));
                } else if empty {
                    disk.change(path, Change::Length(0));
                }
            }
            Step::Write {
                path,
                offset,
                bytes,
            } => disk.change(path, Change::Write(offset as usize, bytes.to_vec())),
            Step::SetLength { path, length } => disk.change(path, Change::Length(length as usize)),
            Step::SetMode { path, mode } => disk.change(path, Change::Mode(mode)),
            Step::Sync { path } => {
                let node = disk.there(path);
                let node = &mut disk.nodes[node];
                for change in node.pending.drain(..) {
                    node.durable.take(&change);
                }
            }
            Step::SyncDirectory { path } => {
                let directory = disk.directory(path);
                for entry in directory.pending.drain(..) {
                    enter(&mut directory.durable, &entry);
                }
            }
            Step::Rename { from, to } => {
                let node = disk.there(from);
                let (directory, from) = split(from);
                assert_eq!(directory, split(to).0, "a rename into another directory");
                disk.enter(directory, Entry::Rename(from, split(to).1, node));
            }
            Step::Link { path, name } => {
                let node = disk.there(path);
                let (directory, name) = split(name);
                disk.enter(directory, Entry::Set(name, node));
            }
            Step::Symlink { to, path } => {
                disk.nodes.push(Node {
                    link: Some(to.to_owned()),
                    ..Node::default()
                });
                let node = disk.nodes.len() - 1;
                let (directory, name) = split(path);
                disk.enter(directory, Entry::Set(name, node));
            }
            Step::Remove { path } => {
                if disk.find(path).is_some() {
                    let (directory, name) = split(path);
                    disk.enter(directory, Entry::Remove(name));
                }
            }
            Step::TakeOver { .. } | Step::Reserve { .. } | Step::Read { .. } | Step::Run { .. } => {
            }
        }
        disk.judge(Some(step));
    }
}
