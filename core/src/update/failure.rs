//! The one table of failure codes: source of the twin's `error.code`, of the C numbers, Python's
//! classes and Node's `code`.

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why something failed. Names and numbers are stable: a retired one is never used again.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $doc])* $name = $number,)* }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The code as the twin shows it, such as `http-status`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The number the C interface gives it.
            pub const fn number(self) -> u16 {
                self as u16
            }
        }
    };
}

codes! {
    /// The request is not of the form its contract asks for.
    InvalidRequest = 100, "invalid-request";
    /// The URI cannot be parsed, is relative, or has a scheme that is not known.
    InvalidUri = 101, "invalid-uri";
    /// The URI is http, and the policy wants https.
    InsecureUri = 102, "insecure-uri";
    /// The check value is of no known kind.
    InvalidCheck = 103, "invalid-check";
    /// The contract or the policy requires a check, and the request has none.
    CheckRequired = 104, "check-required";
    /// The version asked for is not one the contract or the policy lets in.
    VersionRefused = 105, "version-refused";
    /// An update runs already.
    Busy = 106, "busy";

    /// Keys are configured, and nothing signed vouches for the image.
    ManifestRequired = 150, "manifest-required";
    /// A signed document is not of the form it must have, or does not fit the request.
    ManifestInvalid = 151, "manifest-invalid";
    /// A signed document is not signed by as many trusted keys as must sign.
    Untrusted = 152, "untrusted";
    /// A manifest has expired, or was issued at a time to come.
    Expired = 153, "expired";
    /// The image is for another model, manufacturer or hardware revision.
    Incompatible = 154, "incompatible";
    /// A key, or a set of keys, cannot be used.
    InvalidKey = 155, "invalid-key";

    /// The server answered with a status that ends the download.
    HttpStatus = 200, "http-status";
    /// The server's answer breaks HTTP or what was asked of it (an encoding, a wrong range).
    HttpProtocol = 201, "http-protocol";
    /// Too many redirects, or one that leads where it must not.
    Redirect = 202, "redirect";
    /// The connection could not be made, or broke.
    Network = 203, "network";
    /// TLS failed: an unknown certificate authority, a wrong host name, an expired certificate.
    Tls = 204, "tls";
    /// Too few bytes came for too long.
    Stalled = 205, "stalled";
    /// The image is larger than announced, or than the policy allows.
    TooLarge = 206, "too-large";

    /// The image's size is not the one announced.
    SizeMismatch = 300, "size-mismatch";
    /// The image's CRC-16 or CRC-32 is not the one announced.
    CrcMismatch = 301, "crc-mismatch";
    /// The image's SHA-256 is not the one announced.
    HashMismatch = 302, "hash-mismatch";
    /// The image cannot be decrypted: it is encrypted for others, was altered, or this device has no key.
    DecryptionFailed = 303, "decryption-failed";

    /// There is not enough free space for the image.
    NoSpace = 400, "no-space";
    /// A file or directory may not be read or written.
    NoPermission = 401, "no-permission";
    /// Reading or writing the image failed in another way.
    Storage = 402, "storage";
    /// The installer could not finish or activate the image.
    InstallFailed = 403, "install-failed";
    /// The new version did not confirm itself in time, or in the starts it is given.
    NotConfirmed = 404, "not-confirmed";
    /// The boot loader went back to the old image.
    BootFailed = 405, "boot-failed";
    /// The old image could not be brought back.
    RollbackFailed = 406, "rollback-failed";

    /// The update was cancelled.
    Cancelled = 500, "cancelled";
    /// A newer request took over.
    Superseded = 501, "superseded";
    /// The policy wants a dry run: the image is good, and is not installed.
    DryRun = 502, "dry-run";

    /// The state directory or the journal in it cannot be used.
    State = 600, "state";
    /// Another process holds the state directory.
    Locked = 601, "locked";
    /// The configuration is wrong, or what it names cannot be read.
    InvalidConfig = 602, "invalid-config";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    /// A code of a later version is read as [`Code::State`]: a record must stay readable after a
    /// rollback to older firmware.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Code::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == text)
            .unwrap_or(Code::State))
    }
}

/// A failure: a [`Code`] for programs and a message for people.
///
/// The message is one line of at most [`Failure::MAX_MESSAGE`] bytes; whoever makes one keeps
/// secrets out of it (a URI is shown without user name and query, see
/// [`redact`](crate::update::redact)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub code: Code,
    /// What failed, with which value, and what to do about it.
    pub message: String,
}

impl Failure {
    /// The longest message, in bytes: a twin's string may not be longer than 4 KB, and a status
    /// line is read by people.
    pub const MAX_MESSAGE: usize = 512;

    /// Makes a failure; line breaks and control characters become spaces, what is too long is cut.
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        let mut line = String::new();
        for c in alloc::format!("{message}").chars() {
            let c = if c.is_control() { ' ' } else { c };
            if line.len() + c.len_utf8() > Self::MAX_MESSAGE {
                break;
            }
            line.push(c);
        }
        Self {
            code,
            message: line,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl core::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_sorted() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number());
            assert_ne!(pair[0].as_str(), pair[1].as_str());
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        let failure = Failure::new(Code::Storage, "a\nb\u{7}".repeat(400));
        assert!(failure.message.len() <= Failure::MAX_MESSAGE);
        assert!(failure.message.starts_with("a b a b"));
    }

    #[test]
    fn an_unknown_code_is_still_read() {
        let failure: Failure =
            serde_json::from_str(r#"{"code":"of-the-future","message":"m"}"#).unwrap();
        assert_eq!(failure.code, Code::State);
    }
}
