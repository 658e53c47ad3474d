//! Bytes that the application brings, from an HTTP client of its own.

use super::{
    answer::{Answer, RESUME, failure, refused, strong_validator},
    wire::{Event, Gone, Request, Wire},
};
use crate::update::{Code, Retry, redact};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// The size of a buffer, in bytes, and how many there are at most.
const BUFFER: usize = 64 * 1024;
const BUFFERS: usize = 4;

/// What the application is to fetch: see [`Updater::wanted`](crate::device::Updater::wanted).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wanted {
    /// Names this wish in every offer; each attempt has another one.
    pub id: u64,
    /// What is to be fetched. Its query may hold a secret: show [`redact`] of it only.
    pub uri: String,
    /// The first byte that is wanted. Where it is not 0, ask for `Range: bytes=<offset>-`…
    pub offset: u64,
    /// …and, where this is given, with `If-Range: <validator>`.
    pub validator: Option<String>,
    /// It is not an image, but the manifest beside one: a short text.
    pub manifest: bool,
    /// Neither the address nor a redirect may be `http:`.
    pub https_only: bool,
    /// Follow at most so many redirects.
    pub max_redirects: u32,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("id", &self.id)
            .field("uri", &redact(&self.uri))
            .field("offset", &self.offset)
            .field("manifest", &self.manifest)
            .finish_non_exhaustive()
    }
}

/// What a server answered to the application, before its body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status: 200, or 206 where a part was asked for and came. Any other ends the attempt; the
    /// engine decides whether there is another. Where the bytes come by something else than HTTP, 200.
    pub status: u16,
    /// Where in the whole the first byte belongs that is offered now: `Content-Range`'s first byte with
    /// 206, else 0.
    pub offset: u64,
    /// The size of the whole in bytes, if it is known: `Content-Length` with 200, what comes after the
    /// slash of `Content-Range` with 206.
    pub total: Option<u64>,
    /// The `ETag`, as it came. It makes a later attempt go on where this one ends.
    pub validator: Option<String>,
    /// `Retry-After`, with a status such as 503.
    pub retry_after: Option<Duration>,
}

impl Response {
    /// This status, all from the first byte on, nothing else known.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            offset: 0,
            total: None,
            validator: None,
            retry_after: None,
        }
    }

    /// With this first byte.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// With this size of the whole.
    pub fn total(mut self, total: u64) -> Self {
        self.total = Some(total);
        self
    }

    /// With this `ETag`.
    pub fn validator(mut self, validator: impl Into<String>) -> Self {
        self.validator = Some(validator.into());
        self
    }

    /// With this `Retry-After`.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

/// Why bytes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotTaken {
    /// This is not wanted, or no longer: the attempt has failed or was stopped. End the request, and look
    /// what is wanted now.
    NotWanted,
    /// The server's answer was not handed over yet.
    NoResponse,
    /// The bytes are not the next ones.
    OutOfPlace {
        /// The byte that comes next.
        next: u64,
    },
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWanted => f.write_str("these bytes are not wanted, or no longer"),
            Self::NoResponse => f.write_str("the server's answer must be handed over before bytes"),
            Self::OutOfPlace { next } => write!(f, "byte {next} comes next, not these"),
        }
    }
}

impl std::error::Error for NotTaken {}

/// What the application and the attempt under way share.
#[derive(Clone, Default)]
pub(crate) struct Offers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    /// Bytes or room have come, or what is wanted has changed.
    changed: Condvar,
    on_wanted: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    wanted: Option<Wanted>,
    /// What the last [`Offers::next_wanted`] gave.
    told: u64,
    closed: bool,
    /// The next byte, once there is an answer.
    next: Option<u64>,
    total: Option<u64>,
    /// What the attempt has not taken yet: an answer, bytes, an end, in this order.
    answer: Option<Event>,
    bytes: VecDeque<(Vec<u8>, usize)>,
    end: Option<Event>,
    /// Buffers that go round, and how many there are.
    empty: Vec<Vec<u8>>,
    buffers: usize,
}

impl Offers {
    /// Called, on the pipeline's thread, whenever something else is wanted.
    pub(crate) fn on_wanted(&self, tell: impl Fn() + Send + Sync + 'static) {
        // It is set once, before anything is wanted.
        let _ = self.0.on_wanted.set(Box::new(tell));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a while for a change.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, wait: Duration) -> MutexGuard<'a, State> {
        let waited = self.0.changed.wait_timeout(state, wait);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn open(&self, request: Request) -> Offered {
        let (offset, validator) = request.range.unwrap_or_default();
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.wanted = Some(Wanted {
            id,
            uri: request.uri.clone(),
            offset,
            validator,
            manifest: request.manifest,
            https_only: request.https_only,
            max_redirects: request.max_redirects,
        });
        drop(state);
        self.0.changed.notify_all();
        self.tell();
        Offered(self.clone())
    }

    fn tell(&self) {
        if let Some(tell) = self.0.on_wanted.get() {
            tell();
        }
    }

