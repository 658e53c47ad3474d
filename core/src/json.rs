//! JSON into types: what the documents of this crate are read by. It says where something is wrong, takes
//! objects for structs and nothing else, and no member twice.
//!
//! One deserializer for every type: each further one is generated code for all of them again.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected,
        IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, map};

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

/// Hears the names of a struct's members.
struct Names<'n>(&'n mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
        Err(Wrong::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        *self.0 = names;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A value none of whose objects has a member twice.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnceVisitor;

        impl<'de> Visitor<'de> for OnceVisitor {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Once, E> {
                Ok(Once(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Once, A::Error> {
                let mut items = Vec::new();
                while let Some(Once(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Once(items.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut members = Map::new();
                while let Some(name) = map.next_key::<String>()? {
                    if members.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    let Once(value) = map.next_value()?;
                    members.insert(name, value);
                }
                Ok(Once(members.into()))
            }
        }

        deserializer.deserialize_any(OnceVisitor)
    }
}

/// Where a value is in its document.
#[derive(Clone, Copy)]
enum Place<'de> {
    Top,
    Member(&'de Place<'de>, &'de str),
    Item(&'de Place<'de>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Member(Self::Top, name) => f.write_str(name),
            Self::Member(of, name) => write!(f, "{of}.{name}"),
            Self::Item(of, index) => write!(f, "{of}[{index}]"),
        }
    }
}

/// A value at its place.
#[derive(Clone, Copy)]
struct At<'de, 'p> {
    value: &'de Value,
    place: &'p Place<'p>,
}

impl<'de> At<'de, '_> {
    /// It is something else than what was expected.
    #[cold]
    #[inline(never)]
    fn refused(self, expected: &dyn Expected) -> Wrong {
        let unexpected = match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (_, Some(number)) => {
                    return Wrong::invalid_value(Unexpected::Signed(number), expected);
                }
                _ => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Wrong::invalid_type(unexpected, expected)
    }

    fn members<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Object(members) => visitor.visit_map(Members {
                members: members.iter(),
                of: self.place,
                last: None,
            }),
            _ => Err(self.refused(&"an object")),
        }
    }
}

/// What a type asks for; anything else is an error that is made in one place for all.
macro_rules! expect {
    ($($method:ident: $value:ident => $found:expr, $visit:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let $value = self.value;
            match $found {
                Some(found) => visitor.$visit(found),
                None => Err(self.refused(&visitor)),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for At<'de, '_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                _ => Err(self.refused(&visitor)),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.members(visitor),
        }
    }

    expect! {
        deserialize_bool: value => value.as_bool(), visit_bool;
        deserialize_u8: value => value.as_u64(), visit_u64;
        deserialize_u16: value => value.as_u64(), visit_u64;
        deserialize_u32: value => value.as_u64(), visit_u64;
        deserialize_u64: value => value.as_u64(), visit_u64;
        deserialize_i8: value => value.as_i64(), visit_i64;
        deserialize_i16: value => value.as_i64(), visit_i64;
        deserialize_i32: value => value.as_i64(), visit_i64;
        deserialize_i64: value => value.as_i64(), visit_i64;
        deserialize_f32: value => value.as_f64(), visit_f64;
        deserialize_f64: value => value.as_f64(), visit_f64;
        deserialize_char: value => value.as_str(), visit_str;
        deserialize_str: value => value.as_str(), visit_str;
        deserialize_string: value => value.as_str(), visit_str;
        deserialize_identifier: value => value.as_str(), visit_str;
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.refused(&visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Array(items) => {
                let mut rest = Items {
                    items: items.iter().enumerate(),
                    of: self.place,
                };
                let read = visitor.visit_seq(&mut rest)?;
                match rest.items.len() {
                    0 => Ok(read),
                    _ => Err(Wrong::invalid_length(items.len(), &"fewer items")),
                }
            }
            _ => Err(self.refused(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.members(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.members(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let mut members = self.value.as_object().into_iter().flatten();
        let (name, value) = match (self.value, members.next(), members.next()) {
            (Value::String(name), ..) => (name, None),
            (_, Some((name, value)), None) => (name, Some(value)),
            _ => return Err(self.refused(&"a word, or an object with one member")),
        };
        visitor.visit_enum(Variant {
            name,
            value,
            of: self.place,
        })
    }

    forward_to_deserialize_any! { bytes byte_buf unit_struct tuple tuple_struct }
}

struct Members<'de, 'p> {
    members: map::Iter<'de>,
    of: &'p Place<'p>,
    last: Option<(&'de str, &'de Value)>,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        self.last = Some((name, value));
        let key: StrDeserializer<'_, Wrong> = name.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|wrong| wrong.at(&Place::Member(self.of, name)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some((name, value)) = self.last.take() else {
            return Err(Wrong::custom("a value without a name"));
        };
        let place = &Place::Member(self.of, name);
        seed.deserialize(At { value, place })
            .map_err(|wrong| wrong.at(place))
    }
}

struct Items<'de, 'p> {
    items: core::iter::Enumerate<core::slice::Iter<'de, Value>>,
    of: &'p Place<'p>,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some((index, value)) = self.items.next() else {
            return Ok(None);
        };
        let place = &Place::Item(self.of, index);
        seed.deserialize(At { value, place })
            .map(Some)
            .map_err(|wrong| wrong.at(place))
    }
}

/// `"name"`, or `{"name": value}`.
struct Variant<'de, 'p> {
    name: &'de str,
    value: Option<&'de Value>,
    of: &'p Place<'p>,
}

impl<'de, 'p> Variant<'de, 'p> {
    /// Reads what the name stands before; `null` where nothing does.
    fn value<T>(self, read: impl FnOnce(At<'de, '_>) -> Result<T, Wrong>) -> Result<T, Wrong> {
        let place = &Place::Member(self.of, self.name);
        let value = self.value.unwrap_or(&Value::Null);
        read(At { value, place }).map_err(|wrong| wrong.at(place))
    }
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Wrong> {
        let name: StrDeserializer<'_, Wrong> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de, '_> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        self.value(|at| <()>::deserialize(at))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        self.value(|at| seed.deserialize(at))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.value(|at| at.deserialize_any(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.value(|at| at.members(visitor))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    /// In every place of a document other values, and members less and more: it is taken, refused and understood
    /// as by serde_json's own deserializer, but that arrays are no objects.
    pub(crate) fn as_serde_json_reads<T: DeserializeOwned + fmt::Debug>(document: &Value) {
        read::<T>(document.to_string().as_bytes()).unwrap();
        for changed in changes(document) {
            let text = changed.to_string();
            match (read::<T>(text.as_bytes()), serde_json::from_str::<T>(&text)) {
                (Ok(read), Ok(wanted)) => {
                    assert_eq!(format!("{read:?}"), format!("{wanted:?}"), "{text}");
                }
                (Err(_), Err(_)) => {}
                (Err(wrong), Ok(_)) if wrong.reason().starts_with("invalid type: array") => {}
                (read, wanted) => panic!("{text}: {read:?}, and serde_json: {wanted:?}"),
            }
        }
    }

    fn changes(value: &Value) -> Vec<Value> {
        let others = r#"null true 0 -1 -0 1.0 1e3 1.5 255 256 4294967296 18446744073709551615 18446744073709551616
            "" "x" "1" [] [[]] ["x"] ["x","y"] ["x","y","z"] [1] {} {"x":1} {"x":{},"y":{}}"#;
        let others = others.split_whitespace();
        let mut all: Vec<Value> = others.map(|json| json.parse().unwrap()).collect();
        match value {
            Value::Array(items) => {
                let with = |place: core::ops::Range<usize>, item: Option<Value>| {
                    let mut items = items.clone();
                    items.splice(place, item);
                    Value::from(items)
                };
                for (at, item) in items.iter().enumerate() {
                    all.push(with(at..at + 1, None));
                    all.push(with(at..at, Some(item.clone())));
                    let others = changes(item).into_iter();
                    all.extend(others.map(|other| with(at..at + 1, Some(other))));
                }
            }
            Value::Object(members) => {
                let with = |name: &str, member: Option<Value>| {
                    let mut members = members.clone();
                    members.remove(name);
                    members.extend(member.map(|member| (name.to_string(), member)));
                    Value::from(members)
                };
                for (name, member) in members {
                    all.push(with(name, None));
                    let others = changes(member).into_iter();
                    all.extend(others.map(|other| with(name, Some(other))));
                }
                all.push(with("later", Some(Value::Null)));
            }
            // A variant's name before something.
            Value::String(name) => {
                all.extend(
                    all.clone()
                        .into_iter()
                        .map(|it| serde_json::json!({ name: it })),
                );
            }
            _ => {}
        }
        all
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        number: u8,
        part: Option<f64>,
        pair: Option<(String, String)>,
        #[serde(default)]
        list: Vec<Choice>,
        #[serde(default)]
        names: BTreeMap<String, Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Choice {
        Nothing,
        One(u8),
        Both { left: bool, right: i32 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        text: String,
    }

    #[test]
    fn a_document_is_read() {
        let json = br#"{"number": 3, "part": 1, "list": ["nothing", {"one": 255},
            {"both": {"left": true, "right": -5}}], "names": {"x.y": {"text": "a\nb", "unknown": [{}]}}}"#;
        let table: Table = read(json).unwrap();
        let wanted = Table {
            number: 3,
            part: Some(1.0),
            pair: None,
            list: [
                Choice::Nothing,
                Choice::One(255),
                Choice::Both {
                    left: true,
                    right: -5,
                },
            ]
            .into(),
            names: [(
                "x.y".to_string(),
                Inner {
                    text: "a\nb".into(),
                },
            )]
            .into(),
        };
        assert_eq!(table, wanted);
        assert_eq!(
            read::<Table>(br#"{"number": 0, "part": null}"#)
                .unwrap()
                .part,
            None
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (json, wanted) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{} {}", "trailing characters at line 1 column 4"),
            (
                r#"{"number": 1, "number": 1}"#,
                "duplicate field `number` at line 1 column 22",
            ),
            (
                r#"{"number": 1, "names": {"a": {"text": "", "b": {"c": 1, "c": 2}}}}"#,
                "duplicate field `c` at line 1 column 59",
            ),
            (
                "[3, 1.5, [], {}]",
                "invalid type: array, expected an object",
            ),
            ("{}", "missing field `number`"),
            (
                r#"{"number": 256}"#,
                "at number: invalid value: integer `256`, expected u8",
            ),
            (
                r#"{"number": -1}"#,
                "at number: invalid value: integer `-1`, expected u8",
            ),
            (
                r#"{"number": 1.5}"#,
                "at number: invalid type: number `1.5`, expected u8",
            ),
            (
                r#"{"number": "1"}"#,
                "at number: invalid type: string \"1\", expected u8",
            ),
            (
                r#"{"numbre": 1}"#,
                "at numbre: unknown field `numbre`, expected one of `number`, `part`, `pair`, `list`, `names`",
            ),
            (
                r#"{"number": 1, "list": ["nothing", {"one": true}]}"#,
                "at list[1].one: invalid type: boolean `true`, expected u8",
            ),
            (
                r#"{"number": 1, "list": ["one"]}"#,
                "at list[0].one: invalid type: null, expected u8",
            ),
            (
                r#"{"number": 1, "list": [{"nothing": 1}]}"#,
                "at list[0].nothing: invalid type: integer `1`, expected unit",
            ),
            (
                r#"{"number": 1, "list": [{"one": 1, "both": 2}]}"#,
                "at list[0]: invalid type: object, expected a word, or an object with one member",
            ),
            (
                r#"{"number": 1, "list": [{"two": 1}]}"#,
                "at list[0]: unknown variant `two`, expected one of `nothing`, `one`, `both`",
            ),
            (
                r#"{"number": 1, "list": [{"both": {"left": true}}]}"#,
                "at list[0].both: missing field `right`",
            ),
            (
                r#"{"number": 1, "list": [7]}"#,
                "at list[0]: invalid type: integer `7`, expected a word, or an object with one member",
            ),
            (
                r#"{"number": 1, "pair": ["a", "b", "c"]}"#,
                "at pair: invalid length 3, expected fewer items",
            ),
            (
                r#"{"number": 1, "names": {"a": {}, "b": {"text": ""}}}"#,
                "at names.a: missing field `text`",
            ),
        ] {
            let wrong = read::<Table>(json.as_bytes()).unwrap_err();
            assert_eq!(wrong.to_string(), wanted, "{json}");
        }
    }
}
