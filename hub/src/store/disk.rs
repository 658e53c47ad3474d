//! The database, and the thread that writes to it.
//!
//! A commit waits for the disk, some milliseconds each time. So changes are gathered while one is being written, and the
//! next one takes them all: what a fleet does at once costs few commits. Nobody is told of a change before it is durable.

use super::{Table, definition, open_private};
use crate::error::Error;
use redb::Database;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::watch;

/// After a failed commit, the next try comes after this.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to be in a table; `None` is to be gone.
type Changes = BTreeMap<(Table, String), Option<Vec<u8>>>;

pub(crate) struct Disk {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    /// Not there after a failed commit: the library wants it to be opened again.
    database: Mutex<Option<Database>>,
    file: PathBuf,
    waiting: Mutex<Waiting>,
    /// There is something to write.
    wake: Condvar,
    written: watch::Sender<Written>,
}

/// What waits for the writer.
#[derive(Default)]
struct Waiting {
    changes: Changes,
    /// How many there were, ever.
    count: u64,
    closing: bool,
}

/// How far the writer has come.
#[derive(Clone, Default)]
struct Written {
    /// So many changes are durable…
    count: u64,
    /// …and so many could not be made so, for this reason. They are tried again.
    failed: Option<(u64, String)>,
}

impl Disk {
    /// Of a database that was [opened](open), and its file.
    pub(super) fn new(database: Database, file: PathBuf) -> Self {
        Self {
            shared: Arc::new(Shared {
                database: Mutex::new(Some(database)),
                file,
                waiting: Mutex::default(),
                wake: Condvar::new(),
                written: watch::Sender::new(Written::default()),
            }),
            writer: None,
        }
    }

    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, String> {
        let database = self.shared.database();
        let database = database.as_ref().ok_or("its last change failed")?;
        read(database).map_err(|error| error.to_string())
    }

    /// Changes rows, all or none.
    pub(super) fn change(
        &self,
        rows: impl Iterator<Item = ((Table, String), Option<Vec<u8>>)>,
    ) -> Result<(), String> {
        if self.writer.is_none() {
            let rows: Changes = rows.collect();
            return match rows.is_empty() {
                true => Ok(()),
                false => self.shared.commit(&rows),
            };
        }
        let mut waiting = self.shared.lock();
        let before = waiting.count;
        for (key, value) in rows {
            waiting.changes.insert(key, value);
            waiting.count += 1;
        }
        if waiting.count > before {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn write_behind(&mut self) -> Result<Durable, Error> {
        let shared = Arc::clone(&self.shared);
        if self.writer.is_none() {
            let theirs = Arc::clone(&shared);
            let writer = thread::Builder::new()
                .name("twinflash-hub-store".into())
                .spawn(move || theirs.write())
                .map_err(|error| {
                    Error::System(format!("cannot start the store's thread: {error}"))
                })?;
            self.writer = Some(writer);
        }
        Ok(Durable(Some(shared)))
    }
}

impl Drop for Disk {
    /// Waits until all is written.
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // It has nothing to panic over; then nothing could be done about it either.
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// Changes are put in and taken out whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, changes: &Changes) -> Result<(), String> {
        let mut database = self.database();
        let opened = match database.take() {
            Some(opened) => opened,
            None => open_private(&self.file)
                .map_err(|error| error.to_string())
                .and_then(|file| open(file).map_err(|error| error.to_string()))?,
        };
        commit(&opened, changes)?;
        *database = Some(opened);
        Ok(())
    }

    /// Writes what comes, until the store is closed.
    fn write(&self) {
        let mut waiting = self.lock();
        loop {
            while waiting.changes.is_empty() {
                if waiting.closing {
                    return;
                }
                waiting = self
                    .wake
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let changes = std::mem::take(&mut waiting.changes);
            let count = waiting.count;
            drop(waiting);
            let result = self.commit(&changes);
            waiting = self.lock();
            let before = self
                .written
                .borrow()
                .failed
                .clone()
                .map(|(_, reason)| reason);
            let Err(reason) = result else {
                if before.is_some() {
                    log::warn!(target: "twinflash_hub", "the state is kept again");
                }
                self.written.send_replace(Written {
                    count,
                    failed: None,
                });
                continue;
            };
            if before.as_ref() != Some(&reason) {
                log::error!(target: "twinflash_hub", "the state cannot be kept: {reason}; this is tried again and again");
            }
            // What has changed again since is newer.
            for (key, value) in changes {
                waiting.changes.entry(key).or_insert(value);
            }
            self.written
                .send_modify(|written| written.failed = Some((count, reason)));
            if waiting.closing {
                return;
            }
            let woken = self.wake.wait_timeout(waiting, PAUSE);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Tells when changes are durable.
#[derive(Clone, Default)]
pub(crate) struct Durable(Option<Arc<Shared>>);

impl Durable {
    /// Waits until every change made so far is durable; at once where nothing is kept.
    ///
    /// # Errors
    /// They could not be written. They will be tried again.
    pub(crate) async fn now(&self) -> Result<(), String> {
        let Some(shared) = &self.0 else {
            return Ok(());
        };
        let count = shared.lock().count;
        if shared.written.borrow().count >= count {
            return Ok(());
        }
        let mut written = shared.written.subscribe();
        let failed = |written: &Written| match &written.failed {
            Some((failed, reason)) if *failed >= count => Some(reason.clone()),
            _ => None,
        };
        let end = written
            .wait_for(|written| written.count >= count || failed(written).is_some())
            .await;
        match end {
            Ok(written) if written.count >= count => Ok(()),
            Ok(written) => Err(failed(&written).unwrap_or_default()),
            // The sender is held here.
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Opens the database in a file, or makes it.
pub(super) fn open(file: fs::File) -> Result<Database, redb::DatabaseError> {
    redb::Builder::new()
        .set_cache_size(16 * 1024 * 1024)
        .create_file(file)
}

fn commit(database: &Database, changes: &Changes) -> Result<(), String> {
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        let mut rows = changes.iter().peekable();
        while let Some(((table, _), _)) = rows.peek() {
            let table = *table;
            let mut open = transaction.open_table(definition(table))?;
            while let Some(((_, key), value)) = rows.next_if(|((of, _), _)| *of == table) {
                match value {
                    Some(bytes) => open.insert(key.as_str(), bytes.as_slice())?,
                    None => open.remove(key.as_str())?,
                };
            }
        }
        Ok(transaction.commit()?)
    };
    write().map_err(|error| error.to_string())
}
