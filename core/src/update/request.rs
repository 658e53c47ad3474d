//! A request for an update, and the key that tells one from another.

use super::{Check, Compression, Encryption};
use alloc::{format, string::String, vec::Vec};
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A direct method. A hub never replays one, so after the end of its update it is a new request.
    Method,
    /// Desired properties. They are replayed on every connect, so a key that has ended is not run again.
    Desired,
    /// Somebody at the device, by a file. As a method's; and who brings the file agrees to it.
    Local,
}

/// An image in a file of this device that somebody there wants installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LocalImage {
    /// The file, as a `file:` address.
    pub uri: String,
    /// Its version, if it is known.
    pub version: Option<String>,
    /// A check value it must pass.
    pub check: Option<String>,
    /// A signed manifest; without one, where there are keys, it is beside the file.
    pub manifest: Option<String>,
}

/// Tells one request from another: the SHA-256 of its contract and all its members.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// The key of a request made under `contract` with these members: every one of them, known or
    /// not, the URI with its query.
    pub fn of(contract: &str, members: &Value) -> Self {
        let mut hash = Sha256::new();
        hash.update((contract.len() as u64).to_be_bytes());
        hash.update(contract.as_bytes());
        // Members are sorted: serde_json keeps a map in order of its keys.
        hash.update(format!("{members}").as_bytes());
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        base16ct::lower::decode_vec(text)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("a key is 64 hexadecimal digits"))
    }
}

/// A request that was accepted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Tells it from others.
    pub key: Key,
    /// Who asked.
    pub origin: Origin,
    /// The image's address, its query included: a secret may sit there.
    pub uri: String,
    /// The version asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The image's size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Checks the image must pass, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// A signed manifest, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// A signed key set, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// What the manifest says and the members above do not, once it was found to be good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
}

/// What is kept of a manifest for the time when its image has proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// When it was issued, in seconds since 1970.
    pub issued: u64,
    /// Then the lowest version that is still accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// How the image's file is packed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// How it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The size of the packed or encrypted file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_size: Option<u64>,
}

impl Request {
    /// Identifies the bytes asked for: size and checks where there are checks, else the URI without
    /// its query. Two requests with the same content can share a partial download; a renewed
    /// signature in the query does not start it over.
    pub fn content(&self) -> String {
        let mut content = String::new();
        for check in &self.checks {
            content.push_str(&format!("{check} "));
        }
        if content.is_empty() {
            let end = self.uri.find(['?', '#']).unwrap_or(self.uri.len());
            content.push_str(self.uri.get(..end).unwrap_or_default());
        }
        match self.size {
            Some(size) => format!("{size} {content}"),
            None => content,
        }
    }

    /// Whether a SHA-256 of the request judges the image.
    pub fn has_hash(&self) -> bool {
        self.sha256().is_some()
    }

    /// The SHA-256 the request names.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.checks.iter().find_map(|check| match check {
            Check::Sha256(hash) => Some(*hash),
            _ => None,
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("key", &self.key)
            .field("origin", &self.origin)
            .field("uri", &super::redact(&self.uri))
            .field("version", &self.version)
            .field("size", &self.size)
            .field("checks", &self.checks)
            .finish_non_exhaustive()
    }
}
