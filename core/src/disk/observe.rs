//! Lets a test see each step of a thread, make it fail, and end the thread's work there.

use super::Step;
use std::{cell::RefCell, io, rc::Rc};

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

/// The steps of `work`, as they are shown in a message.
pub(crate) fn steps_of(work: impl FnOnce()) -> Vec<String> {
    struct Notes(Rc<RefCell<Vec<String>>>);
    impl Observer for Notes {
        fn before(&mut self, step: Step<'_>) -> io::Result<()> {
            self.0.borrow_mut().push(format!("{step:?}"));
            Ok(())
        }
        fn after(&mut self, _: Step<'_>) {}
    }
    let notes = Rc::default();
    by(Some(Box::new(Notes(Rc::clone(&notes)))));
    work();
    by(None);
    notes.take()
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
