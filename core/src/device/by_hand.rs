//! The driver and the pipeline without their threads, for a test that says what happens when.

use super::driver::Driver;
use super::pipeline::Worker;
use super::shared::{Shared, Slot};
use super::{Answer, Builder};
use crate::engine::{Input, Output, Status};
use crate::update::{Failure, Record};
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

type Watcher = Box<dyn FnMut(Option<&Record>)>;

thread_local!(static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) });

thread_local!(static PERFORM: RefCell<Option<Box<dyn Fn() -> bool>>> = const { RefCell::new(None) });

/// From now on this one performs the next output where this thread's worker waits for that; its answer
/// is whether there was one.
pub(crate) fn performing_by(perform: Option<Box<dyn Fn() -> bool>>) {
    PERFORM.set(perform);
}

/// What waits is performed, where a test does that by hand.
pub(super) fn perform_all() {
    PERFORM.with_borrow(|perform| {
        if let Some(perform) = perform {
            while perform() {}
        }
    });
}

/// From now on this one is told by this thread's driver: of a record that it is about to save, and with
/// nothing that it is saved.
pub(crate) fn watch(watcher: Option<Watcher>) {
    WATCHER.set(watcher);
}

pub(super) fn saving(record: Option<&Record>) {
    WATCHER.with_borrow_mut(|watcher| {
        if let Some(watcher) = watcher {
            watcher(record);
        }
    });
}

/// A process that runs an updater.
pub(crate) struct ByHand {
    pub(crate) hands: Hands,
    worker: Worker,
}

/// What performs the engine's outputs: also while the worker works.
#[derive(Clone)]
pub(crate) struct Hands {
    shared: Arc<Shared>,
    driver: Rc<RefCell<Driver>>,
}

impl ByHand {
    /// As [`Builder::start`], with what is different at each start given.
    pub(crate) fn start(builder: Builder, seed: u64, boot_id: String) -> Result<Self, Failure> {
        let (mut driver, worker) = Driver::new(builder, seed, boot_id)?;
        driver.save_first();
        let hands = Hands {
            shared: driver.shared(),
            driver: Rc::new(RefCell::new(driver)),
        };
        Ok(Self { hands, worker })
    }

    /// Lets the pipeline do what it has to do; `false` where that is nothing.
    pub(crate) fn work(&mut self) -> bool {
        self.worker.work()
    }
}

impl Hands {
    /// The next output to perform.
    pub(crate) fn next(&self) -> Option<Output> {
        self.shared.lock().outputs.pop_front()
    }

    pub(crate) fn perform(&self, output: Output) {
        self.driver.borrow_mut().perform(output);
    }

    pub(crate) fn input(&self, input: Input<'_>) {
        self.shared.input(input);
    }

    pub(crate) fn method(
        &self,
        name: &str,
        payload: &[u8],
        then: impl FnOnce(Answer) + Send + 'static,
    ) {
        let slot = Slot::Then(Box::new(then));
        assert!(self.shared.method_then(name, payload, slot));
    }

    /// When something is to be done at the latest, from the process's start on.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        self.shared.lock().engine.wake_at()
    }

    pub(crate) fn status(&self) -> Status {
        self.shared.status()
    }
}
