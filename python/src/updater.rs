//! The updater.

use crate::{
    boundary::{Owned, apart, callback, error, not_in_callback, wait},
    events::{Happening, Reader, Readers, Teller, outcome, pair},
    installer::{PythonInstaller, failure},
};
use engine::{
    config::Config,
    device::{InstallFile, Outbound, Updater as Engine},
    install::Restart,
    update::{Code, Failure},
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyDict};
use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};

pub(crate) struct Inner {
    pub(crate) updater: Arc<Engine>,
    pub(crate) readers: Readers,
}

/// See `_native.pyi`.
#[pyclass(frozen, weakref, module = "twinflash._native")]
pub(crate) struct Updater(Owned<Inner>);

impl Updater {
    pub(crate) fn inner(&self, py: Python<'_>) -> PyResult<&Inner> {
        self.0.get(py)
    }
}

#[pymethods]
impl Updater {
    /// An updater, and a reader of all its events from the first on.
    #[staticmethod]
    #[pyo3(signature = (config, installer=None, installer_restart=None, on_restart=None))]
    fn start(
        py: Python<'_>,
        config: &[u8],
        installer: Option<Py<PyAny>>,
        installer_restart: Option<&str>,
        on_restart: Option<Py<PyAny>>,
    ) -> PyResult<(Self, Reader)> {
        let installer = installer
            .map(|call| {
                let restart = match installer_restart {
                    None | Some("none") => Restart::None,
                    Some("exit") => Restart::Exit,
                    Some("system") => Restart::System,
                    Some(other) => {
                        return Err(PyValueError::new_err(format!(
                            "install.restart is {other:?}; it must be \"none\", \"exit\" or \"system\""
                        )));
                    }
                };
                Ok(PythonInstaller { call, restart })
            })
            .transpose()?;
        let readers = Readers::default();
        let reader = readers.subscribe();
        let teller = Teller(readers.clone());
        let config = config.to_vec();
        let updater = apart(py, move || {
            let config = Config::from_json(&config)?;
            let mut builder = match installer {
                Some(installer) => config.builder_with(installer)?,
                None => config.builder()?,
            };
            builder =
                builder.on_event(move |event| teller.0.tell(&Happening::Update(event.clone())));
            if let Some(handler) = on_restart {
                builder = builder.on_restart(move |restart| ask_for_restart(&handler, restart));
            }
            builder.start()
        })?;
        let inner = Inner {
            updater: Arc::new(updater),
            readers,
        };
        Ok((Self(Owned::new(inner)), reader))
    }

    /// (status, payload), or `None` for a method that is not the updater's.
    fn handle_method(
        &self,
        py: Python<'_>,
        name: &str,
        payload: &[u8],
    ) -> PyResult<Option<(u16, String)>> {
        let inner = self.inner(py)?;
        not_in_callback(py, "handle_method")?;
        let (sender, receiver) = mpsc::sync_channel(1);
        // With the interpreter: this does not wait, and who gives it away waits to have it again for as long as
        // the thread needs that logs the event.
        let then = move |answer| drop(sender.send(answer));
        let ours = inner.updater.handle_method_then(name, payload, then);
        if !ours {
            return Ok(None);
        }
        // Most are answered by now.
        let answer = match receiver.try_recv() {
            Ok(answer) => Some(answer),
            Err(_) => wait(py, None, move |slice| match receiver.recv_timeout(slice) {
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                other => Some(other.ok()),
            })?
            .flatten(),
        };
        match answer {
            Some(answer) => Ok(Some((answer.status, answer.payload))),
            None => Err(error(
                py,
                &Failure::new(Code::State, "the updater is closed"),
            )),
        }
    }

    fn handle_twin(&self, py: Python<'_>, complete: bool, json: &[u8]) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.handle_twin(complete, json));
        Ok(())
    }

