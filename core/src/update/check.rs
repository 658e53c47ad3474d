//! The checks an image must pass, computed in one pass while its bytes stream by.

mod crc16;
mod crc32;
mod running;

pub use running::{Checks, Digests};

use super::{Code, Failure};
use alloc::{borrow::Cow, format, string::String};
use base64ct::{Base64, Encoding as _};
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One check value of a request.
///
/// Shown, and kept in a record, as its kind and lower-case hex: `crc16:31c3`, `crc32:cbf43926`,
/// `sha256:…`. [`Check::parse`] reads that form whatever the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// CRC-16/XMODEM: polynomial 0x1021, initial value 0, not reflected, no final xor.
    Crc16(u16),
    /// CRC-32/ISO-HDLC, as zip and Ethernet have it.
    Crc32(u32),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// The value in Microsoft's sample back ends, which is the check of no image.
const PLACEHOLDER: &str = "123456abcde";

impl Check {
    /// Reads a check value.
    ///
    /// A value with the kind before it (`crc16:`, `crc32:`, `sha256:`) is of that kind. A bare one is
    /// CRC-16 if it has 1 to 4 hex digits, CRC-32 if it has exactly 8, and SHA-256 if it has 64, or is
    /// 44 characters of Base64. `0x` may stand before hex digits. With `devkit` a bare value is
    /// CRC-16 however many leading zeros it has: the IoT DevKit reads it with `strtoul`.
    ///
    /// # Errors
    /// [`Code::InvalidCheck`], naming the value: it is none of these. The placeholder in Microsoft's
    /// sample programs is one of them, and is said to be it.
    pub fn parse(text: &str, devkit: bool) -> Result<Self, Failure> {
        let value = text.trim();
        let (kind, bare) = match value.split_once(':') {
            Some((kind, bare)) => (Some(kind), bare.trim_start()),
            None => (None, value),
        };
        let hex = bare
            .strip_prefix("0x")
            .or_else(|| bare.strip_prefix("0X"))
            .unwrap_or(bare);
        let parsed = match (kind, hex.len()) {
            (Some(kind), _) if kind.eq_ignore_ascii_case("crc16") => crc16(hex),
            (Some(kind), _) if kind.eq_ignore_ascii_case("crc32") => crc32(hex),
            (Some(kind), _) if kind.eq_ignore_ascii_case("sha256") => sha256(hex, bare),
            (Some(_), _) => None,
            (None, _) if devkit => crc16(hex),
            (None, 1..=4) => crc16(hex),
            (None, 8) => crc32(hex),
            (None, _) => sha256(hex, bare),
        };
        parsed.ok_or_else(|| refuse(value, devkit))
    }

    /// Whether an image with these digests passes.
    pub fn matches(&self, digests: &Digests) -> bool {
        match self {
            Self::Crc16(value) => *value == digests.crc16,
            Self::Crc32(value) => *value == digests.crc32,
            Self::Sha256(value) => *value == digests.sha256,
        }
    }
}

fn number(hex: &str) -> Option<u64> {
    // from_str_radix would take a sign, too.
    let digits = hex.trim_start_matches('0');
    match (digits, hex.is_empty()) {
        ("", empty) => (!empty).then_some(0),
        _ if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        _ => None,
    }
}

fn crc16(hex: &str) -> Option<Check> {
    u16::try_from(number(hex)?).ok().map(Check::Crc16)
}

fn crc32(hex: &str) -> Option<Check> {
    u32::try_from(number(hex)?).ok().map(Check::Crc32)
}

fn sha256(hex: &str, bare: &str) -> Option<Check> {
    let bytes = match (hex.len(), bare.len()) {
        (64, _) => base16ct::mixed::decode_vec(hex).ok(),
        (_, 44) => Base64::decode_vec(bare).ok(),
        _ => return None,
    };
    bytes?.try_into().ok().map(Check::Sha256)
}

