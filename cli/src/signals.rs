//! Ctrl-C and the end a supervisor asks for.

use crate::error::Error;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{process, thread};

/// Calls `stop` with the signal on the first SIGINT or SIGTERM, on a thread of its own. A second one
/// ends the process at once, whatever `stop` waits for.
pub(crate) fn on_stop(stop: impl FnOnce(i32) + Send + 'static) -> Result<(), Error> {
    let failed = |error| Error::new(format_args!("cannot watch for Ctrl-C: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut signals = signals.forever();
            if let Some(signal) = signals.next() {
                let stopping = thread::Builder::new().spawn(move || stop(signal));
                if stopping.is_err() {
                    process::exit(128 + signal);
                }
            }
            if let Some(signal) = signals.next() {
                process::exit(128 + signal);
            }
        })
        .map_err(failed)?;
    Ok(())
}
