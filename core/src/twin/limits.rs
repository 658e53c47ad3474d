//! What Azure accepts in a twin's sections.
//!
//! The figures are those of "Understand and use device twins in IoT Hub", sections *Device twin size* and
//! *Tags and properties format*. The hub enforces them; a device that checks first gets a better message.

use alloc::{format, string::String};
use core::fmt;
use serde_json::{Map, Value};

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY: usize = 1024;
/// The longest string value, in bytes of UTF-8.
pub const MAX_STRING: usize = 4096;
/// The smallest integer.
pub const MIN_INTEGER: i64 = -4_503_599_627_370_496;
/// The largest integer.
pub const MAX_INTEGER: i64 = 4_503_599_627_370_495;
/// How many levels a value may nest below its section. Arrays count as a level, which the page leaves open.
pub const MAX_DEPTH: usize = 10;

/// A part of a twin that has its own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Written by the back end, read by the device.
    Desired,
    /// Written by the device.
    Reported,
    /// Written and read by the back end only.
    Tags,
}

impl Section {
    /// The largest [`size`] of the section.
    pub const fn max_size(self) -> usize {
        match self {
            Self::Desired | Self::Reported => 32 * 1024,
            Self::Tags => 8 * 1024,
        }
    }

    /// The section's name as Azure's messages write it.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Desired => "Properties.Desired",
            Self::Reported => "Properties.Reported",
            Self::Tags => "Tags",
        }
    }
}

/// Which limit was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The section itself must be a JSON object.
    Object,
    /// A key is empty or longer than [`MAX_KEY`].
    KeyLength,
    /// A key holds a character that is not allowed: a control character, `.`, `$`, `#` or a space.
    KeyCharacter(char),
    /// A string is longer than [`MAX_STRING`].
    StringLength,
    /// An integer is below [`MIN_INTEGER`] or above [`MAX_INTEGER`].
    Integer,
    /// The value nests deeper than [`MAX_DEPTH`].
    Depth,
    /// An array holds `null`.
    NullInArray,
    /// The section is larger than its [`Section::max_size`].
    Size(usize),
}

/// A limit that a twin or a patch breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which limit.
    pub limit: Limit,
    /// Where: the section's path and the keys, joined by dots; at most some hundred bytes.
    pub path: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ", self.path)?;
        match self.limit {
            Limit::Object => f.write_str("should be a JSON object."),
            Limit::KeyLength => {
                write!(f, "has a key that is empty or longer than {MAX_KEY} bytes.")
            }
            Limit::KeyCharacter(found) => write!(
                f,
                "has a key with the character {found:?}; control characters, '.', '$', '#' and spaces are not allowed."
            ),
            Limit::StringLength => write!(f, "should be a string of at most {MAX_STRING} bytes."),
            Limit::Integer => write!(
                f,
                "should be an integer between {MIN_INTEGER} and {MAX_INTEGER}."
            ),
            Limit::Depth => write!(f, "should not nest deeper than {MAX_DEPTH} levels."),
            Limit::NullInArray => f.write_str("should not hold null in an array."),
            // The wording of the real hub.
            Limit::Size(max) => write!(f, "size should be less than {max} bytes."),
        }
    }
}

impl core::error::Error for Violation {}

/// Checks all that can be said of a patch (or of a whole section) without the document it is merged into.
///
/// # Errors
/// The first limit that is broken.
pub fn check_patch(section: Section, patch: &Value) -> Result<(), Violation> {
    match patch {
        Value::Object(members) => check_members(section.path(), members, 0),
        _ => Err(violation(section.path(), Limit::Object)),
    }
}

/// Checks the [`size`] of a section after a patch was merged into it.
///
/// # Errors
/// The section is larger than its [`Section::max_size`].
pub fn check_size(section: Section, document: &Value) -> Result<(), Violation> {
    if size(document) > section.max_size() {
        return Err(violation(section.path(), Limit::Size(section.max_size())));
    }
    Ok(())
}

/// The size of a section as Azure counts it: keys and strings by their UTF-8 bytes, a number 8, a Boolean 4.
pub fn size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| key.len() + size(value))
            .sum(),
    }
}