fn refuse(value: &str, devkit: bool) -> Failure {
    const SHOWN: usize = 80;
    let shown: Cow<'_, str> = match value.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", value.get(..end).unwrap_or_default()).into(),
        None => value.into(),
    };
    let bare = if devkit {
        "a CRC-16/XMODEM in hex digits that fits 16 bits"
    } else {
        "1 to 4 hex digits (CRC-16/XMODEM), 8 (CRC-32), 64 (SHA-256) or 44 characters of Base64 (SHA-256)"
    };
    let why = if value.eq_ignore_ascii_case(PLACEHOLDER) {
        "is the placeholder of Microsoft's sample programs, not the check of an image"
    } else {
        "is no check value"
    };
    Failure::new(
        Code::InvalidCheck,
        format!(
            "\"{shown}\" {why}: give {bare}, or name its kind: crc16:, crc32: or sha256: before it"
        ),
    )
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc16(value) => write!(f, "crc16:{value:04x}"),
            Self::Crc32(value) => write!(f, "crc32:{value:08x}"),
            Self::Sha256(value) => write!(f, "sha256:{}", base16ct::lower::encode_string(value)),
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Check {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?, false).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const SHA: &str = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
    const SHA_BASE64: &str = "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=";

    fn parse(text: &str) -> Check {
        Check::parse(text, false).unwrap()
    }

    #[test]
    fn a_bare_value_is_told_by_its_length() {
        assert_eq!(parse("31c3"), Check::Crc16(0x31c3));
        assert_eq!(parse("0x31C3"), Check::Crc16(0x31c3));
        assert_eq!(parse(" 7 "), Check::Crc16(7));
        assert_eq!(parse("0"), Check::Crc16(0));
        assert_eq!(parse("cbf43926"), Check::Crc32(0xcbf4_3926));
        assert_eq!(parse("0x00000026"), Check::Crc32(0x26));
        let sha = parse(SHA);
        assert_eq!(parse(&SHA.to_uppercase()), sha);
        assert_eq!(parse(&format!("0x{SHA}")), sha);
        assert_eq!(parse(SHA_BASE64), sha);
        assert!(matches!(sha, Check::Sha256(_)));
    }

    #[test]
    fn a_named_kind_is_not_guessed() {
        assert_eq!(parse("crc16:31c3"), Check::Crc16(0x31c3));
        assert_eq!(parse("CRC16: 0x0000031c3"), Check::Crc16(0x31c3));
        assert_eq!(parse("crc32:26"), Check::Crc32(0x26));
        assert_eq!(parse(&format!("sha256:{SHA}")), parse(SHA));
        assert_eq!(parse(&format!("sha256:{SHA_BASE64}")), parse(SHA));
        assert_eq!(
            Check::parse("crc32:cbf43926", true).unwrap(),
            parse("cbf43926")
        );
    }

    #[test]
    fn a_bare_value_of_the_devkit_is_crc16() {
        for text in ["31c3", "000031c3", "0x31c3", "0x00000000000000000031c3"] {
            assert_eq!(
                Check::parse(text, true).unwrap(),
                Check::Crc16(0x31c3),
                "{text}"
            );
        }
        for text in ["131c3", SHA, "xyz", "0x"] {
            assert_eq!(
                Check::parse(text, true).unwrap_err().code,
                Code::InvalidCheck,
                "{text}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused_and_named() {
        let bad = [
            "",
            "0x",
            "12345",
            "1234567",
            "123456789",
            "xyz!",
            "+1c3",
            "-1",
            "31 c3",
            "crc16:",
            "crc16:10000",
            "crc32:100000000",
            "md5:31c3",
            "sha256:31c3",
            "crc16:+1",
            "0x0x31",
            &SHA[1..],
            &format!("{SHA}0"),
            &SHA_BASE64[1..],
            "ääää",
            "1ä",
        ];
        for text in bad {
            let failure = Check::parse(text, false).unwrap_err();
            assert_eq!(failure.code, Code::InvalidCheck, "{text}");
            assert!(
                failure.message.starts_with(&format!("\"{text}\"")),
                "{failure}"
            );
        }
        let long = "ä".repeat(100_000);
        assert!(
            Check::parse(&long, false)
                .unwrap_err()
                .message
                .contains("...\" is no check value")
        );
    }

    #[test]
    fn the_placeholder_is_said_to_be_one() {
        for devkit in [false, true] {
            let failure = Check::parse(PLACEHOLDER, devkit).unwrap_err();
            assert!(
                failure
                    .message
                    .contains("\"123456abcde\" is the placeholder"),
                "{failure}"
            );
        }
    }

    #[test]
    fn shown_as_it_is_read() {
        for text in ["crc16:00c3", "crc32:00f43926", &format!("sha256:{SHA}")] {
            assert_eq!(parse(text).to_string(), text);
            let json = serde_json::to_string(&parse(text)).unwrap();
            assert_eq!(serde_json::from_str::<Check>(&json).unwrap(), parse(text));
        }
    }
}
