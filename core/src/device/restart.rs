//! Restarts, and what tells one start from another.

use crate::install::Restart;
use crate::update::{Code, Failure};
use std::{
    process::{self, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

/// Another one at each start that counts as a restart: the system's where the system restarts, one
/// of this process otherwise.
pub(super) fn boot_id(restart: &Restart, seed: u64) -> String {
    let of_system = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    if let (Restart::System, Some(id)) = (restart, of_system()) {
        return id.trim().to_owned();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.map(|since| since.as_nanos()).unwrap_or_default();
    format!("{}-{nanos:x}-{seed:x}", process::id())
}

/// Restarts as the installer asks for.
pub(super) fn perform(restart: &Restart) -> Result<(), Failure> {
    match restart {
        Restart::None => Ok(()),
        Restart::Exit => process::exit(0),
        Restart::Command(command) => run(command),
        Restart::System => run(&["reboot".to_owned()]),
    }
}

/// Runs a command, never through a shell, and wants status 0.
pub(super) fn run(command: &[String]) -> Result<(), Failure> {
    let failed = |what: String| Err(Failure::new(Code::InstallFailed, what));
    let Some((program, arguments)) = command.split_first() else {
        return failed("no command is configured".into());
    };
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format!("{program} ended with {status}")),
        Err(error) => failed(format!("{program} cannot be run: {error}")),
    }
}
