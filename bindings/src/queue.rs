//! What waits to be fetched, with a descriptor that can be waited for.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The most that waits; then the oldest goes.
const MOST: usize = 1000;

pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// Has a byte to read while something waits.
    readable: UnixStream,
    writable: UnixStream,
}

struct State<T> {
    waiting: VecDeque<T>,
    closed: bool,
    /// The byte is there.
    marked: bool,
}

/// Why there is nothing.
pub(crate) enum Nothing {
    Yet,
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> io::Result<Self> {
        let (readable, writable) = UnixStream::pair()?;
        readable.set_nonblocking(true)?;
        writable.set_nonblocking(true)?;
        Ok(Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                closed: false,
                marked: false,
            }),
            changed: Condvar::new(),
            readable,
            writable,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, state: &mut State<T>) {
        if !state.marked {
            // One byte always fits: the last one was read.
            state.marked = (&self.writable).write(&[1]).is_ok();
        }
        self.changed.notify_all();
    }

    pub(crate) fn push(&self, item: T) {
        let mut state = self.lock();
        if state.waiting.len() >= MOST {
            state.waiting.pop_front();
        }
        state.waiting.push_back(item);
        self.mark(&mut state);
    }

    /// Nothing more comes; the descriptor stays readable.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.mark(&mut state);
    }

    pub(crate) fn next(&self, timeout: Duration) -> Result<T, Nothing> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if let Some(item) = state.waiting.pop_front() {
                self.unmark(&mut state);
                return Ok(item);
            }
            if state.closed {
                return Err(Nothing::Closed);
            }
            let left = deadline.map_or(timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(Nothing::Yet);
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn unmark(&self, state: &mut State<T>) {
        if state.marked && state.waiting.is_empty() && !state.closed {
            let mut byte = [0];
            let _ = (&self.readable).read(&mut byte);
            state.marked = false;
        }
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.readable.as_raw_fd()
    }
}
