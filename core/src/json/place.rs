//! Values that know where they are in their document: the deserializer of all types.

use super::Wrong;
use core::fmt;
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Value, map};

/// Where a value is in its document.
pub(super) enum Place<'p> {
    Top,
    Member(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
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
pub(super) struct At<'de, 'p> {
    pub(super) value: &'de Value,
    pub(super) place: &'p Place<'p>,
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
    ($($method:ident $found:ident $visit:ident;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.value.$found() {
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
        deserialize_bool as_bool visit_bool;
        deserialize_u8 as_u64 visit_u64;
        deserialize_u16 as_u64 visit_u64;
        deserialize_u32 as_u64 visit_u64;
        deserialize_u64 as_u64 visit_u64;
        deserialize_i8 as_i64 visit_i64;
        deserialize_i16 as_i64 visit_i64;
        deserialize_i32 as_i64 visit_i64;
        deserialize_i64 as_i64 visit_i64;
        deserialize_f32 as_f64 visit_f64;
        deserialize_f64 as_f64 visit_f64;
        deserialize_char as_str visit_str;
        deserialize_str as_str visit_str;
        deserialize_string as_str visit_str;
        deserialize_identifier as_str visit_str;
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
