//! What takes a window's place in a library without them: the time zones they need are 60 kB.

use crate::update::{Code, Failure};

/// A time that comes again each week. There is none: this library was built without the feature `windows`.
#[derive(Debug, Clone)]
pub enum Window {}

impl Window {
    /// Makes none.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], always.
    pub fn new<S: AsRef<str>>(
        _days: &[S],
        _from: &str,
        _to: &str,
        _zone: &str,
    ) -> Result<Self, Failure> {
        Err(Failure::new(
            Code::InvalidConfig,
            "this program was built without maintenance windows (the feature `windows`)",
        ))
    }

    pub(super) fn openings(&self, _wall: u64) -> std::iter::Empty<(u64, u64)> {
        match *self {}
    }
}
