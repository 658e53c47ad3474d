//! The guard: a program's first line.

use crate::boundary::error;
use engine::device::{Guarded, guard as engine};
use pyo3::prelude::*;
use std::path::PathBuf;

/// ("nothing", 0, 0), ("counted", starts, allowed) or ("rolled-back", 0, 0).
#[pyfunction]
pub(crate) fn guard(py: Python<'_>, state_dir: PathBuf) -> PyResult<(&'static str, u32, u32)> {
    match py.detach(|| engine(state_dir)) {
        Ok(Guarded::Counted { starts, allowed }) => Ok(("counted", starts, allowed)),
        Ok(Guarded::RolledBack) => Ok(("rolled-back", 0, 0)),
        Ok(_) => Ok(("nothing", 0, 0)),
        Err(failure) => Err(error(py, &failure)),
    }
}
