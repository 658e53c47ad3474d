//! A manifest: what its signers say of an image.

use super::{Identity, MAX_CLOCK_ERROR, expired, invalid};
use crate::{
    json,
    update::{Code, Compression, Encryption, Failure, version},
};
use alloc::{format, string::String, vec::Vec};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use time::OffsetDateTime;

/// The longest version, in bytes.
const MAX_VERSION: usize = 64;

/// What the signers say of an image. `docs/signing.md` describes it for those who sign.
///
/// A member that this version does not know is refused, for it may say that the image is not for this
/// device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Manifest {
    /// The image's version.
    pub version: String,
    /// The size in bytes of what is installed.
    pub size: u64,
    /// The SHA-256 of what is installed.
    #[serde(with = "hex")]
    pub sha256: [u8; 32],
    /// Which devices it is for; without it, all that trust its signers.
    #[serde(default, skip_serializing_if = "Compatibility::is_empty")]
    pub compatibility: Compatibility,
    /// When it was issued, in seconds since 1970 (RFC 7519, section 4.1.6).
    #[serde(rename = "iat")]
    pub issued: u64,
    /// From when on it is no longer accepted, in seconds since 1970 (RFC 7519, section 4.1.4).
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Once this image has been confirmed, no version lower than this is accepted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<String>,
    /// How the file is compressed, where it is: it is unpacked while it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// How the file is encrypted, where it is: it is decrypted while it comes, before it is unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// What is known of the file where it is not what is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<Download>,
}

/// A file that is not what is installed, but is made into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Download {
    /// Its size in bytes.
    pub size: u64,
}

impl Download {
    /// A file of this size.
    pub fn new(size: u64) -> Self {
        Self { size }
    }
}

/// Which devices an image is for. A device must be among those that every list names; a list that is
/// not there, or empty, names all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Compatibility {
    /// Manufacturers.
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub manufacturer: Vec<String>,
    /// Models.
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub model: Vec<String>,
    /// Revisions of the hardware.
    #[serde(default, with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub hardware_revision: Vec<String>,
}

impl Compatibility {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Manifest {
    /// What there must be; the other members are set afterwards.
    pub fn new(version: String, size: u64, sha256: [u8; 32], issued: u64) -> Self {
        Self {
            version,
            size,
            sha256,
            compatibility: Compatibility::default(),
            issued,
            expires: None,
            floor: None,
            compression: None,
            encryption: None,
            download: None,
        }
    }

    /// Reads a payload. Whether it is to be believed was known before.
    ///
    /// # Errors
    /// [`Code::ManifestInvalid`], saying what is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, Failure> {
        let manifest: Self = json::read(json)
            .map_err(|error| invalid(format_args!("it is no manifest: {error}")))?;
        manifest.check_sense()?;
        Ok(manifest)
    }

    /// What is signed.
    ///
    /// # Errors
    /// [`Code::ManifestInvalid`]: a device would refuse it; says why.
    pub fn to_json(&self) -> Result<Vec<u8>, Failure> {
        self.check_sense()?;
        serde_json::to_vec(self).map_err(|error| invalid(format_args!("{error}")))
    }