    /// What is wanted now.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        self.lock().wanted.clone()
    }

    /// Waits for something that this has not given before.
    pub(crate) fn next_wanted(&self, timeout: Duration) -> Option<Wanted> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            let told = state.told;
            if let Some(wanted) = state.wanted.clone().filter(|wanted| wanted.id != told) {
                state.told = wanted.id;
                return Some(wanted);
            }
            if state.closed {
                return None;
            }
            state = self.wait(state, left(deadline)?);
        }
    }

    /// Nothing is wanted any more, for good.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// The answer to a wish has come.
    pub(crate) fn begin(&self, id: u64, response: Response) -> Result<(), NotTaken> {
        let mut state = self.lock();
        let wanted = state.current(id)?;
        let shown = redact(&wanted.uri);
        let resumed = wanted.offset > 0;
        if state.next.is_some() {
            // Said once; the bytes that came since belong to it.
            return Err(NotTaken::NotWanted);
        }
        let event = match response.status {
            200 | 206 => Event::Begins(Answer {
                offset: response.offset,
                total: response.total,
                validator: response.validator.as_deref().and_then(strong_validator),
                until_close: response.total.is_none(),
            }),
            status => {
                let wait = response.retry_after;
                let (failure, retry) = refused(&shown, status, &status.to_string(), resumed, wait);
                Event::Failed(failure, retry)
            }
        };
        state.answer = Some(event);
        state.next = Some(response.offset);
        state.total = response.total;
        state.end_if_all();
        drop(state);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Takes as many of these bytes as there is room for; waits for room for the first so long.
    pub(crate) fn take(
        &self,
        id: u64,
        offset: u64,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<usize, NotTaken> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            state.current(id)?;
            let next = state.next.ok_or(NotTaken::NoResponse)?;
            if offset != next {
                return Err(NotTaken::OutOfPlace { next });
            }
            let taken = state.fill(bytes);
            if taken > 0 || bytes.is_empty() {
                state.end_if_all();
                drop(state);
                self.0.changed.notify_all();
                return Ok(taken);
            }
            match left(deadline) {
                Some(left) if !left.is_zero() => state = self.wait(state, left),
                _ => return Ok(0),
            }
        }
    }

    /// The body is at its end.
    pub(crate) fn end(&self, id: u64) {
        self.finish(id, |state, wanted| match state.next {
            Some(_) => Event::End,
            None => {
                let why = "the connection ended before an answer came";
                Event::Failed(failure(Code::Network, &redact(&wanted.uri), why), RESUME)
            }
        });
    }

    /// There are no more bytes to come, but not because all have.
    pub(crate) fn fail(&self, id: u64, code: Code, why: &str, retry: Retry) {
        self.finish(id, |_, wanted| {
            let shown = redact(&wanted.uri);
            // Clients like to quote the address they failed at.
            let mut why = why.replace(&wanted.uri, &shown);
            if let Some((_, query)) = wanted
                .uri
                .split_once('?')
                .filter(|(_, query)| !query.is_empty())
            {
                why = why.replace(query, "...");
            }
            Event::Failed(failure(code, &shown, &why), retry)
        });
    }

    fn finish(&self, id: u64, event: impl FnOnce(&State, &Wanted) -> Event) {
        let mut state = self.lock();
        let Ok(wanted) = state.current(id) else {
            return;
        };
        let event = event(&state, wanted);
        if state.end.is_none() {
            state.end = Some(event);
        }
        drop(state);
        self.0.changed.notify_all();
    }
}

impl State {
    fn current(&self, id: u64) -> Result<&Wanted, NotTaken> {
        let wanted = self
            .wanted
            .as_ref()
            .filter(|wanted| wanted.id == id && !self.closed);
        wanted.ok_or(NotTaken::NotWanted)
    }

    /// A body whose size is known ends by itself.
    fn end_if_all(&mut self) {
        if self.total.is_some() && self.next >= self.total && self.end.is_none() {
            self.end = Some(Event::End);
        }
    }

    fn fill(&mut self, mut bytes: &[u8]) -> usize {
        let mut taken = 0;
        while !bytes.is_empty() {
            if self
                .bytes
                .back()
                .is_none_or(|(_, filled)| *filled == BUFFER)
            {
                let Some(buffer) = self.empty_buffer() else {
                    break;
                };
                self.bytes.push_back((buffer, 0));
            }
            let Some((buffer, filled)) = self.bytes.back_mut() else {
                break;
            };
            let fits = bytes.len().min(BUFFER - *filled);
            let (now, later) = bytes.split_at(fits);
            if let Some(room) = buffer.get_mut(*filled..*filled + fits) {
                room.copy_from_slice(now);
            }
            *filled += fits;
            taken += fits;
            bytes = later;
        }
        self.next = self.next.map(|next| next + taken as u64);
        taken
    }

    fn empty_buffer(&mut self) -> Option<Vec<u8>> {
        if let Some(buffer) = self.empty.pop() {
            return Some(buffer);
        }
        (self.buffers < BUFFERS).then(|| {
            self.buffers += 1;
            vec![0; BUFFER]
        })
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    match deadline {
        Some(deadline) => deadline.checked_duration_since(Instant::now()),
        // Without end.
        None => Some(Duration::from_secs(3600)),
    }
}

/// The attempt's end of a wish.
pub(super) struct Offered(Offers);

impl Wire for Offered {
    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Gone> {
        let mut state = self.0.lock();
        let mut waited = false;
        loop {
            if let Some(answer) = state.answer.take() {
                return Ok(Some(answer));
            }
            if let Some((buffer, filled)) = state.bytes.pop_front() {
                return Ok(Some(Event::Bytes(buffer, filled)));
            }
            if let Some(end) = state.end.take() {
                return Ok(Some(end));
            }
            if waited {
                return Ok(None);
            }
            state = self.0.wait(state, wait);
            waited = true;
        }
    }

    fn give_back(&mut self, buffer: Vec<u8>) {
        self.0.lock().empty.push(buffer);
        self.0.0.changed.notify_all();
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        let (last_id, told, closed) = (state.last_id, state.told, state.closed);
        *state = State {
            last_id,
            told,
            closed,
            ..State::default()
        };
        drop(state);
        self.0.0.changed.notify_all();
        self.0.tell();
    }
}
