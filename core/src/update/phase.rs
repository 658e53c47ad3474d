//! Where an update stands, and how it ended.

use super::Failure;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Where a running update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Accepted; the policy has not let it start yet.
    Waiting,
    /// The image is being fetched, checked as it streams, and written.
    Downloading,
    /// Every byte is there; the checks are compared.
    Verifying,
    /// The image is being installed and activated. From here on it can not be cancelled.
    Applying,
    /// Activated; it runs after a restart.
    Rebooting,
    /// It runs, and has to prove itself.
    Confirming,
    /// It failed after it was activated; the old image is being brought back.
    RollingBack,
}

impl Phase {
    /// The phase in a word, such as `downloading`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Verifying => "verifying",
            Self::Applying => "applying",
            Self::Rebooting => "rebooting",
            Self::Confirming => "confirming",
            Self::RollingBack => "rolling-back",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an update ended. However it did, the next one can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The new image runs and has proved itself.
    Completed,
    /// The version asked for was running already; nothing was fetched.
    UpToDate,
    /// It failed; the old image is what it was.
    Failed {
        /// Where it failed.
        phase: Phase,
        /// Why.
        failure: Failure,
    },
    /// The new image was activated, failed, and the old one was brought back.
    RolledBack(Failure),
    /// It was cancelled in this phase; the old image is what it was.
    Cancelled(Phase),
    /// A newer request took over; the old image is what it was.
    Superseded,
}

impl Outcome {
    /// The outcome in a word, such as `rolled-back`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::UpToDate => "up-to-date",
            Self::Failed { .. } => "failed",
            Self::RolledBack(_) => "rolled-back",
            Self::Cancelled(_) => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// The device runs what was asked for.
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Completed | Self::UpToDate)
    }

    /// What went wrong, if something did.
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure, .. } | Self::RolledBack(failure) => Some(failure),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { phase, failure } => write!(f, "failed while {phase}: {failure}"),
            Self::RolledBack(failure) => write!(f, "rolled back: {failure}"),
            _ => f.write_str(self.as_str()),
        }
    }
}
