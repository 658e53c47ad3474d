//! The local control of a running agent: a Unix socket in its state directory.
//!
//! The socket is `control` in the state directory, mode 0600: for the agent's user and root. One connection is one
//! request and one reply, each a JSON object on a line of its own; who sends more than 4 KiB, or nothing for five
//! seconds, is not answered.
//!
//! | request | done, when |
//! |---|---|
//! | `{"command":"status"}` | always |
//! | `{"command":"confirm"}` | a new version had to prove itself, and has |
//! | `{"command":"cancel"}` | an update ran that could be cancelled, and it is, durably |
//! | `{"command":"pause"}`, `{"command":"resume"}` | there is a download, and it is paused or goes on, durably |
//! | `{"command":"approve"}` | the user was asked for consent, and has agreed, durably |
//! | `{"command":"defer","seconds":…}` | an update ran that could be put off, and it is, durably |
//! | `{"command":"install","file":…,"manifest":…,"version":…,"check":…}` | the file's installation has begun, durably; all but `file`, an absolute path, may be left out |
//!
//! The reply is `{"done":…,"status":{…}}`, with the status as of
//! [`Status::to_json`](twinflash::engine::Status::to_json) afterwards. What went wrong is
//! `{"done":false,"error":{"code":…,"message":…}}`. Members may be added on either side, and what is not
//! known is ignored: that is how it has versions.

mod ask;
mod serve;

pub(crate) use ask::ask;
pub(crate) use serve::Control;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The socket's name in the state directory.
const NAME: &str = "control";
/// So much an address of a socket may hold, its end mark included.
const ADDRESS: usize = 108;
/// The longest request, in bytes.
const REQUEST: usize = 4096;
/// The longest reply, in bytes.
const REPLY: u64 = 64 << 10;
/// So long a client has for its request, and again to take the reply.
const CLIENT_TIME: Duration = Duration::from_secs(5);
/// So long what was asked for may take.
const WORK_TIME: Duration = Duration::from_secs(10);

/// What a running agent can be asked.
#[derive(Debug, Clone, PartialEq, clap::Subcommand, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub(crate) enum Order {
    /// Where everything stands
    Status,
    /// The new version is good (with confirm = "call")
    Confirm,
    /// Cancel the update that runs
    Cancel,
    /// Pause the download, until it is resumed; over restarts, too
    Pause,
    /// Go on with a paused download; do not wait for the next attempt
    Resume,
    /// The user agrees to the update that waits for consent
    Approve,
    /// Put the update off: nothing new is begun, and nobody asked, for so long
    Defer {
        /// For how many seconds
        seconds: f64,
    },
    /// Install an image from a file of this device, under the same rules as any other
    Install(Install),
}

/// A file to install.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub(crate) struct Install {
    /// The image; the agent's user must be able to read it until it is being applied
    file: PathBuf,
    /// Its signed manifest; by default, where there are trusted keys, FILE.jws beside it
    #[arg(long, value_name = "FILE")]
    #[serde(default)]
    manifest: Option<PathBuf>,
    /// Its version
    #[arg(long)]
    #[serde(default)]
    version: Option<String>,
    /// A CRC-16, CRC-32 or SHA-256 that it must have
    #[arg(long, value_name = "VALUE")]
    #[serde(default)]
    check: Option<String>,
}

impl Install {
    /// With the paths as another process, in another directory, finds them.
    fn absolute(&self) -> io::Result<Self> {
        let manifest = self.manifest.as_ref().map(std::path::absolute);
        Ok(Self {
            file: std::path::absolute(&self.file)?,
            manifest: manifest.transpose()?,
            ..self.clone()
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    done: bool,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    status: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Problem {
    code: String,
    message: String,
}

/// A path to a file in a directory that fits into a socket's address, however long the directory's own
/// path is; good as long as the directory is held open.
fn short(directory: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = directory.join(name);
    if path.as_os_str().as_bytes().len() < ADDRESS || !cfg!(target_os = "linux") {
        return Ok((path, None));
    }
    let held = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{name}", held.as_raw_fd()).into();
    Ok((path, Some(held)))
}
