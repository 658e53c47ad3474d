//! An installer of the application's, in Python.

use crate::boundary::callback;
use engine::{
    install::{ImageInfo, ImageState, Installer, Restart},
    update::{Code, Failure},
};
use pyo3::{
    conversion::FromPyObjectOwned,
    prelude::*,
    types::{PyBytes, PyTuple},
};
use std::fmt;

/// Calls `call(name, *arguments)` of the Python layer, which calls the application's object.
pub(crate) struct PythonInstaller {
    pub(crate) call: Py<PyAny>,
    pub(crate) restart: Restart,
}

impl fmt::Debug for PythonInstaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PythonInstaller")
    }
}

/// What an exception of the application's means. The layer above has made it one of ours.
pub(crate) fn failure(py: Python<'_>, error: &PyErr, otherwise: Code) -> Failure {
    let value = error.value(py);
    let name = value
        .getattr("code")
        .and_then(|code| code.extract::<String>());
    let code = name.ok().and_then(|name| {
        let mut all = Code::ALL.iter().copied();
        all.find(|code| code.as_str() == name)
    });
    Failure::new(code.unwrap_or(otherwise), value)
}

impl PythonInstaller {
    fn call<T: for<'py> FromPyObjectOwned<'py>>(
        &self,
        arguments: impl FnOnce(Python<'_>) -> PyResult<Bound<'_, PyTuple>>,
    ) -> Result<T, Failure> {
        callback(|py| {
            arguments(py)
                .and_then(|arguments| self.call.bind(py).call1(arguments))
                .and_then(|result| result.extract().map_err(Into::into))
                .map_err(|error| failure(py, &error, Code::InstallFailed))
        })
        .unwrap_or_else(|| {
            Err(Failure::new(
                Code::State,
                "the Python interpreter is ending",
            ))
        })
    }

    fn step(&self, name: &str) -> Result<(), Failure> {
        self.call::<Option<bool>>(|py| (name,).into_pyobject(py))
            .map(drop)
    }
}

impl Installer for PythonInstaller {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        let state: String = self.call(|py| ("inspect",).into_pyobject(py))?;
        Ok(match state.as_str() {
            "old" => ImageState::Old,
            "new" => ImageState::New,
            "partial" => ImageState::Partial,
            _ => ImageState::Unknown,
        })
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        self.call(|py| ("begin", image.size, &image.version, resume_at).into_pyobject(py))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.call::<Option<bool>>(|py| ("write", offset, PyBytes::new(py, bytes)).into_pyobject(py))
            .map(drop)
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        self.call(|py| ("sync",).into_pyobject(py))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.step("finish")
    }

    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        self.call::<Option<bool>>(|py| {
            ("read_back", size, PyBytes::new(py, sha256)).into_pyobject(py)
        })
        .map(drop)
    }

    fn activate(&mut self) -> Result<(), Failure> {
        self.step("activate")
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        self.step("confirm")
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        self.step("rollback")
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.step("abort")
    }

    fn restart(&self) -> Restart {
        self.restart.clone()
    }

    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        self.call(|py| ("holds", PyBytes::new(py, sha256)).into_pyobject(py))
    }
}
