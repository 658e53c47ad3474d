//! The server: what it answers, and what breaks.

use super::super::case::{Course, NetworkFault};
use super::super::{device, note};
use super::{CHUNK, CHUNK_TIME, Outside, Shared, meanwhile, named};
use crate::device::by_hand::Hands;
use crate::download::{Event, Gone, Head, Request, Wire};
use crate::update::{Code, Failure, Retry, Stage};
use std::{rc::Rc, time::Duration};
use ureq::http::{HeaderMap, StatusCode, header};

/// A request to the server.
pub(in super::super) struct Line {
    outside: Shared,
    hands: Hands,
    image: Vec<u8>,
    shown: String,
    range: Option<(u64, Option<String>)>,
    /// The next byte; `None` before the answer.
    at: Option<usize>,
    end: usize,
    silent: bool,
    over: bool,
}

impl Line {
    pub(in super::super) fn open(outside: &Shared, hands: &Hands, request: Request) -> Self {
        let from = request.range.as_ref().map_or(0, |(from, _)| *from);
        let mut out = outside.borrow_mut();
        note(|| format!("  GET {} {:?}", request.uri, request.range));
        let saved = match &out.checkpoint {
            Some((uri, at)) if *uri == request.uri => *at,
            _ => 0,
        };
        if !out.unsteady && !out.disk_failed && from < saved {
            let why = format!("byte {from} is asked for; what is before {saved} is there");
            out.complain(why);
        }
        let name = request.uri.rsplit('/').next().unwrap_or_default();
        let image = out.served(name);
        out.begins(Stage::Download, named(name).1);
        drop(out);
        Self {
            outside: Rc::clone(outside),
            hands: hands.clone(),
            end: image.len(),
            image,
            shown: request.uri,
            range: request.range,
            at: None,
            silent: false,
            over: false,
        }
    }

    fn failed(&mut self) -> Event {
        self.over = true;
        let text = format!("cannot download {}: the connection broke off", self.shown);
        Event::Failed(Failure::new(Code::Network, text), Retry::Resume(None))
    }

    fn head(&mut self, outside: &mut Outside) -> Event {
        let not_found = outside.case.course == Course::NotFound && self.shown.ends_with("/new");
        let fault = match not_found {
            true => Some(NetworkFault::Status(404)),
            // A range that is none was not asked for.
            false => outside
                .answer
                .take()
                .filter(|fault| *fault != NetworkFault::Status(416) || self.range.is_some()),
        };
        let mut headers = HeaderMap::new();
        if let (Some(validator), false) =
            (&outside.validator, fault == Some(NetworkFault::NoValidator))
        {
            headers.insert(header::ETAG, validator.parse().unwrap());
        }
        let total = match fault {
            Some(NetworkFault::OtherSize) => self.image.len() + 1,
            _ => self.image.len(),
        };
        // RFC 9110 section 13.1.5: the range counts only where the validator is still the one.
        let range = self.range.as_ref().filter(|(_, validator)| {
            fault != Some(NetworkFault::Whole)
                && (validator.is_none() || *validator == outside.validator)
        });
        let status = match (fault, range) {
            (Some(NetworkFault::Status(status)), _) => {
                self.end = 0;
                status
            }
            (_, Some((from, _))) => {
                let mut from = *from as usize;
                if fault == Some(NetworkFault::Elsewhere) {
                    from -= 1;
                }
                self.at = Some(from);
                let range = format!("bytes {from}-{}/{total}", total - 1);
                headers.insert(header::CONTENT_RANGE, range.parse().unwrap());
                headers.insert(header::CONTENT_LENGTH, (total - from).into());
                206
            }
            (_, None) => {
                headers.insert(header::CONTENT_LENGTH, total.into());
                200
            }
        };
        self.at.get_or_insert(0);
        Event::Head(Head {
            shown: self.shown.clone(),
            status: StatusCode::from_u16(status).unwrap(),
            headers,
        })
    }

    fn event(&mut self, outside: &mut Outside) -> Result<Option<Event>, Gone> {
        match outside.fault() {
            Some(NetworkFault::Silence) => {
                self.silent = true;
                return Ok(None);
            }
            Some(NetworkFault::Gone) => return Err(Gone),
            Some(NetworkFault::Reset) => return Ok(Some(self.failed())),
            Some(NetworkFault::NewValidator) => {
                outside.validator = Some(format!("\"{}\"", outside.events));
                return Ok(Some(self.failed()));
            }
            Some(NetworkFault::NewContent) => {
                outside.replaced += 1;
                outside.validator = Some(format!("\"of {}\"", outside.replaced));
                return Ok(Some(self.failed()));
            }
            Some(NetworkFault::Short) if self.at.is_some() => self.end = 0,
            Some(NetworkFault::Short) => return Ok(Some(self.failed())),
            Some(NetworkFault::Flipped) => outside.flipped = true,
            // It holds for this answer, or for the next one.
            Some(fault) => {
                outside.answer = Some(fault);
                if self.at.is_some() {
                    return Ok(Some(self.failed()));
                }
            }
            None => {}
        }
        let Some(at) = self.at else {
            return Ok(Some(self.head(outside)));
        };
        if at >= self.end {
            self.over = true;
            return Ok(Some(Event::End));
        }
        let length = match outside.case.order {
            0 => CHUNK,
            _ => 1 + outside.random.below(2 * CHUNK),
        };
        let end = (at + length).min(self.end);
        let mut bytes = self.image[at..end].to_vec();
        if std::mem::take(&mut outside.flipped) {
            bytes[0] ^= 4;
        }
        self.at = Some(end);
        if end > self.image.len() / 2 {
            outside.is_in_the_middle();
        }
        let filled = bytes.len();
        Ok(Some(Event::Bytes(bytes, filled)))
    }
}

impl Wire for Line {
    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Gone> {
        meanwhile(&self.outside, &self.hands);
        let outside = Rc::clone(&self.outside);
        let mut outside = outside.borrow_mut();
        if self.over {
            return Err(Gone);
        }
        let wait = if self.silent { wait } else { CHUNK_TIME };
        outside.clock += wait;
        device::set_clocks(outside.clock);
        if self.silent {
            return Ok(None);
        }
        self.event(&mut outside)
    }

    fn give_back(&mut self, _: Vec<u8>) {}
}
