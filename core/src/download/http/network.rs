//! The network's side of an attempt: makes the request, follows its redirects, reads the body.
//! Runs on its own thread and touches nothing but its two channels.

use super::{
    Rules,
    failure::{from_io, from_ureq},
};
use crate::download::{
    answer::{RESUME, failure},
    wire::{Event, Request},
};
use crate::update::{Code, Failure, Retry, Scheme, redact, scheme_of};
use fluent_uri::{Uri, UriRef};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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

/// The server's answer, before its body.
pub(crate) struct Head {
    /// Who answered, after redirects; may be shown.
    pub(crate) shown: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// So many bytes at most are put into a buffer that is on its way already: copying more would cost more
/// than an event of their own.
const FEW: usize = 32 * 1024;

/// Filled buffers on their way, and how many bytes of each are filled. One that was not yet taken may
/// get more: TLS gives 16 KiB at a time, and an event for each would cost a sixth of all work.
pub(super) type Queue = Mutex<VecDeque<(Vec<u8>, usize)>>;

/// The way to the device's side.
pub(super) struct Ends {
    /// `None` for each buffer in the queue.
    pub(super) events: SyncSender<Option<Event>>,
    pub(super) queue: Arc<Queue>,
    pub(super) empty: Receiver<Vec<u8>>,
}

/// Runs until the body's end, a failure, or until nobody listens any more.
pub(super) fn run(agent: &Agent, rules: &Rules, request: Request, ends: &Ends) {
    let last = match open(agent, rules, request) {
        Err((failure, retry)) => Some(Event::Failed(failure, retry)),
        Ok((shown, response)) => {
            let (parts, body) = response.into_parts();
            let head = Head {
                shown: shown.clone(),
                status: parts.status,
                headers: parts.headers,
            };
            match ends.events.send(Some(Event::Head(head))) {
                Ok(()) => read(body, &shown, ends),
                Err(_) => None,
            }
        }
    };
    if last.is_some() {
        // Nobody listens: the attempt was stopped.
        let _ = ends.events.send(last);
    }
}

fn read(body: Body, shown: &str, ends: &Ends) -> Option<Event> {
    let mut reader = body.into_reader();
    let mut buffer = ends.empty.recv().ok()?;
    loop {
        let filled = match reader.read(&mut buffer) {
            Ok(0) => return Some(Event::End),
            Ok(filled) => filled,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                let (failure, _) = from_io(error, shown);
                // The server had begun to answer: whatever broke off then is worth another try.
                return Some(Event::Failed(failure, RESUME));
            }
        };
        if filled > FEW || !append(&ends.queue, buffer.get(..filled).unwrap_or_default()) {
            lock(&ends.queue).push_back((buffer, filled));
            ends.events.send(None).ok()?;
            buffer = ends.empty.recv().ok()?;
        }
    }
}

/// Puts bytes into the last buffer on its way, if there is room.
fn append(queue: &Queue, bytes: &[u8]) -> bool {
    let mut queue = lock(queue);
    let Some((buffer, filled)) = queue.back_mut() else {
        return false;
    };
    let Some(room) = buffer.get_mut(*filled..*filled + bytes.len()) else {
        return false;
    };
    room.copy_from_slice(bytes);
    *filled += bytes.len();
    true
}

pub(super) fn lock(queue: &Queue) -> MutexGuard<'_, VecDeque<(Vec<u8>, usize)>> {
    // Nothing panics while it is held.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks, and follows redirects: the answer, and who gave it.
fn open(
    agent: &Agent,
    rules: &Rules,
    request: Request,
) -> Result<(String, Response<Body>), (Failure, Retry)> {
    let mut uri = request.uri;
    let mut https_only = request.https_only;
    let mut redirects = 0;
    let first = origin(&uri);
    loop {
        https_only |= scheme_of(&uri).map_err(never)? == Scheme::Https;
        let shown = redact(&uri);
        // http's URI has no place for a fragment.
        let address = uri.split('#').next().unwrap_or_default();
        let mut asking = agent.get(address);
        if origin(&uri) == first {
            // What the owner has given for one server is not for the one it redirects to.
            for (name, value) in &rules.headers {
                asking = asking.header(name, value);
            }
        }
        if let Some((from, validator)) = &request.range {
            asking = asking.header(header::RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator {
                asking = asking.header(header::IF_RANGE, validator);
            }
        }
        let host = host_of(&uri);
        if !rules.allow(host.unwrap_or_default()) {
            let why = format!(
                "the host {} is not among those that are allowed here",
                host.unwrap_or_default()
            );
            let code = if redirects == 0 {
                Code::InvalidUri
            } else {
                Code::Redirect
            };
            return Err(never(failure(code, &shown, &why)));
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

fn host_of(uri: &str) -> Option<&str> {
    Some(Uri::parse(uri).ok()?.authority()?.host())
}

/// Scheme, host and port: whom headers are for.
fn origin(uri: &str) -> Option<(String, String, String)> {
    let uri = Uri::parse(uri).ok()?;
    let scheme = uri.scheme().as_str().to_ascii_lowercase();
    let authority = uri.authority()?;
    let port = match authority.port() {
        Some(port) if !port.as_str().is_empty() => port.as_str(),
        _ if scheme == "https" => "443",
        _ => "80",
    };
    let (host, port) = (authority.host().to_ascii_lowercase(), port.to_owned());
    Some((scheme, host, port))
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
