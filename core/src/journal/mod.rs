//! Remembers: one record, kept on disk through any crash and power cut.
//!
//! A directory holds two copies of the record, `journal.a` and `journal.b`, written in turn, each
//! with a sequence number and a checksum. The copy that is being written is always the older one: if
//! it is torn, its checksum fails and the other one counts.
//!
//! **A copy is overwritten where it lies**, by one write and one `fdatasync`. The other way, writing a
//! new file and renaming it, needs a second sync for the directory, and on most file systems new
//! blocks and a commit of the file system's own journal; the two copies make it unnecessary. Only the
//! very first write of each copy does it that way. So a copy that exists has once been whole: one that
//! cannot be read was damaged, and is no leftover of a first start that was cut short.
//!
//! What the record holds is not known here: it is bytes, at most 1 MiB of them.

pub mod copy;
#[cfg(feature = "std")]
mod files;
#[cfg(feature = "std")]
mod lock;

#[cfg(feature = "std")]
pub use files::{Journal, Loaded};
