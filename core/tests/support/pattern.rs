//! Placeholders in the scenarios' values, and whether a value is what a scenario expects.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Stands for the secrets in URIs: no report, answer, event or error may show it.
pub const SECRET: &str = "S3CR3T";

/// The image of so many bytes: the same in every language.
pub fn image(size: usize, seed: u64) -> Vec<u8> {
    // SplitMix64, the low byte of each number.
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// What the placeholders stand for.
#[derive(Debug, Default, Clone)]
pub struct Names(BTreeMap<String, Value>);

impl Names {
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// `{size:NAME}`, `{crc16:NAME}`, `{crc32:NAME}`, `{sha256:NAME}`.
    pub fn add_image(&mut self, name: &str, image: &[u8]) {
        let crc16 = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(image);
        self.set(format!("size:{name}"), image.len());
        self.set(format!("crc16:{name}"), format!("{crc16:x}"));
        let crc32 = crc32fast::hash(image);
        self.set(format!("crc32:{name}"), format!("{crc32:08x}"));
        let sha256 = base16ct::lower::encode_string(&Sha256::digest(image));
        self.set(format!("sha256:{name}"), sha256);
    }

    /// Puts the values in. A text that is one placeholder and nothing else becomes its value as it is.
    pub fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let whole = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
                if let Some(value) = whole.and_then(|name| self.0.get(name)) {
                    return value.clone();
                }
                let mut filled = text.clone();
                for (name, value) in &self.0 {
                    let shown = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    filled = filled.replace(&format!("{{{name}}}"), &shown);
                }
                filled.into()
            }
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, value)| (name.clone(), self.fill(value)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }
}

/// Whether `found` is what is expected: of an object the members named (`null`: there is none), of all
/// else everything. The error names the path.
pub fn expect(expected: &Value, found: &Value, path: &str) -> Result<(), String> {
    match (expected, found) {
        (Value::Object(members), _) if !members.is_empty() || found.is_object() => {
            for (name, value) in members {
                let member = found.get(name).unwrap_or(&Value::Null);
                expect(value, member, &format!("{path}.{name}"))?;
            }
            Ok(())
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                expect(item, other, &format!("{path}[{index}]"))?;
            }
            Ok(())
        }
        (Value::String(pattern), Value::String(text)) if text_matches(pattern, text) => Ok(()),
        _ if expected == found => Ok(()),
        _ => Err(format!("{path} is {found}, not {expected}")),
    }
}

/// `{time}` and `{ticks}` are a time as the twin has it, `{any}` any text.
fn text_matches(pattern: &str, text: &str) -> bool {
    if pattern == "{time}" || pattern == "{ticks}" {
        let shape: String = text
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        let digits = if pattern == "{time}" {
            "000"
        } else {
            "0000000"
        };
        return shape == format!("0000-00-00T00:00:00.{digits}Z");
    }
    let mut rest = text;
    for (index, piece) in pattern.split("{any}").enumerate() {
        match rest.find(piece) {
            Some(0) => rest = &rest[piece.len()..],
            Some(at) if index > 0 => rest = &rest[at + piece.len()..],
            _ => return false,
        }
    }
    rest.is_empty() || pattern.ends_with("{any}")
}

#[test]
fn texts() {
    for (pattern, text, fits) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("a{any}", "abcd", true),
        ("{any}d", "abcd", true),
        ("{any}c", "abcd", false),
        ("a{any}c{any}", "abcd", true),
        ("b{any}", "abcd", false),
        ("{time}", "2026-11-20T22:00:00.123Z", true),
        ("{time}", "2026-11-20T22:00:00Z", false),
        ("{time}", "2026-11-20T22:00:00.1234567Z", false),
        ("{ticks}", "2026-11-20T22:00:00.1234567Z", true),
    ] {
        assert_eq!(text_matches(pattern, text), fits, "{pattern} {text}");
    }
}
