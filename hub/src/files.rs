//! How many files a process may have open: each connection is one.

use crate::error::Error;
use std::fmt;
use tokio::sync::Semaphore;

/// As many connections as a hub serves that is not told how many.
const MANY: usize = 20_000;
/// Open files that are no connections: ports, the store, the runtime's own.
const OTHER_FILES: u64 = 64;
/// The most connections that are kept for the HTTPS port.
const MAX_KEPT: usize = 64;

/// Makes sure that this process may have `needed` files open at once: raises its limit (`RLIMIT_NOFILE`, `ulimit -n`) as
/// far as that takes and the hard limit lets it. The limit is the whole process's. Returns what it is then.
///
/// # Errors
/// The hard limit is lower.
pub fn allow_open_files(needed: u64) -> Result<u64, TooFewFiles> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let current = limit.current.unwrap_or(u64::MAX);
        if current >= needed {
            return Ok(current);
        }
        let hard = limit.maximum.unwrap_or(u64::MAX);
        let raised = Rlimit {
            current: Some(needed.min(hard)),
            maximum: limit.maximum,
        };
        // Some systems allow less than their hard limit says.
        let allowed = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => needed.min(hard),
            Err(_) => current,
        };
        if allowed < needed {
            return Err(TooFewFiles { needed, allowed });
        }
    }
    Ok(needed)
}

/// A process may not have as many files open as it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooFewFiles {
    /// How many it needs.
    pub needed: u64,
    /// How many it may have.
    pub allowed: u64,
}

impl fmt::Display for TooFewFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { needed, allowed } = self;
        write!(
            f,
            "{needed} open files are needed, and this process may have {allowed}: raise the limit (ulimit -n {needed}, as \
             root if it is refused; LimitNOFILE={needed} in a systemd unit)"
        )
    }
}

impl std::error::Error for TooFewFiles {}

/// How many connections are served at once, and by what.
pub(crate) struct Limit {
    pub(crate) connections: usize,
    /// The limit of open files that it follows from.
    files: Option<u64>,
}

impl Limit {
    /// As many as are asked for; unasked, as many as the process may have.
    pub(crate) fn find(asked: Option<usize>) -> Result<Self, Error> {
        let connections = asked.unwrap_or(MANY).clamp(1, Semaphore::MAX_PERMITS);
        match (allow_open_files(connections as u64 + OTHER_FILES), asked) {
            (Ok(_), _) => Ok(Self {
                connections,
                files: None,
            }),
            (Err(few), Some(_)) => Err(Error::OpenFiles(few)),
            (Err(few), None) => Ok(Self {
                connections: usize::try_from(few.allowed.saturating_sub(OTHER_FILES))
                    .map_or(MANY, |most| most.max(1)),
                files: Some(few.allowed),
            }),
        }
    }

    /// How many of them only the HTTPS port gets.
    pub(crate) fn kept(&self) -> usize {
        (self.connections / 16).min(MAX_KEPT)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hub serves {} connections, ", self.connections)?;
        match self.files {
            None => f.write_str(
                "as many as it was started for: start it for more (--max-connections N)",
            ),
            Some(files) => write!(
                f,
                "as many as its limit of {files} open files lets it: raise that before it is started (ulimit -n {})",
                MANY as u64 + OTHER_FILES
            ),
        }
    }
}
