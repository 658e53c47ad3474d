//! What the owner of the device allows.

use alloc::string::String;
use alloc::vec::Vec;
use core::{fmt, time::Duration};
use serde::{Deserialize, Serialize};

/// What the owner of the device allows, whatever a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// `http:` addresses are let in. Then a check is required. Default: no.
    pub allow_http: bool,
    /// The largest image, in bytes. Default: 4 GiB.
    pub max_size: u64,
    /// A request must carry a check, even where its contract does not ask for one. Default: no.
    pub require_check: bool,
    /// A signed manifest must vouch for every image, whatever its contract asks for. So it is in any
    /// case where keys are configured; without keys nothing at all is installed then. Default: no.
    pub require_manifest: bool,
    /// The lowest version a manifest may be of, besides what the manifests of confirmed updates say.
    /// Default: none.
    pub floor: Option<String>,
    /// Which versions are let in, besides what the contract says of that. Default:
    /// [`VersionRule::None`], the contract alone.
    pub version: VersionRule,
    /// Before which stages the user must agree. Default: none.
    pub consent: Vec<Stage>,
    /// Who may agree for the user. Default: anybody who may reach the device.
    pub consent_by: ConsentBy,
    /// A command that is asked whether the user agrees: its program and arguments, where `{stage}`,
    /// `{version}` and `{size}` are filled in. Status 0 is yes, 75 (`EX_TEMPFAIL`) not yet, any other
    /// no. Default: none; the answer is [given](crate::engine::Input::Approve).
    pub consent_command: Vec<String>,
    /// That command is asked again after this, where it does not say itself when. Default: 1 h.
    pub consent_interval: Duration,
    /// Who is asked whether the device can take the time and the traffic now. Default: nobody.
    pub ready: Ready,
    /// They are asked again after this, where they do not say themselves when. Default: 5 min.
    pub ready_interval: Duration,
    /// A download begins after a random part of this time, so that not every device of a fleet comes at
    /// once. Default: none.
    pub start_delay: Duration,
    /// A download takes no more bytes a second than this. Default: as many as come.
    pub bandwidth: Option<u64>,
    /// Nothing is written and nothing installed: an update ends with [`Code::DryRun`](super::Code::DryRun)
    /// where it would be applied. Default: no.
    pub dry_run: bool,
    /// How failed attempts at a download are repeated.
    pub retry: RetryPolicy,
    /// A checkpoint after so much time… Default: 1 s.
    pub checkpoint_interval: Duration,
    /// …or so many bytes, whichever comes first. Default: 16 MiB.
    pub checkpoint_bytes: u64,
    /// Less than [`stall_bytes`](Self::stall_bytes) in this time is a stall. Default: 30 s.
    pub stall_time: Duration,
    /// See [`stall_time`](Self::stall_time). Default: 1 KiB.
    pub stall_bytes: u64,
    /// Redirects followed at most. Default: 5.
    pub max_redirects: u32,
    /// Progress reaches the twin in steps of so many per cent; 0 is never. Default: 10.
    pub progress_step: u8,
    /// Progress reaches the twin no more often than this. Default: 30 s. (Azure's limit is 50 twin
    /// updates a second for a whole hub.)
    pub progress_interval: Duration,
    /// How long an accepted method's answer waits for the hub to have the first report, so that no
    /// back end reads the last update's outcome. Zero waits for the report to be handed over only,
    /// which is needed where callbacks and network share one thread. Default: 2 s.
    pub answer_wait: Duration,
    /// How often applying is started before it has failed. Default: 3.
    pub apply_attempts: u32,
    /// How the new version proves itself.
    pub confirm: Confirm,
    /// Starts of the new version before it has failed to prove itself. Default: 3.
    pub confirm_attempts: u32,
    /// Time from the start before the new version has failed to prove itself. Default: 5 min.
    pub confirm_time: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allow_http: false,
            max_size: 4 << 30,
            require_check: false,
            require_manifest: false,
            floor: None,
            version: VersionRule::None,
            consent: Vec::new(),
            consent_by: ConsentBy::default(),
            consent_command: Vec::new(),
            consent_interval: Duration::from_secs(3600),
            ready: Ready::Always,
            ready_interval: Duration::from_secs(300),
            start_delay: Duration::ZERO,
            bandwidth: None,
            dry_run: false,
            retry: RetryPolicy::default(),
            checkpoint_interval: Duration::from_secs(1),
            checkpoint_bytes: 16 << 20,
            stall_time: Duration::from_secs(30),
            stall_bytes: 1024,
            max_redirects: 5,
            progress_step: 10,
            progress_interval: Duration::from_secs(30),
            answer_wait: Duration::from_secs(2),
            apply_attempts: 3,
            confirm: Confirm::default(),
            confirm_attempts: 3,
            confirm_time: Duration::from_secs(300),
        }
    }
}

/// How failed attempts at a download are repeated: exponential backoff with jitter, within a budget
/// that is kept in the record, so that a restart does not renew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The first pause; an attempt that brought new bytes starts over with it. Default: 1 s.
    pub first: Duration,
    /// The longest pause. Default: 5 min.
    pub longest: Duration,
    /// Give up after so much time of trying. Default: 24 h.
    pub time: Duration,
    /// Give up after so many times the image's size has been fetched. Default: 4.
    pub sizes: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(300),
            time: Duration::from_secs(24 * 3600),
            sizes: 4,
        }
    }
}

/// How a new version proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Confirm {
    /// It reaches its hub: a twin was read or a report acknowledged since it runs.
    #[default]
    Connected,
    /// A command ends with status 0. It is run again until it does.
    Health(Vec<String>),
    /// The application says so ([`Input::Confirm`](crate::engine::Input::Confirm)).
    Call,
    /// It need not.
    None,
}

/// Which versions start an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VersionRule {
    /// Any but the running one; a lower one is a deliberate downgrade.
    Other,
    /// A higher one.
    Higher,
    /// Versions are not looked at.
    #[default]
    None,
}

/// Who may agree to an update for the user of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConsentBy {
    /// Somebody at the device, and whoever may call its methods.
    #[default]
    Anybody,
    /// Somebody at the device: by the program itself, its local control, or the command. The method that agrees is refused.
    Local,
}

/// Who is asked whether the device is ready: whether its battery, its connection and its work allow it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Ready {
    /// Nobody: it always is.
    #[default]
    Always,
    /// A command: its program and arguments, where `{stage}`, `{version}` and `{size}` are filled in.
    /// Status 0 is yes, any other not yet; the first line it prints may then be a number of seconds after
    /// which it is asked again.
    Command(Vec<String>),
    /// The application.
    Call,
}

/// What an update's owner, user and calendar may hold up: its download, and its installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The download.
    Download,
    /// What follows once the image is there and verified.
    Apply,
}

impl Stage {
    /// The stage in a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Apply => "apply",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
