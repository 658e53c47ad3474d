//! Restarts, and what tells one start from another.

use crate::command;
use crate::install::{self, Restart};
use crate::update::Failure;
use std::{
    path::Path,
    process::{self, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The time a restart command has: services may take a minute and a half to stop, and to start.
const TIME: Duration = Duration::from_secs(300);

/// Another one at each start that counts as a restart: the system's where the system restarts, one
/// of this process otherwise.
pub(super) fn boot_id(restart: &Restart, seed: u64) -> String {
    if restart.is_of_system()
        && let Some(id) = install::boot_id(Path::new("/"))
    {
        return id;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map(|since| since.as_nanos()).unwrap_or_default();
    format!("{}-{nanos:x}-{seed:x}", process::id())
}

/// Restarts as the installer asks for; `started` is called once a command for it has been started.
pub(super) fn perform(restart: &Restart, started: impl FnOnce()) -> Result<(), Failure> {
    let command = match restart {
        Restart::None => return Ok(()),
        Restart::Exit => process::exit(0),
        Restart::Command(command) | Restart::Reboot(command) => command,
        Restart::System => &vec!["reboot".to_owned()],
    };
    command::run_and_tell(command, TIME, Stdio::null(), started).map(drop)
}
