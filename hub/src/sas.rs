//! Shared access signatures: keys, tokens, and what a policy allows.
//!
//! "Control access to IoT Hub by using shared access signatures": a token is
//! `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={policy}]`, the signature the HMAC-SHA256 of
//! `{resource}\n{expiry}` with the resource *as it stands in the token*: clients escape it differently, and order the
//! fields differently.

use crate::error::Error;
use base64ct::{Base64, Encoding as _};
use ring::{hmac, rand::SecureRandom};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A symmetric key, in base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key(pub(crate) String);

impl Key {
    /// A new one of 256 bits.
    pub(crate) fn random() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::System("the system gives no random numbers".into()))?;
        Ok(Self(Base64::encode_string(&bytes)))
    }

    /// Whether it is one that Azure takes: base64 of 16 to 64 bytes.
    pub(crate) fn is_valid(&self) -> bool {
        Base64::decode_vec(&self.0).is_ok_and(|bytes| (16..=64).contains(&bytes.len()))
    }
}

/// The two keys of a device or a policy, either of which may sign.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Keys {
    pub(crate) primary_key: Key,
    pub(crate) secondary_key: Key,
}

impl Keys {
    pub(crate) fn random() -> Result<Self, Error> {
        Ok(Self {
            primary_key: Key::random()?,
            secondary_key: Key::random()?,
        })
    }
}

/// What a policy's token may do. Several at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights(u8);

impl Rights {
    pub(crate) const REGISTRY_READ: Self = Self(1);
    pub(crate) const REGISTRY_WRITE: Self = Self(3);
    pub(crate) const SERVICE_CONNECT: Self = Self(4);
    pub(crate) const DEVICE_CONNECT: Self = Self(8);

    pub(crate) fn include(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

/// The shared access policies every hub starts with, and their rights.
pub(crate) const POLICIES: [(&str, Rights); 5] = [
    ("iothubowner", Rights(15)),
    ("service", Rights::SERVICE_CONNECT),
    ("device", Rights::DEVICE_CONNECT),
    ("registryRead", Rights::REGISTRY_READ),
    ("registryReadWrite", Rights::REGISTRY_WRITE),
];

/// A token, taken apart. Nothing in it is believed before [`Token::is_signed_by`].
pub(crate) struct Token<'a> {
    /// The resource as it stands in the token.
    raw_resource: &'a str,
    raw_expiry: &'a str,
    signature: Vec<u8>,
    /// When it ends, in seconds since 1970.
    pub(crate) expiry: u64,
    /// The policy's name; a device's own key has none.
    pub(crate) policy: Option<Cow<'a, str>>,
}

impl<'a> Token<'a> {
    /// Takes a token apart. The reason of a refusal holds nothing of the token.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let fields = text
            .strip_prefix("SharedAccessSignature ")
            .ok_or("the password is no SharedAccessSignature")?;
        let (mut resource, mut signature, mut expiry, mut policy) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field
                .split_once('=')
                .ok_or("a field of the token has no value")?;
            let slot = match name {
                "sr" => &mut resource,
                "sig" => &mut signature,
                "se" => &mut expiry,
                "skn" => &mut policy,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err("a field of the token is there twice");
            }
        }
        let raw_expiry = expiry.ok_or("the token has no expiry (se)")?;
        let signature = decode(signature.ok_or("the token has no signature (sig)")?)
            .and_then(|signature| Base64::decode_vec(&signature).ok())
            .ok_or("the token's signature (sig) is no base64")?;
        Ok(Self {
            raw_resource: resource.ok_or("the token has no resource (sr)")?,
            raw_expiry,
            signature,
            expiry: raw_expiry
                .parse()
                .map_err(|_| "the token's expiry (se) is no number")?,
            policy: match policy {
                None | Some("") => None,
                Some(policy) => Some(decode(policy).ok_or("the token's policy (skn) is not text")?),
            },
        })
    }

    /// The resource, decoded.
    pub(crate) fn resource(&self) -> Option<Cow<'a, str>> {
        decode(self.raw_resource)
    }

    /// Whether one of the keys made the signature. In constant time for each key.
    pub(crate) fn is_signed_by(&self, keys: &Keys) -> bool {
        let message = format!("{}\n{}", self.raw_resource, self.raw_expiry);
        [&keys.primary_key, &keys.secondary_key]
            .into_iter()
            .any(|key| {
                Base64::decode_vec(&key.0).is_ok_and(|key| {
                    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
                    hmac::verify(&key, message.as_bytes(), &self.signature).is_ok()
                })
            })
    }

    /// Whether its time is over.
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        self.expiry <= now
    }
}

