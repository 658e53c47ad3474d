//! Events, for as many readers as there are.

use crate::boundary::{Owned, wait};
use engine::{
    device::{DeviceEvent, Event},
    update::{Failure, Outcome},
};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyTuple};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
    mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
};

/// Events a reader may be behind; then it misses some.
const MOST: usize = 1000;

/// What happened to an update or to its connection, or a line of the log.
#[derive(Clone)]
pub(crate) enum Happening {
    Update(Event),
    Device(DeviceEvent),
    Line {
        level: u8,
        target: String,
        text: String,
    },
}

/// Gives what happens to every reader.
#[derive(Clone, Default)]
pub(crate) struct Readers {
    readers: Arc<Mutex<Vec<SyncSender<Happening>>>>,
    ended: Arc<AtomicBool>,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, Vec<SyncSender<Happening>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, happening: &Happening) {
        self.lock().retain(|reader| {
            !matches!(
                reader.try_send(happening.clone()),
                Err(TrySendError::Disconnected(_))
            )
        });
    }

    pub(crate) fn subscribe(&self) -> Reader {
        let (sender, receiver) = mpsc::sync_channel(MOST);
        let mut readers = self.lock();
        if !self.has_ended() {
            readers.push(sender);
        }
        Reader(Owned::new(Mutex::new(receiver)))
    }

    /// Nothing more happens.
    pub(crate) fn end(&self) {
        let mut readers = self.lock();
        self.ended.store(true, Ordering::Relaxed);
        readers.clear();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

/// Belongs to the updater's own thread: when that ends, nothing more happens.
pub(crate) struct Teller(pub(crate) Readers);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// See `_native.pyi`.
#[pyclass(frozen, module = "twinflash._native")]
pub(crate) struct Reader(Owned<Mutex<Receiver<Happening>>>);

#[pymethods]
impl Reader {
    /// The next event; `None` where none came in time, `()` where none will come any more.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let receiver = self.0.get(py)?;
        let found = wait(py, timeout, |slice| {
            let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            match receiver.recv_timeout(slice) {
                Ok(happening) => Some(Some(happening)),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(None),
            }
        })?;
        match found {
            None => Ok(None),
            Some(None) => Ok(Some(PyTuple::empty(py))),
            Some(Some(happening)) => tuple(py, &happening).map(Some),
        }
    }
}

type Pair = (&'static str, String);

pub(crate) fn pair(failure: &Failure) -> Pair {
    (failure.code.as_str(), failure.message.clone())
}

/// (outcome, failure, phase), the last two or `None`.
pub(crate) fn outcome(outcome: &Outcome) -> (&'static str, Option<Pair>, Option<&'static str>) {
    let phase = match outcome {
        Outcome::Failed { phase, .. } | Outcome::Cancelled(phase) => Some(phase.as_str()),
        _ => None,
    };
    (outcome.as_str(), outcome.failure().map(pair), phase)
}

/// The name of the event's class in the Python layer, and its fields.
fn tuple<'py>(py: Python<'py>, happening: &Happening) -> PyResult<Bound<'py, PyTuple>> {
    let made = match happening {
        Happening::Update(event) => match event {
            Event::Accepted { uri, version } => ("Accepted", uri, version).into_bound_py_any(py),
            Event::Phase(phase) => ("PhaseChanged", phase.as_str()).into_bound_py_any(py),
            Event::Progress { bytes, total } => ("Progress", bytes, total).into_bound_py_any(py),
            Event::Retry { failure, after } => {
                ("Retry", pair(failure), after.as_secs_f64()).into_bound_py_any(py)
            }
            Event::Waiting(it) => {
                let after = it.after.map(|after| after.as_secs_f64());
                ("Waiting", it.on.as_str(), it.before.as_str(), after).into_bound_py_any(py)
            }
            Event::Verified { by, bytes, sha256 } => {
                ("Verified", by.as_str(), bytes, sha256).into_bound_py_any(py)
            }
            Event::Ended(ended) => ("Ended", outcome(ended)).into_bound_py_any(py),
            Event::Refused(failure) => ("Refused", pair(failure)).into_bound_py_any(py),
            Event::KeysRotated { version } => ("KeysRotated", version).into_bound_py_any(py),
            Event::Warning(message) => ("Warned", message).into_bound_py_any(py),
            other => ("Warned", format!("{other:?}")).into_bound_py_any(py),
        },
        Happening::Device(event) => match event {
            DeviceEvent::Connected(session) => ("Connected", &session.server).into_bound_py_any(py),
            DeviceEvent::Disconnected(why) => {
                ("Disconnected", &why.reason, why.retry_in.as_secs_f64()).into_bound_py_any(py)
            }
            DeviceEvent::WaitingForClock => ("WaitingForClock",).into_bound_py_any(py),
            DeviceEvent::Refused(error) => ("HubRefused", error.to_string()).into_bound_py_any(py),
            other => ("Warned", format!("{other:?}")).into_bound_py_any(py),
        },
        Happening::Line {
            level,
            target,
            text,
        } => ("Line", level, target, text).into_bound_py_any(py),
    };
    Ok(made?.cast_into::<PyTuple>()?)
}