fn check_members(path: &str, members: &Map<String, Value>, depth: usize) -> Result<(), Violation> {
    for (key, value) in members {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(violation(path, Limit::KeyLength));
        }
        let forbidden = |c: char| c.is_control() || matches!(c, '.' | '$' | '#' | ' ');
        if let Some(found) = key.chars().find(|&c| forbidden(c)) {
            return Err(violation(path, Limit::KeyCharacter(found)));
        }
        check_value(&format!("{path}.{key}"), value, depth)?;
    }
    Ok(())
}

fn check_value(path: &str, value: &Value, depth: usize) -> Result<(), Violation> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let fits = match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => (MIN_INTEGER..=MAX_INTEGER).contains(&integer),
                (None, Some(_)) => false,
                (None, None) => true,
            };
            if fits {
                Ok(())
            } else {
                Err(violation(path, Limit::Integer))
            }
        }
        Value::String(text) if text.len() > MAX_STRING => Err(violation(path, Limit::StringLength)),
        Value::String(_) => Ok(()),
        _ if depth == MAX_DEPTH => Err(violation(path, Limit::Depth)),
        Value::Object(members) => check_members(path, members, depth + 1),
        Value::Array(items) => items.iter().try_for_each(|item| match item {
            Value::Null => Err(violation(path, Limit::NullInArray)),
            item => check_value(path, item, depth + 1),
        }),
    }
}

/// The path is cut: keys may be a kilobyte each, and the message goes over the wire and into logs.
fn violation(path: &str, limit: Limit) -> Violation {
    Violation {
        limit,
        path: path.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use serde_json::json;

    fn limit(patch: &Value) -> Option<Limit> {
        check_patch(Section::Reported, patch)
            .err()
            .map(|violation| violation.limit)
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!({"property": "value"}), |inner, _| json!({"o": inner}))
    }

    #[test]
    fn each_limit_at_its_edge() {
        assert_eq!(
            limit(&json!({"a": {"b": null}, "c": [1, "x", {"d": true}]})),
            None
        );
        assert_eq!(limit(&json!([])), Some(Limit::Object));
        assert_eq!(limit(&json!({"": 1})), Some(Limit::KeyLength));
        assert_eq!(limit(&json!({"k".repeat(1024): 1})), None);
        assert_eq!(limit(&json!({"k".repeat(1025): 1})), Some(Limit::KeyLength));
        for character in ['.', '$', '#', ' ', '\u{1}', '\u{7f}', '\u{85}'] {
            assert_eq!(
                limit(&json!({"a": {format!("b{character}"): 1}})),
                Some(Limit::KeyCharacter(character))
            );
        }
        assert_eq!(limit(&json!({"a": "x".repeat(4096)})), None);
        assert_eq!(
            limit(&json!({"a": "x".repeat(4097)})),
            Some(Limit::StringLength)
        );
        assert_eq!(limit(&json!({"a": 4_503_599_627_370_495_i64})), None);
        assert_eq!(
            limit(&json!({"a": 4_503_599_627_370_496_i64})),
            Some(Limit::Integer)
        );
        assert_eq!(limit(&json!({"a": -4_503_599_627_370_496_i64})), None);
        assert_eq!(
            limit(&json!({"a": -4_503_599_627_370_497_i64})),
            Some(Limit::Integer)
        );
        assert_eq!(limit(&json!({"a": u64::MAX})), Some(Limit::Integer));
        assert_eq!(limit(&json!({"a": 1.5e300})), None);
        assert_eq!(limit(&nested(10)), None);
        assert_eq!(limit(&nested(11)), Some(Limit::Depth));
        assert_eq!(limit(&json!({"a": [null]})), Some(Limit::NullInArray));
    }

    #[test]
    fn the_size_is_counted_as_azure_does_and_named_in_its_words() {
        assert_eq!(
            size(&json!({"ab": "é", "n": 1, "b": true, "o": {"x": [1, 2]}})),
            2 + 2 + 9 + 5 + 1 + 17
        );
        let full = |extra: usize| {
            let mut object: Map<String, Value> = (0..7)
                .map(|n| (n.to_string(), json!("x".repeat(4095))))
                .collect();
            object.insert("k".into(), json!("x".repeat(4095 + extra)));
            Value::Object(object)
        };
        assert_eq!(check_size(Section::Desired, &full(0)), Ok(()));
        let error = check_size(Section::Reported, &full(1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "'Properties.Reported' size should be less than 32768 bytes."
        );
        assert!(
            check_size(
                Section::Tags,
                &json!({"k": "x".repeat(4096), "l": "x".repeat(4096)})
            )
            .is_err()
        );
    }
}
