//! Lets a test see each step of a thread, make it fail, and end the thread's work there.

use super::Step;
use std::{cell::RefCell, io};

/// Who is told of a thread's steps.
pub(crate) trait Observer {
    /// A step is about to be done. An error is what comes of it; then it is not done.
    fn before(&mut self, step: Step<'_>) -> io::Result<()>;
    /// It is done.
    fn after(&mut self, step: Step<'_>);
}

thread_local!(static OBSERVER: RefCell<Option<Box<dyn Observer>>> = const { RefCell::new(None) });

/// From now on this one is told of this thread's steps.
pub(crate) fn by(observer: Option<Box<dyn Observer>>) {
    OBSERVER.set(observer);
}

pub(super) fn around<T>(step: Step<'_>, perform: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    OBSERVER.with_borrow_mut(|observer| match observer {
        Some(observer) => observer.before(step),
        None => Ok(()),
    })?;
    let result = perform()?;
    OBSERVER.with_borrow_mut(|observer| {
        if let Some(observer) = observer {
            observer.after(step);
        }
    });
    Ok(result)
}
