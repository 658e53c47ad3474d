//! The guard: a program's first line.

use crate::boundary::apart;
use engine::device::{Guarded, guard as engine};
use pyo3::prelude::*;
use std::path::PathBuf;

/// ("nothing", 0, 0), ("counted", starts, allowed) or ("rolled-back", 0, 0).
#[pyfunction]
pub(crate) fn guard(py: Python<'_>, state_dir: PathBuf) -> PyResult<(&'static str, u32, u32)> {
    Ok(match apart(py, move || engine(state_dir))? {
        Guarded::Counted { starts, allowed } => ("counted", starts, allowed),
        Guarded::RolledBack => ("rolled-back", 0, 0),
        _ => ("nothing", 0, 0),
    })
}
