//! What queries are asked of.

use serde_json::Value;
use std::borrow::Cow;

/// A document that can be asked for single values, so that nothing is copied before it is selected.
pub(crate) trait Document {
    /// The value at a path of names; none if a name of it is not there.
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>>;

    /// All of it.
    fn whole(&self) -> Value;
}

impl Document for Value {
    fn value(&self, path: &[String]) -> Option<Cow<'_, Value>> {
        walk(self, path).map(Cow::Borrowed)
    }

    fn whole(&self) -> Value {
        self.clone()
    }
}

/// The value at a path within another.
pub(crate) fn walk<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(value, |value, name| value.as_object()?.get(name))
}

/// [`walk`] for a value that is needed no more.
pub(crate) fn take(mut value: Value, path: &[String]) -> Option<Value> {
    for name in path {
        value = value.as_object_mut()?.remove(name)?;
    }
    Some(value)
}