/// Undoes percent encoding; `None` when the bytes are not UTF-8. `+` is left alone: no resource holds a space.
pub(crate) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = |&digit: &u8| char::from(digit).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let value = hex(high)? * 16 + hex(low)?;
                bytes.push(u8::try_from(value).ok()?);
                rest = tail;
            }
            (b'%', _) => return None,
            (byte, tail) => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Whether `prefix` is `resource` or the beginning of it up to a `/`. Host names compare without case.
pub(crate) fn is_segment_prefix(prefix: &str, resource: &str) -> bool {
    let mut wanted = resource.split('/');
    prefix
        .trim_end_matches('/')
        .split('/')
        .enumerate()
        .all(|(at, segment)| {
            wanted.next().is_some_and(|wanted| match at {
                0 => wanted.eq_ignore_ascii_case(segment),
                _ => wanted == segment,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys {
            primary_key: Key(Base64::encode_string(&[1; 32])),
            secondary_key: Key(Base64::encode_string(&[2; 32])),
        }
    }

    fn sign(key: &Key, resource: &str, expiry: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &Base64::decode_vec(&key.0).unwrap());
        let signature = Base64::encode_string(
            hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes()).as_ref(),
        );
        signature
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D")
    }

    #[test]
    fn a_token_is_checked_over_its_raw_text_in_any_order() {
        let keys = keys();
        for resource in ["hub%2Fdevices%2Fd", "hub%2fdevices%2fd", "hub/devices/d"] {
            for key in [&keys.primary_key, &keys.secondary_key] {
                let signature = sign(key, resource, "2000000000");
                for text in [
                    format!("SharedAccessSignature sr={resource}&sig={signature}&se=2000000000"),
                    format!(
                        "SharedAccessSignature se=2000000000&sig={signature}&sr={resource}&skn="
                    ),
                ] {
                    let token = Token::parse(&text).unwrap();
                    assert!(token.is_signed_by(&keys));
                    assert_eq!(token.resource().unwrap(), "hub/devices/d");
                    assert!(token.policy.is_none());
                    assert!(!token.is_expired(1_999_999_999) && token.is_expired(2_000_000_000));
                }
            }
        }
    }

    #[test]
    fn what_was_changed_is_not_signed() {
        let keys = keys();
        let signature = sign(&keys.primary_key, "hub", "10");
        for text in [
            format!("SharedAccessSignature sr=hub2&sig={signature}&se=10"),
            format!("SharedAccessSignature sr=hub&sig={signature}&se=11"),
            format!(
                "SharedAccessSignature sr=hub&sig={}&se=10",
                sign(&Key(Base64::encode_string(&[3; 32])), "hub", "10")
            ),
        ] {
            assert!(!Token::parse(&text).unwrap().is_signed_by(&keys));
        }
        for text in [
            "",
            "Bearer x",
            "SharedAccessSignature ",
            "SharedAccessSignature sr=a&sig=b&se=1",
            "SharedAccessSignature sr=a&se=1",
            "SharedAccessSignature sr=a&sig=AA%3D%3D&se=x",
            "SharedAccessSignature sr=a&sr=b&sig=AA%3D%3D&se=1",
            "SharedAccessSignature sr=a&sig=%&se=1",
            "SharedAccessSignature sr=a&sig=%C3%28&se=1",
        ] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert!(is_segment_prefix("HUB", "hub/devices/d"));
        assert!(is_segment_prefix("hub/devices/", "hub/devices/d"));
        assert!(is_segment_prefix("hub/devices/d", "hub/devices/d"));
        assert!(!is_segment_prefix("hub/devices/d", "hub/devices/d2"));
        assert!(!is_segment_prefix("hub/devices/D", "hub/devices/d"));
        assert!(!is_segment_prefix("hub/devices/d/x", "hub/devices/d"));
        assert!(!is_segment_prefix("", "hub"));
    }
}
