//! The network's side of an attempt: makes the request, follows its redirects, reads the body.
//! Runs on its own thread and touches nothing but its two channels.

use super::failure::{RESUME, from_io, from_ureq};
use crate::update::{Code, Failure, Retry, Scheme, redact, scheme_of};
use fluent_uri::{Uri, UriRef};
use std::{
    io::{ErrorKind, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender},
    },
};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, StatusCode, header},
};

/// The size of a buffer, in bytes; also of the one the HTTP library reads into.
pub(super) const BUFFER: usize = 128 * 1024;
/// How many buffers go round.
pub(super) const BUFFERS: usize = 8;

/// What is asked for.
pub(super) struct Request {
    pub(super) uri: String,
    /// First byte wanted, and the validator the rest must have; `None` is all of it.
    pub(super) range: Option<(u64, Option<String>)>,
    pub(super) https_only: bool,
    pub(super) max_redirects: u32,
}

/// The server's answer, before its body.
pub(super) struct Head {
    /// Who answered, after redirects; may be shown.
    pub(super) shown: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

pub(super) enum Event {
    Head(Head),
    /// A buffer, and how many bytes of it are filled.
    Bytes(Vec<u8>, usize),
    /// The body is at its end, as far as HTTP can tell.
    End,
    Failed(Failure, Retry),
}

/// The way to the device's side.
pub(super) struct Ends {
    pub(super) events: SyncSender<Event>,
    pub(super) empty: Receiver<Vec<u8>>,
    /// Buffers sent and not yet used up.
    pub(super) queued: Arc<AtomicUsize>,
}

/// Runs until the body's end, a failure, or until nobody listens any more.
pub(super) fn run(agent: &Agent, request: Request, ends: &Ends) {
    let last = match open(agent, request) {
        Err((failure, retry)) => Some(Event::Failed(failure, retry)),
        Ok((shown, response)) => {
            let (parts, body) = response.into_parts();
            let head = Head {
                shown: shown.clone(),
                status: parts.status,
                headers: parts.headers,
            };
            match ends.events.send(Event::Head(head)) {
                Ok(()) => read(body, &shown, ends),
                Err(_) => None,
            }
        }
    };
    if let Some(last) = last {
        // Nobody listens: the attempt was stopped.
        let _ = ends.events.send(last);
    }
}

fn read(body: Body, shown: &str, ends: &Ends) -> Option<Event> {
    let mut reader = body.into_reader();
    while let Ok(mut buffer) = ends.empty.recv() {
        let mut filled = 0;
        // TLS gives 16 KiB at most at a time. While the other side is busy, more is put into the same
        // buffer: it saves most of the threads' changes, a sixth of the whole work. Should the server
        // fall silent just then, what is in the buffer is lost: it was not yet durable anyway.
        let last = loop {
            match reader.read(buffer.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break Some(Event::End),
                Ok(more) => filled += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let (failure, _) = from_io(error, shown);
                    // The server had begun to answer: whatever broke off then is worth another try.
                    break Some(Event::Failed(failure, RESUME));
                }
            }
            if filled == buffer.len() || (filled > 0 && ends.queued.load(Ordering::Relaxed) == 0) {
                break None;
            }
        };
        if filled > 0 {
            ends.queued.fetch_add(1, Ordering::Relaxed);
            ends.events.send(Event::Bytes(buffer, filled)).ok()?;
        }
        if last.is_some() {
            return last;
        }
    }
    None
}

/// Asks, and follows redirects: the answer, and who gave it.
fn open(agent: &Agent, request: Request) -> Result<(String, Response<Body>), (Failure, Retry)> {
    let mut uri = request.uri;
    let mut https_only = request.https_only;
    let mut redirects = 0;
    loop {
        https_only |= scheme_of(&uri).map_err(never)? == Scheme::Https;
        let shown = redact(&uri);
        // http's URI has no place for a fragment.
        let address = uri.split('#').next().unwrap_or_default();
        let mut asking = agent.get(address);
        if let Some((from, validator)) = &request.range {
            asking = asking.header(header::RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator {
                asking = asking.header(header::IF_RANGE, validator);
            }
        }
        let response = asking.call().map_err(|error| from_ureq(error, &shown))?;
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok((shown, response));
        }
        redirects += 1;
        let refuse = |why: String| {
            never(Failure::new(
                Code::Redirect,
                format!("cannot download {shown}: {why}"),
            ))
        };
        if redirects > request.max_redirects {
            return Err(refuse(format!(
                "more than {} redirects",
                request.max_redirects
            )));
        }
        let location = response
            .headers()
            .get(header::LOCATION)
            .ok_or_else(|| refuse("the server redirects, but does not say where to".into()))?;
        let location = String::from_utf8_lossy(location.as_bytes());
        let next = resolve(address, &location)
            .ok_or_else(|| refuse(format!("redirected to \"{}\", no URL", redact(&location))))?;
        match scheme_of(&next) {
            Ok(Scheme::Https) => {}
            Ok(Scheme::Http) if !https_only => {}
            Ok(Scheme::Http) => {
                return Err(refuse(format!(
                    "redirected to {}, which is not https",
                    redact(&next)
                )));
            }
            Err(failure) => return Err(refuse(format!("redirected; {}", failure.message))),
        }
        uri = next;
    }
}

fn resolve(base: &str, location: &str) -> Option<String> {
    let location = UriRef::parse(location).ok()?;
    let base = Uri::parse(base).ok()?;
    Some(location.resolve_against(&base).ok()?.into_string())
}

fn never(failure: Failure) -> (Failure, Retry) {
    (failure, Retry::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_relative_to_what_was_asked() {
        let base = "http://h:1/a/b?q";
        for (location, next) in [
            ("c", "http://h:1/a/c"),
            ("/c?x=1", "http://h:1/c?x=1"),
            ("//g/c", "http://g/c"),
            ("https://g/", "https://g/"),
            ("?r", "http://h:1/a/b?r"),
        ] {
            assert_eq!(resolve(base, location).as_deref(), Some(next));
        }
        assert_eq!(resolve(base, "http://h/a b"), None);
    }
}
