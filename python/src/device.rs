//! A connection to the hub of the library's own.

use crate::{
    boundary::{Owned, callback, error, not_in_callback},
    events::Happening,
    updater::Updater,
};
use engine::{
    config::Config,
    device::{Answer, Device as Engine, DeviceOptions},
};
use pyo3::{prelude::*, types::PyBytes};
use std::sync::Arc;

/// See `_native.pyi`.
#[pyclass(frozen, module = "twinflash._native")]
pub(crate) struct Device(Owned<Engine>);

#[pymethods]
impl Device {
    #[staticmethod]
    #[pyo3(signature = (updater, config, on_method=None))]
    fn connect(
        py: Python<'_>,
        updater: &Updater,
        config: &[u8],
        on_method: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let inner = updater.inner(py)?;
        let readers = inner.readers.clone();
        let connected = py.detach(|| {
            let config = Config::from_json(config)?;
            let connection = config.connection_string()?.unwrap_or_default();
            let mut options = DeviceOptions::new(&connection)?
                .roots(config.roots()?)
                .identity(config.identity()?)
                .on_event(move |event| readers.tell(&Happening::Device(event)));
            if let Some(handler) = on_method {
                options = options.on_method(move |name, payload| answer(&handler, name, payload));
            }
            Engine::connect(Arc::clone(&inner.updater), options)
        });
        match connected {
            Ok(device) => Ok(Self(Owned::new(device))),
            Err(failure) => Err(error(py, &failure)),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let device = self.0.get(py)?;
        not_in_callback(py, "close")?;
        py.detach(|| device.close());
        Ok(())
    }
}

/// `handler(name, payload)` of the Python layer gives (status, JSON) or `None`, and raises nothing.
fn answer(handler: &Py<PyAny>, name: &str, payload: &[u8]) -> Option<Answer> {
    let answered = callback(|py| {
        let payload = PyBytes::new(py, payload);
        let answered = handler.call1(py, (name, payload))?;
        answered.extract::<Option<(u16, String)>>(py)
    });
    let (status, payload) = answered?.ok()??;
    Some(Answer { status, payload })
}
