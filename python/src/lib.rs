//! twinflash for Python: the module `twinflash._native`, which is private. What applications use is
//! the typed layer over it in `python/twinflash`; types and meaning of what is here stand in
//! `python/twinflash/_native.pyi`.
#![deny(unsafe_code)]

mod boundary;
mod device;
mod events;
mod guard;
mod installer;
mod lines;
mod updater;

use engine::update::Code;
use pyo3::{prelude::*, types::PyDict};

#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::{
        boundary::{after_fork, quiesce},
        device::Device,
        events::Reader,
        guard::guard,
        lines::lines,
        updater::Updater,
    };
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("CODES", super::codes(module.py())?)
    }
}

/// The table of failure codes, for the Python layer's classes to be compared with.
fn codes(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let codes = PyDict::new(py);
    for code in Code::ALL {
        codes.set_item(code.as_str(), code.number())?;
    }
    Ok(codes)
}
