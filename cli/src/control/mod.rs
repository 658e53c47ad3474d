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
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    command: Order,
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
