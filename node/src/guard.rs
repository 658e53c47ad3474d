//! The guard: a program's first line.

use crate::failure::{Thrown, thrown};
use engine::device::{Guarded as Did, guard as engine};
use napi_derive::napi;

/// What the guard did.
#[napi(object, object_from_js = false)]
pub struct Guarded {
    /// `nothing`, `counted` or `rolled-back`.
    pub kind: &'static str,
    /// Starts so far.
    pub starts: u32,
    /// Starts there are.
    pub allowed: u32,
}

/// Counts a start, and rolls back where there were too many.
#[napi(catch_unwind)]
pub fn guard(state_dir: String) -> Result<Guarded, Thrown> {
    let (kind, starts, allowed) = match engine(state_dir).map_err(thrown)? {
        Did::Counted { starts, allowed } => ("counted", starts, allowed),
        Did::RolledBack => ("rolled-back", 0, 0),
        _ => ("nothing", 0, 0),
    };
    Ok(Guarded {
        kind,
        starts,
        allowed,
    })
}
