//! What the core logs, such as what a command printed that succeeded, for Python's `logging`. By a queue: whoever
//! logs waits for no interpreter.

use crate::events::{Happening, Reader, Readers};
use log::{Level, LevelFilter, Log, Metadata, Record};
use pyo3::prelude::*;
use std::{process, sync::OnceLock};

/// Who reads them, in the process that began to: one that was forked off has no such thread.
static READERS: OnceLock<(u32, Readers)> = OnceLock::new();

struct Lines;

impl Log for Lines {
    /// Only our own: not what the libraries below say of their connections.
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target().split(':').next() == Some("twinflash")
    }

    fn log(&self, record: &Record<'_>) {
        if let Some((process, readers)) = READERS.get()
            && *process == process::id()
            && self.enabled(record.metadata())
        {
            readers.tell(&Happening::Line {
                // As Python numbers them.
                level: match record.level() {
                    Level::Error => 40,
                    Level::Warn => 30,
                    Level::Info => 20,
                    Level::Debug | Level::Trace => 10,
                },
                target: record.target().to_owned(),
                text: record.args().to_string(),
            });
        }
    }

    fn flush(&self) {}
}

/// A reader of them, until `quiesce`; `None` where there is one.
#[pyfunction]
pub(crate) fn lines() -> Option<Reader> {
    let mut reader = None;
    READERS.get_or_init(|| {
        let readers = Readers::default();
        reader = Some(readers.subscribe());
        (process::id(), readers)
    });
    if reader.is_some() && log::set_logger(&Lines).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    reader
}

/// No more of them: their reader ends.
pub(crate) fn end() {
    if let Some((process, readers)) = READERS.get()
        && *process == process::id()
    {
        readers.end();
    }
}
