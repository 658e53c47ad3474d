//! The value of an expression for a document. None stands for undefined throughout.

use super::{Document, Path};
use serde_json::{Number, Value};
use std::{borrow::Cow, cmp::Ordering};

#[derive(Debug, PartialEq)]
pub(super) enum Expression {
    /// `undefined`.
    Undefined,
    Constant(Value),
    Path(Path),
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Box<Expression>, Operator, Box<Expression>),
    In(Box<Expression>, Vec<Value>),
    /// IS_DEFINED and its kin: a function of one value.
    Is(Kind, Box<Expression>),
    /// STARTSWITH and its kin: a function of two strings.
    Text(TextFunction, Box<Expression>, Box<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Defined,
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
    Primitive,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TextFunction {
    StartsWith,
    EndsWith,
    Contains,
}

impl Expression {
    /// The expression as a condition. A value that is no Boolean is none.
    pub(super) fn truth(&self, document: &dyn Document) -> Option<bool> {
        match self {
            Self::Undefined => None,
            Self::Constant(value) => value.as_bool(),
            Self::Path(path) => document.value(&path.0)?.as_bool(),
            Self::Or(parts) => any(parts, true, document),
            Self::And(parts) => any(parts, false, document),
            Self::Not(part) => part.truth(document).map(|truth| !truth),
            Self::Compare(left, operator, right) => {
                operator.holds(&*left.value(document)?, &*right.value(document)?)
            }
            Self::In(value, list) => {
                let value = value.value(document)?;
                is_primitive(&value).then(|| {
                    list.iter()
                        .any(|item| Operator::Equal.holds(&value, item) == Some(true))
                })
            }
            Self::Is(kind, value) => Some(kind.is(value.value(document).as_deref())),
            Self::Text(function, text, part) => {
                let (text, part) = (text.value(document)?, part.value(document)?);
                let (text, part) = (text.as_str()?, part.as_str()?);
                Some(match function {
                    TextFunction::StartsWith => text.starts_with(part),
                    TextFunction::EndsWith => text.ends_with(part),
                    TextFunction::Contains => text.contains(part),
                })
            }
        }
    }

    /// Adds the paths of all properties in it.
    pub(super) fn paths<'a>(&'a self, paths: &mut Vec<&'a [String]>) {
        match self {
            Self::Undefined | Self::Constant(_) => {}
            Self::Path(path) => paths.push(&path.0),
            Self::Or(parts) | Self::And(parts) => parts.iter().for_each(|part| part.paths(paths)),
            Self::Not(part) | Self::In(part, _) | Self::Is(_, part) => part.paths(paths),
            Self::Compare(left, _, right) | Self::Text(_, left, right) => {
                left.paths(paths);
                right.paths(paths);
            }
        }
    }

    fn value<'a>(&'a self, document: &'a dyn Document) -> Option<Cow<'a, Value>> {
        match self {
            Self::Constant(value) => Some(Cow::Borrowed(value)),
            Self::Path(path) => document.value(&path.0),
            _ => self
                .truth(document)
                .map(|truth| Cow::Owned(Value::Bool(truth))),
        }
    }
}

/// OR, which one part that is true decides, and AND, which one that is false does. Else undefined parts leave it undefined.
fn any(parts: &[Expression], decides: bool, document: &dyn Document) -> Option<bool> {
    let mut outcome = Some(!decides);
    for part in parts {
        match part.truth(document) {
            Some(truth) if truth == decides => return Some(decides),
            Some(_) => {}
            None => outcome = None,
        }
    }
    outcome
}

impl Operator {
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        if !is_primitive(left) || !is_primitive(right) {
            return None;
        }
        let order = match (left, right) {
            (Value::Null, Value::Null) => Some(Ordering::Equal),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Value::Number(left), Value::Number(right)) => compare(left, right),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            _ => None,
        };
        match self {
            Self::Equal => Some(order == Some(Ordering::Equal)),
            Self::NotEqual => Some(order != Some(Ordering::Equal)),
            Self::Less => order.map(Ordering::is_lt),
            Self::LessOrEqual => order.map(Ordering::is_le),
            Self::Greater => order.map(Ordering::is_gt),
            Self::GreaterOrEqual => order.map(Ordering::is_ge),
        }
    }
}

fn compare(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn is_primitive(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

impl Kind {
    fn is(self, value: Option<&Value>) -> bool {
        value.is_some_and(|value| match self {
            Self::Defined => true,
            Self::Null => value.is_null(),
            Self::Bool => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
            Self::Primitive => is_primitive(value),
        })
    }
}
