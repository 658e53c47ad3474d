//! IoT Hub's query language over twins and job results.
//!
//! The language is the one of
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-query-language>, without arithmetic and without AVG, SUM, MIN
//! and MAX. It is pure: text in, rows out; where documents come from is behind [`Document`].
//!
//! What that page leaves open is decided here:
//!
//! - **A missing property is undefined**, and so is whatever is compared with it. `tags.a != 1`, `tags.a NIN [1]` and
//!   `NOT tags.a = 1` all leave out a document without `tags.a`; `NOT IS_DEFINED(tags.a)` finds it. AND and OR know
//!   undefined as a third truth value: `undefined OR true` is true.
//! - **Values of different types are unequal**, never converted: `3 = '3'` is false, `3 != '3'` and `3 != null` are true.
//!   Which is smaller is defined only between two numbers, two strings (by code points) or two Booleans.
//! - **Objects and arrays are not compared**: the result is undefined.
//! - A value that is not Boolean is no condition: undefined.
//! - **Spelling.** The twin's own members are found in any case and shown in their own (`SELECT DeviceId` gives `deviceId`).
//!   Tags and properties are found as they are written. Keywords and functions are in any case.
//! - **A column is named** by AS, else by the last segment of its path; COUNT() by `Count`. Two columns of one name are
//!   refused. An undefined value is left out of its row.
//! - A group is one value of the GROUP BY property; documents without it are a group whose row does not have it.
//! - Azure promises only IS_DEFINED for twins. STARTSWITH, ENDSWITH, CONTAINS and IS_NULL to IS_STRING are its functions of
//!   message routes.
//!
//! Nesting is bounded by [`MAX_DEPTH`] and a text by [`MAX_LENGTH`], so neither parsing nor evaluating can overflow the stack.

mod document;
mod error;
mod evaluate;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use document::{Document, take, walk};
pub(crate) use error::QueryError;
use evaluate::Expression;
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap};

/// The longest query or condition, in characters.
pub(crate) const MAX_LENGTH: usize = 8192;
/// How deep parentheses and calls may nest.
pub(crate) const MAX_DEPTH: usize = 64;

/// The documents a query is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `devices`: the twins of devices.
    Devices,
    /// `devices.jobs`: what each job did with each device.
    Jobs,
}

/// A parsed query.
#[derive(Debug, PartialEq)]
pub(crate) struct Query {
    source: Source,
    top: Option<u64>,
    /// None: whole documents.
    columns: Option<Vec<Column>>,
    condition: Condition,
    group: Option<Path>,
}

/// A condition on documents.
#[derive(Debug, PartialEq)]
pub(crate) struct Condition(Option<Expression>);

/// The names that lead to a value, from the document's root.
#[derive(Debug, Clone, PartialEq)]
struct Path(Vec<String>);

#[derive(Debug, PartialEq)]
struct Column {
    name: String,
    /// None: COUNT().
    path: Option<Path>,
}

impl Query {
    /// Parses a query; an error says where it is wrong, and what could stand there.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        parse::query(text)
    }

    /// Which documents it wants.
    pub(crate) fn source(&self) -> Source {
        self.source
    }

    /// How many rows it wants at most, by TOP.
    pub(crate) fn top(&self) -> Option<u64> {
        self.top
    }

    /// Whether its rows are whole documents: `SELECT *`.
    pub(crate) fn is_whole(&self) -> bool {
        self.columns.is_none()
    }

    /// Whether a row stands for a group of documents: with COUNT() or GROUP BY. Then rows come from [`Query::groups`], else
    /// from [`Query::row`].
    pub(crate) fn is_grouped(&self) -> bool {
        self.group.is_some()
            || self
                .columns
                .iter()
                .flatten()
                .any(|column| column.path.is_none())
    }

    /// Whether a document fulfils the WHERE clause. TOP is not looked at.
    pub(crate) fn matches(&self, document: &dyn Document) -> bool {
        self.condition.matches(document)
    }

    /// The row of a document that [matches](Query::matches).
    pub(crate) fn row(&self, document: &dyn Document) -> Value {
        let Some(columns) = &self.columns else {
            return document.whole();
        };
        let mut row = Map::new();
        for column in columns {
            if let Some(path) = &column.path
                && let Some(value) = document.value(&path.0)
            {
                row.insert(column.name.clone(), value.into_owned());
            }
        }
        Value::Object(row)
    }

    /// Counts documents in groups.
    pub(crate) fn groups(&self) -> Groups<'_> {
        let mut groups = BTreeMap::new();
        if self.group.is_none() {
            // Without GROUP BY there is one row, even of no documents.
            groups.insert(String::new(), (None, 0));
        }
        Groups {
            query: self,
            groups,
        }
    }

    /// The rows of all given documents, in their order or, if grouped, in a stable one of their own.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn select<'d>(
        &self,
        documents: impl IntoIterator<Item = &'d dyn Document>,
    ) -> Vec<Value> {
        let top = self
            .top
            .map_or(usize::MAX, |top| usize::try_from(top).unwrap_or(usize::MAX));
        let matching = documents
            .into_iter()
            .filter(|document| self.matches(*document));
        if self.is_grouped() {
            let mut groups = self.groups();
            matching.for_each(|document| groups.add(document));
            groups.rows().take(top).collect()
        } else {
            matching
                .take(top)
                .map(|document| self.row(document))
                .collect()
        }
    }
}

impl Condition {
    /// Parses a condition alone, as the target of a configuration or job has it. `*`, or nothing, means all documents.
    pub(crate) fn parse(text: &str) -> Result<Self, QueryError> {
        parse::condition(text)
    }

    /// The paths of all properties it is about.
    pub(crate) fn paths(&self) -> Vec<&[String]> {
        let mut paths = Vec::new();
        if let Some(expression) = &self.0 {
            expression.paths(&mut paths);
        }
        paths
    }

    /// Whether a document fulfils it.
    pub(crate) fn matches(&self, document: &dyn Document) -> bool {
        self.0
            .as_ref()
            .is_none_or(|expression| expression.truth(document) == Some(true))
    }
}

/// Documents being counted in groups, each under its value's JSON text; undefined is the empty one.
pub(crate) struct Groups<'q> {
    query: &'q Query,
    groups: BTreeMap<String, (Option<Value>, u64)>,
}

impl Groups<'_> {
    /// Counts a document that [matches](Query::matches).
    pub(crate) fn add(&mut self, document: &dyn Document) {
        let value = self
            .query
            .group
            .as_ref()
            .and_then(|path| document.value(&path.0));
        let key = value.as_deref().map(Value::to_string).unwrap_or_default();
        self.groups
            .entry(key)
            .or_insert_with(|| (value.map(Cow::into_owned), 0))
            .1 += 1;
    }

    /// One row a group, in the order of the values' JSON texts. TOP is not looked at.
    pub(crate) fn rows(self) -> impl Iterator<Item = Value> {
        let columns = self.query.columns.as_deref().unwrap_or_default();
        self.groups.into_values().map(move |(value, count)| {
            let row = columns.iter().filter_map(|column| {
                let shown = match column.path {
                    None => Some(Value::from(count)),
                    Some(_) => value.clone(),
                };
                Some((column.name.clone(), shown?))
            });
            Value::Object(row.collect())
        })
    }
}
