//! When the owner's calendar lets an update go on. What days and zones are is not the engine's to know.

use crate::update::Stage;
use core::fmt;

/// Says when a stage may begin, by the wall clock.
pub trait Calendar: fmt::Debug + Send {
    /// Whether `stage` may be entered at this wall time, in milliseconds since 1970, and until when that
    /// is so. Where the time is not known, what depends on it is closed.
    fn at(&self, stage: Stage, wall: Option<u64>) -> Opening;
}

/// Whether a stage may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It may, until this wall time; `None` is for good.
    Open {
        /// Milliseconds since 1970.
        until: Option<u64>,
    },
    /// It may not, until this wall time; `None` is until the time is known.
    Closed {
        /// Milliseconds since 1970.
        until: Option<u64>,
    },
}

/// No windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Always;

impl Calendar for Always {
    fn at(&self, _: Stage, _: Option<u64>) -> Opening {
        Opening::Open { until: None }
    }
}
