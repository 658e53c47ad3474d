//! JSON into types: what the documents of this crate are read by. It says where something is wrong, takes
//! objects for structs and nothing else, and no member twice.
//!
//! One deserializer for every type: each further one is generated code for all of them again.

mod members;
mod once;
mod place;
#[cfg(test)]
pub(crate) mod tests;

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::fmt;
use members::Names;
use once::Once;
use place::{At, Place};
use serde::{
    Deserialize,
    de::{self, DeserializeOwned, Error as _, Expected, Unexpected},
};
use serde_json::{Map, Value};

/// What is wrong with a document, and where.
#[derive(Debug)]
pub(crate) struct Wrong(Box<Details>);

#[derive(Debug)]
struct Details {
    path: Option<String>,
    reason: String,
}

impl Wrong {
    /// Where, such as `policy.windows[0].from`; empty is the document as a whole.
    pub(crate) fn path(&self) -> &str {
        self.0.path.as_deref().unwrap_or_default()
    }

    /// What. Where it is no JSON, with line and column.
    pub(crate) fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Adds the place, if none is known yet that is within it.
    #[cold]
    #[inline(never)]
    fn at(mut self, place: &Place<'_>) -> Self {
        self.0.path.get_or_insert_with(|| place.to_string());
        self
    }

    /// In JSON's words. serde's own would bring core's formatting of floats along, 17 kB.
    #[cold]
    #[inline(never)]
    fn unlike(what: &str, unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let unexpected = match unexpected {
            Unexpected::Unit => "null".into(),
            Unexpected::Bool(value) => format!("boolean `{value}`"),
            Unexpected::Unsigned(number) => format!("integer `{number}`"),
            Unexpected::Signed(number) => format!("integer `{number}`"),
            Unexpected::Float(number) => format!("number `{}`", Value::from(number)),
            Unexpected::Str(text) => format!("string {text:?}"),
            Unexpected::Seq => "array".into(),
            Unexpected::Map => "object".into(),
            Unexpected::Other(other) => other.into(),
            _ => "something else".into(),
        };
        Self::new(format!("invalid {what}: {unexpected}, expected {expected}"))
    }

    #[cold]
    #[inline(never)]
    fn new(reason: String) -> Self {
        Self(Box::new(Details { path: None, reason }))
    }
}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::new(reason.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unlike("type", unexpected, expected)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unlike("value", unexpected, expected)
    }
}

impl core::error::Error for Wrong {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            "" => f.write_str(self.reason()),
            path => write!(f, "at {path}: {}", self.reason()),
        }
    }
}

/// Reads a document.
///
/// # Errors
/// It is no JSON, has a member twice, or is no `T`.
pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Wrong> {
    of(&parse(json)?)
}

/// Reads a document for [`of`].
///
/// # Errors
/// It is no JSON, or has a member twice.
pub(crate) fn parse(json: &[u8]) -> Result<Value, Wrong> {
    let parsed = serde_json::from_slice(json).map_err(Wrong::custom);
    parsed.map(|Once(value)| value)
}

/// Reads what is JSON already.
///
/// # Errors
/// It is no `T`.
pub(crate) fn of<'de, T: Deserialize<'de>>(value: &'de Value) -> Result<T, Wrong> {
    T::deserialize(At {
        value,
        place: &Place::Top,
    })
}

/// The members of an object that a struct does not have.
pub(crate) fn unknown<'de, T: Deserialize<'de>>(object: Value) -> Map<String, Value> {
    let mut known: &[&str] = &[];
    // It ends there: nothing is read.
    let _ = T::deserialize(Names(&mut known));
    let Value::Object(mut members) = object else {
        return Map::new();
    };
    members.retain(|name, _| !known.contains(&name.as_str()));
    members
}
