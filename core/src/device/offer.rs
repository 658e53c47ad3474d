//! An updater whose application brings the bytes.

use super::{NotTaken, Response, Updater, Wanted};
use crate::update::{Code, Retry};
use std::time::Duration;

/// Where the application fetches images, with an HTTP client of its own
/// ([`Builder::offered`](super::Builder::offered), or a build without the feature `http`).
///
/// The updater says what it wants; the application asks its server for that, hands over what the server
/// answers, then the bytes, then their end. Everything else is the updater's, as ever: whether there is
/// another attempt, when, from which byte on, checks, limits, stalls. An attempt in which nothing is
/// offered for [`Policy::stall_time`](crate::update::Policy::stall_time) fails as stalled.
///
/// None of these calls waits, but as long as it is told to: a program with one thread calls
/// [`wanted`](Self::wanted) and [`offer`](Self::offer) from its loop.
///
/// ```
/// # use std::time::Duration;
/// # use twinflash::device::{NotTaken, Response, Updater};
/// # use twinflash::update::{Code, Retry};
/// # trait Client { fn get(&self, uri: &str, from: u64, validator: Option<&str>) -> Result<Box<dyn Body>, String>; }
/// # trait Body { fn head(&self) -> Response; fn next(&mut self) -> Result<Option<&[u8]>, String>; }
/// /// Fetches what is wanted, with a client that blocks.
/// fn serve(updater: &Updater, client: &dyn Client) -> Result<(), NotTaken> {
///     let Some(wanted) = updater.next_wanted(Duration::from_secs(60)) else { return Ok(()) };
///     let mut body = match client.get(&wanted.uri, wanted.offset, wanted.validator.as_deref()) {
///         Ok(body) => body,
///         Err(why) => {
///             updater.offer_failed(wanted.id, Code::Network, &why, Retry::Resume(None));
///             return Ok(());
///         }
///     };
///     let response = body.head();
///     let mut at = response.offset;
///     updater.offer_response(wanted.id, response)?;
///     loop {
///         match body.next() {
///             Ok(Some(mut bytes)) => {
///                 while !bytes.is_empty() {
///                     let taken = updater.offer(wanted.id, at, bytes, Duration::from_secs(1))?;
///                     at += taken as u64;
///                     bytes = &bytes[taken..];
///                 }
///             }
///             Ok(None) => updater.offer_end(wanted.id),
///             Err(why) => updater.offer_failed(wanted.id, Code::Network, &why, Retry::Resume(None)),
///         }
/// #       break Ok(());
///     }
/// }
/// ```
impl Updater {
    /// What the application is to fetch now; `None` where that is nothing. An
    /// [`Event::Wanted`](super::Event::Wanted) says when this changes. Always `None` where the updater
    /// fetches by itself.
    pub fn wanted(&self) -> Option<Wanted> {
        self.shared.offers.wanted()
    }

    /// Waits until there is something to fetch that this has not given before; `None` when there was
    /// nothing within `timeout`, or the updater was closed.
    pub fn next_wanted(&self, timeout: Duration) -> Option<Wanted> {
        self.shared.offers.next_wanted(timeout)
    }

    /// What the server answered, once for each wish, before its bytes. A status that brings no bytes ends
    /// the attempt; so does an answer that does not fit, as another size than the request announced: the
    /// next call says [`NotTaken::NotWanted`].
    ///
    /// # Errors
    /// [`NotTaken::NotWanted`]: the wish with this id is no more, or was answered before.
    pub fn offer_response(&self, id: u64, response: Response) -> Result<(), NotTaken> {
        self.shared.offers.begin(id, response)
    }

    /// The next bytes; `offset` is where in the whole the first of them belongs. Answers how many were
    /// taken, from the first on: fewer than there are, or none, where the updater cannot hash and write
    /// them as fast. The others are to be offered again a little later. `timeout` is how long it may
    /// wait for room for the first; zero for not at all.
    ///
    /// # Errors
    /// The bytes were not taken; [`NotTaken`] says why.
    pub fn offer(
        &self,
        id: u64,
        offset: u64,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<usize, NotTaken> {
        self.shared.offers.take(id, offset, bytes, timeout)
    }

    /// The body is at its end. Need not be said where the response told the total and all came. Does
    /// nothing where this wish is no more.
    pub fn offer_end(&self, id: u64) {
        self.shared.offers.end(id);
    }

    /// The bytes could not be fetched, or not to their end: with [`Code::Network`] for a connection
    /// and [`Code::Tls`] for its certificate. `why` goes on from "cannot download …: ". `retry` is whether
    /// another attempt makes sense. Does nothing where this wish is no more.
    pub fn offer_failed(&self, id: u64, code: Code, why: &str, retry: Retry) {
        self.shared.offers.fail(id, code, why, retry);
    }
}
