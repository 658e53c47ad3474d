//! How many files a process may have open: each connection is one.

use std::fmt;

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