    /// What its form alone does not say.
    fn check_sense(&self) -> Result<(), Failure> {
        let made = self.compression.is_some() || self.encryption.is_some();
        if self.download.is_some() && !made {
            return Err(invalid(
                "\"download\" is there, but nothing makes the file another one than the image",
            ));
        }
        if self.download.is_some_and(|download| download.size == 0) {
            return Err(invalid("\"download\" has a size of 0"));
        }
        check_version("version", &self.version)?;
        if self.size == 0 {
            return Err(invalid("\"size\" is 0"));
        }
        if let Some(floor) = &self.floor {
            check_version("floor", floor)?;
            if version::compare(floor, &self.version).is_gt() {
                return Err(invalid(format_args!(
                    "its floor {floor} is higher than its own version {}",
                    self.version
                )));
            }
        }
        match self.expires {
            Some(expires) if expires <= self.issued => {
                Err(invalid("\"exp\" does not come after \"iat\""))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is for this device.
    ///
    /// # Errors
    /// [`Code::Incompatible`], naming what the device is and what the manifest is for.
    pub fn check_device(&self, device: &Identity) -> Result<(), Failure> {
        let Compatibility {
            manufacturer,
            model,
            hardware_revision,
        } = &self.compatibility;
        for (name, wanted, is) in [
            ("manufacturer", manufacturer, &device.manufacturer),
            ("model", model, &device.model),
            (
                "hardware revision",
                hardware_revision,
                &device.hardware_revision,
            ),
        ] {
            if wanted.is_empty() {
                continue;
            }
            let wanted_text = || wanted.join(", ");
            match is {
                Some(is) if wanted.contains(is) => {}
                Some(is) => {
                    return Err(Failure::new(
                        Code::Incompatible,
                        format!(
                            "the image is for {name} {}; this device's is {is}",
                            wanted_text()
                        ),
                    ));
                }
                None => {
                    return Err(Failure::new(
                        Code::Incompatible,
                        format!(
                            "the image is for {name} {}; this device has not been told its own: configure it",
                            wanted_text()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether it is accepted at this time, in milliseconds since 1970, of a clock that can be believed.
    ///
    /// # Errors
    /// [`Code::Expired`]: it has expired, or is issued at a time to come.
    pub fn check_time(&self, wall: u64) -> Result<(), Failure> {
        let seconds = wall / 1000;
        if let Some(expires) = self.expires.filter(|expires| *expires <= seconds) {
            return Err(expired(format_args!(
                "the manifest of version {} expired at {}, and it is {}",
                self.version,
                time(expires),
                time(seconds)
            )));
        }
        if self.issued > seconds.saturating_add(MAX_CLOCK_ERROR) {
            return Err(expired(format_args!(
                "the manifest of version {} was issued at {}, and it is {}: one of the two clocks is wrong",
                self.version,
                time(self.issued),
                time(seconds)
            )));
        }
        Ok(())
    }

    /// Whether its version is not lower than the floor.
    ///
    /// # Errors
    /// [`Code::VersionRefused`].
    pub fn check_floor(&self, floor: &str) -> Result<(), Failure> {
        match version::compare(&self.version, floor).is_lt() {
            true => Err(Failure::new(
                Code::VersionRefused,
                format!(
                    "version {} is lower than {floor}, the lowest this device accepts",
                    self.version
                ),
            )),
            false => Ok(()),
        }
    }
}

/// A version can come to be an argument of a command, or part of a name: it holds nothing that means
/// something there.
fn check_version(member: &str, text: &str) -> Result<(), Failure> {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"._+~:-".contains(&b);
    match first && text.len() <= MAX_VERSION && text.bytes().all(rest) {
        true => Ok(()),
        false => Err(invalid(format_args!(
            "\"{member}\" must be 1 to {MAX_VERSION} letters, digits and . _ + ~ : - beginning with a letter or digit"
        ))),
    }
}

/// Seconds since 1970, for people.
fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    match time {
        Some(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        None => format!("{seconds} s after 1970"),
    }
}

/// 32 bytes as 64 hexadecimal digits.
mod hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        bytes: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base16ct::lower::encode_string(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        base16ct::mixed::decode_vec(String::deserialize(deserializer)?)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| D::Error::custom("a SHA-256 is 64 hexadecimal digits"))
    }
}

/// A text, or a list of them.
mod one_or_many {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        texts: &[String],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match texts {
            [one] => serializer.serialize_str(one),
            many => many.serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<String>, D::Error> {
        let texts = match Value::deserialize(deserializer)? {
            Value::String(one) => Some([one].into()),
            many => json::of(&many).ok(),
        };
        texts.ok_or_else(|| D::Error::custom("a text or a list of texts is needed"))
    }
}
