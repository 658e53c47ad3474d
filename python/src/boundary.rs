//! The border to Python: how is waited, who must not wait, what a fork leaves, and errors.

use crate::lines;
use engine::update::{Code, Failure};
use pyo3::{exceptions::PyValueError, prelude::*, sync::PyOnceLock};
use std::{
    cell::Cell,
    process,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// So often signals are looked at while something is waited for.
const SLICE: Duration = Duration::from_millis(100);

/// An error of the Python layer's, of the class the code stands for.
pub(crate) fn error(py: Python<'_>, failure: &Failure) -> PyErr {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = MAKE
        .import(py, "twinflash._errors", "error_of")
        .and_then(|make| make.call1((failure.code.as_str(), &failure.message)));
    match made {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Calls that use the interpreter from within Rust: they must have ended before it does, because a
/// thread that comes back from Rust to an interpreter that is gone is ended in the middle.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Counts one of them while it lives.
struct Call;

impl Call {
    fn new() -> Self {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let fewer = |calls: usize| Some(calls.saturating_sub(1));
        let _ = CALLS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer);
    }
}

/// Waits until no thread is in Rust any more that would come back; says whether that is so.
#[pyfunction]
pub(crate) fn quiesce(py: Python<'_>, timeout: f64) -> PyResult<bool> {
    let deadline = Instant::now() + duration(timeout)?;
    lines::end();
    Ok(py.detach(|| {
        while CALLS.load(Ordering::SeqCst) > 0 {
            if Instant::now() > deadline {
                return false;
            }
            // At exit, for milliseconds: no lock, which a fork might leave locked.
            thread::sleep(Duration::from_millis(1));
        }
        true
    }))
}

/// In a process that was forked off, the threads that would have ended their calls are not there.
#[pyfunction]
pub(crate) fn after_fork() {
    CALLS.store(0, Ordering::SeqCst);
}

/// Waits without the interpreter, in slices between which signals are looked at: Ctrl-C ends every
/// wait. `step` waits for as long as it is told; `None` is to be asked again.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    timeout: Option<f64>,
    mut step: impl FnMut(Duration) -> Option<T> + Send,
) -> PyResult<Option<T>> {
    let _call = Call::new();
    let timeout = timeout.map(duration).transpose()?;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        if let Some(found) = py.detach(|| step(slice)) {
            return Ok(Some(found));
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= slice) {
            return Ok(None);
        }
    }
}

/// Does what may take long and cannot be told to stop, such as a command, on a thread of its own: Ctrl-C
/// does not wait for it. What then comes of it is dropped.
pub(crate) fn apart<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> PyResult<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let named = thread::Builder::new().name("twinflash start".into());
    let done = match named.spawn(move || drop(sender.send(work()))) {
        Ok(_) => wait(py, None, move |slice| match receiver.recv_timeout(slice) {
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            done => Some(done.ok()),
        })?
        .flatten(),
        Err(why) => {
            let text = format_args!("a thread cannot be started: {why}");
            Some(Err(Failure::new(Code::State, text)))
        }
    };
    done.unwrap_or_else(|| {
        Err(Failure::new(
            Code::State,
            "the thread that starts it failed",
        ))
    })
    .map_err(|failure| error(py, &failure))
}

/// What is no time is the Python layer's mistake.
pub(crate) fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!(
            "timeout is {seconds}; it must be seconds from 0 on"
        ))
    })
}

thread_local! {
    /// This thread is in a callback of the application's, which an updater or a connection waits for.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Calls the application from a thread of ours; `None` where the interpreter is ending.
pub(crate) fn callback<T>(call: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let _call = Call::new();
    let before = IN_CALLBACK.replace(true);
    let result = Python::try_attach(call);
    IN_CALLBACK.set(before);
    result
}

/// Refuses what would wait for the very thread it is called on.
pub(crate) fn not_in_callback(py: Python<'_>, what: &str) -> PyResult<()> {
    match IN_CALLBACK.get() {
        false => Ok(()),
        true => Err(error(
            py,
            &Failure::new(
                Code::State,
                format_args!(
                    "{what} was called by an installer, on_restart or on_method; it would wait for the very thread that called them: call it on another thread"
                ),
            ),
        )),
    }
}

/// Something with threads of its own. In a process that was forked off they are not there: it is
/// refused there, and never dropped, because dropping waits for them and tells the hub good-bye on the
/// parent's connection.
pub(crate) struct Owned<T> {
    /// `None` only where it was leaked.
    value: Option<T>,
    process: u32,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Some(value),
            process: process::id(),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.process == process::id()
    }

    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        match &self.value {
            Some(value) if self.is_ours() => Ok(value),
            _ => Err(error(
                py,
                &Failure::new(
                    Code::State,
                    format_args!(
                        "this process was forked off from process {}, which has the updater: make one after the fork, or use multiprocessing's \"spawn\"",
                        self.process
                    ),
                ),
            )),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.is_ours() {
            std::mem::forget(self.value.take());
        }
    }
}
