//! The guard: counts a start before the program that starts, and rolls back.

use crate::engine::{self, Guard};
use crate::install::{self, ImageState};
use crate::journal::{Journal, Loaded};
use crate::update::{Code, Failure, Record};
use std::path::Path;

/// What the guard did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Guarded {
    /// No new version has to prove itself.
    Nothing,
    /// This start of the new version was counted.
    Counted {
        /// Starts so far, this one among them.
        starts: u32,
        /// Starts it has.
        allowed: u32,
    },
    /// The new version had used up its starts: the old one is back.
    RolledBack,
}

/// Counts a start of a new version that has to prove itself, and brings the old one back when it has
/// used up its starts. To be called before the program starts, for an engine that lives in the program
/// it updates cannot roll back when that program does not come to start it: `twinflash guard` in
/// systemd's `ExecStartPre=`, or this function as a program's first line.
///
/// # Errors
/// The state directory cannot be used or is held by a process that runs; the rollback failed.
pub fn guard(state_dir: impl AsRef<Path>) -> Result<Guarded, Failure> {
    let state_dir = state_dir.as_ref();
    if !state_dir.exists() {
        return Ok(Guarded::Nothing);
    }
    let (mut journal, loaded) = Journal::open(state_dir)?;
    let Loaded::Record(json) = loaded else {
        return Ok(Guarded::Nothing);
    };
    let Some(mut record) = Record::from_json(&json) else {
        return Ok(Guarded::Nothing);
    };
    // Who cannot be rolled back from here rolls back by itself: its boot loader does.
    let Some(mut installer) = record
        .installer
        .as_ref()
        .and_then(install::from_description)
    else {
        return Ok(Guarded::Nothing);
    };
    let image = installer.inspect().unwrap_or(ImageState::Unknown);
    match engine::guard(&mut record, image) {
        Guard::Nothing => Ok(Guarded::Nothing),
        Guard::Counted => {
            journal.save(&record.to_json())?;
            Ok(Guarded::Counted {
                starts: record.core.attempts,
                allowed: record.update.map_or(0, |update| update.starts_allowed),
            })
        }
        Guard::RollBack => {
            journal.save(&record.to_json())?;
            installer.rollback().map_err(|failure| {
                Failure::new(
                    Code::RollbackFailed,
                    format!(
                        "the old image could not be brought back: {}",
                        failure.message
                    ),
                )
            })?;
            Ok(Guarded::RolledBack)
        }
    }
}