    fn twin_failed(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.twin_failed());
        Ok(())
    }

    fn connected(&self, py: Python<'_>, connected: bool) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.connected(connected));
        Ok(())
    }

    fn report_done(&self, py: Python<'_>, id: u64, status: u16) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.report_done(id, status));
        Ok(())
    }

    /// (id, patch) of a report; (0, `None`) where the twin is to be read; `None` where there is nothing.
    #[pyo3(signature = (timeout=None))]
    fn next_outbound(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
    ) -> PyResult<Option<(u64, Option<String>)>> {
        let inner = self.inner(py)?;
        not_in_callback(py, "next_outbound")?;
        let found = wait(py, timeout, |slice| {
            let found = inner.updater.next_outbound(slice);
            (found.is_some() || inner.readers.has_ended()).then_some(found)
        })?;
        Ok(found.flatten().map(|outbound| match outbound {
            Outbound::Report(report) => (report.id, Some(report.patch)),
            Outbound::ReadTwin => (0, None),
        }))
    }

    fn events(&self, py: Python<'_>) -> PyResult<Reader> {
        Ok(self.inner(py)?.readers.subscribe())
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let status = self.inner(py)?.updater.status();
        let made = PyDict::new(py);
        made.set_item("phase", status.phase.map(|phase| phase.as_str()))?;
        made.set_item("version", status.version)?;
        made.set_item("bytes", status.bytes)?;
        made.set_item("size", status.size)?;
        made.set_item("outcome", status.outcome.as_ref().map(outcome))?;
        made.set_item("running_version", status.running_version)?;
        made.set_item("paused", status.paused)?;
        let retry = status.retry.map(|retry| {
            let after = retry.after.map(|after| after.as_secs_f64());
            (pair(&retry.failure), retry.attempts, after)
        });
        made.set_item("retry", retry)?;
        let waiting = status.waiting.map(|it| {
            let after = it.after.map(|after| after.as_secs_f64());
            (it.on.as_str(), it.before.as_str(), after)
        });
        made.set_item("waiting", waiting)?;
        Ok(made)
    }

    /// An outcome as in the status, or `None`.
    #[pyo3(signature = (timeout=None))]
    #[expect(clippy::type_complexity)]
    fn wait(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
    ) -> PyResult<
        Option<(
            &'static str,
            Option<(&'static str, String)>,
            Option<&'static str>,
        )>,
    > {
        let inner = self.inner(py)?;
        not_in_callback(py, "wait")?;
        let found = wait(py, timeout, |slice| {
            let found = inner.updater.wait_told(slice);
            (found.is_some() || inner.readers.has_ended()).then_some(found)
        })?;
        let found = found
            .flatten()
            .or_else(|| inner.updater.wait(Duration::ZERO));
        Ok(found.as_ref().map(outcome))
    }

    fn confirm(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.confirm());
        Ok(())
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.cancel())
            .map_err(|failure| error(py, &failure))
    }

    fn approve(&self, py: Python<'_>) -> PyResult<bool> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.approve())
            .map_err(|failure| error(py, &failure))
    }

    fn defer(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let inner = self.inner(py)?;
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        py.detach(|| inner.updater.defer(time))
            .map_err(|failure| error(py, &failure))
    }

    fn install_file(
        &self,
        py: Python<'_>,
        path: PathBuf,
        version: Option<String>,
        check: Option<String>,
        manifest: Option<PathBuf>,
    ) -> PyResult<()> {
        let inner = self.inner(py)?;
        let mut options = InstallFile::default();
        (options.version, options.check, options.manifest) = (version, check, manifest);
        py.detach(|| inner.updater.install_file(&path, &options))
            .map_err(|failure| error(py, &failure))
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.pause());
        Ok(())
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        py.detach(|| inner.updater.resume());
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        not_in_callback(py, "close")?;
        py.detach(|| inner.updater.close());
        Ok(())
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.inner(py)?.readers.has_ended())
    }

    /// Whether it was made in this process, not in one this was forked off from.
    #[getter]
    fn is_ours(&self) -> bool {
        self.0.is_ours()
    }
}

/// Calls `handler(restart)` with "exit" or "system", or a command as a list of texts.
fn ask_for_restart(handler: &Py<PyAny>, restart: &Restart) -> Result<(), Failure> {
    let called = callback(|py| {
        let called = match restart {
            Restart::Command(command) | Restart::Reboot(command) => handler.call1(py, (command,)),
            Restart::System => handler.call1(py, ("system",)),
            _ => handler.call1(py, ("exit",)),
        };
        called
            .map(drop)
            .map_err(|error| failure(py, &error, Code::InstallFailed))
    });
    called.unwrap_or_else(|| {
        Err(Failure::new(
            Code::State,
            "the Python interpreter is ending",
        ))
    })
}
