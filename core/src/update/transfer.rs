//! What one attempt at a download is asked to do, what it says on its way, and how it ends.
//!
//! The engine decides and the downloader moves bytes; these types are all that passes between them.

use super::{Digests, Failure};
use alloc::string::String;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// One attempt at fetching an image: one HTTP request and its redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The image's address, its query included. Never logged as it stands.
    pub uri: String,
    /// Where to go on from; `None` is from the start.
    pub resume: Option<Checkpoint>,
    /// The size the request announces, in bytes. A server that announces another one fails at once.
    pub size: Option<u64>,
    /// Never more bytes than this.
    pub max_size: u64,
    /// How the file is packed: size and checks are those of the image, which is unpacked while it comes.
    pub compression: Option<Compression>,
    /// How the file is encrypted; what comes of it is packed as [`Job::compression`] says.
    pub encryption: Option<Encryption>,
    /// The size of the packed or encrypted file, if it is announced, in bytes.
    pub file_size: Option<u64>,
    /// A SHA-256 will judge the whole image. Only then is a download resumed without a strong validator.
    pub hash_judges: bool,
    /// Identifies the content asked for; copied into every checkpoint.
    pub content: String,
    /// The request was made on this device: a `file:` address is allowed.
    pub local: bool,
    /// `http:` is not allowed, neither at first nor after a redirect.
    pub https_only: bool,
    /// Redirects followed at most.
    pub max_redirects: u32,
    /// A checkpoint after so much time…
    pub checkpoint_interval: Duration,
    /// …or so many bytes, whichever comes first.
    pub checkpoint_bytes: u64,
    /// Less than [`Job::stall_bytes`] in this time is a stall.
    pub stall_time: Duration,
    /// See [`Job::stall_time`].
    pub stall_bytes: u64,
    /// No more bytes a second than this, over the whole attempt.
    pub bandwidth: Option<u64>,
    /// The bytes are checked, and given to no installer.
    pub dry_run: bool,
}

impl Job {
    /// The size that the file must have, if that is known.
    pub fn announced(&self) -> Option<u64> {
        match self.is_installed_as_it_comes() {
            true => self.size,
            false => self.file_size,
        }
    }

    /// Whether the file is what is installed.
    pub fn is_installed_as_it_comes(&self) -> bool {
        self.compression.is_none() && self.encryption.is_none()
    }
}

/// How an image's file is packed: in one frame, or in several one after the other, between which a download
/// can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Compression {
    /// Zstandard (RFC 8878), with a window of at most 8 MiB.
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

impl Compression {
    /// In a word, as in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// How an image's file is encrypted for its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Encryption {
    /// age, version 1, for recipients of the kind X25519; in its binary form.
    Age,
}

impl Encryption {
    /// In a word, as in a manifest.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
        }
    }
}

/// What is needed to go on with a file that is encrypted, without its header. It is no secret: the file's key is in it as in
/// the header, encrypted for this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Bytes before the first chunk.
    pub header: u64,
    /// The file's key for this device, and the payload's nonce, in Base64.
    pub key: String,
}

/// What is needed to go on with a download: saved in the journal, never covering more than the
/// installer's [`sync`](crate::install::Installer::sync) answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The content it belongs to: [`Job::content`].
    pub content: String,
    /// The server's strong validator (an `ETag` that is not weak, else nothing).
    pub validator: Option<String>,
    /// The whole file's size as the server said it, in bytes.
    pub total: Option<u64>,
    /// Bytes of the image that are durable; the next byte to fetch.
    pub offset: u64,
    /// The next byte of the packed file, where it is packed: as it comes, or as it is once decrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packed: Option<u64>,
    /// Where the file is encrypted: what is needed to decrypt the rest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
    /// [`Checks::save`](super::Checks::save): the state of every check after `offset` bytes.
    pub checks: String,
}

/// What a running attempt says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The bytes of the job's checkpoint are about to be given up, for it starts from zero: the
    /// checkpoint must be durably gone when this has been told.
    StartingOver,
    /// The server has answered and bytes begin to come.
    Started {
        /// Where the body really starts: the checkpoint's offset, or 0.
        offset: u64,
        /// The whole image's size, if the server said it.
        total: Option<u64>,
    },
    /// So many bytes of the image are there (not yet durable). At most ten a second, and one as the
    /// attempt ends.
    Received(u64),
    /// Bytes were made durable.
    Durable(Checkpoint),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Every byte is there, written and synced.
    Complete {
        /// The image's size in bytes.
        bytes: u64,
        /// What the checks came to.
        digests: Digests,
    },
    /// The manifest that was to be fetched is there.
    Manifest(String),
    /// It failed. What came before is covered by the last [`Progress::Durable`], if any.
    Failed(Failure, Retry),
    /// It was told to stop. What came before is covered by the last [`Progress::Durable`].
    Stopped,
}

/// Whether a failed attempt may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// No: another attempt would end the same way.
    Never,
    /// Yes, from the last checkpoint; not before the time the server asked for, if it did.
    Resume(Option<Duration>),
    /// Yes, but from zero: the checkpoint does not fit what the server has now.
    FromZero,
}
