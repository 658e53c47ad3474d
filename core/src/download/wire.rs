//! The device's end of a request under way, whoever brings the bytes.

use super::{
    Source,
    answer::Answer,
    file::{LocalFile, local_path},
};
#[cfg(feature = "http")]
use super::{
    answer::RESUME,
    http::{Head, Threaded},
};
#[cfg(feature = "http")]
use crate::update::Code;
use crate::update::{Failure, Retry};
use std::time::Duration;

/// What is asked for.
pub(crate) struct Request {
    pub(crate) uri: String,
    /// First byte wanted, and the validator the rest must have; `None` is all of it.
    pub(crate) range: Option<(u64, Option<String>)>,
    pub(crate) https_only: bool,
    pub(crate) max_redirects: u32,
    /// No buffer need be longer than this, in bytes.
    #[cfg_attr(not(feature = "http"), expect(dead_code))]
    pub(crate) longest: usize,
    /// It is not an image that is asked for, but the manifest beside one.
    pub(crate) manifest: bool,
}

pub(crate) enum Event {
    /// A server's answer, which is to be judged.
    #[cfg(feature = "http")]
    Head(Head),
    /// An answer of a source that speaks no HTTP.
    Begins(Answer),
    /// A buffer, and how many bytes of it are filled.
    Bytes(Vec<u8>, usize),
    /// The body is at its end, as far as HTTP can tell.
    End,
    Failed(Failure, Retry),
}

/// A request under way. Dropping it ends the request.
pub(crate) trait Wire {
    /// The next event; `None` if there was none in this time. The error is that there will never be
    /// one, though the last one was not the end.
    fn next(&mut self, wait: Duration) -> Result<Option<Event>, Gone>;

    /// A buffer whose bytes were taken.
    fn give_back(&mut self, buffer: Vec<u8>);
}

/// Makes a request. The address is one of those that this source may be asked for.
pub(super) fn open(source: &Source, request: Request) -> Result<Box<dyn Wire>, (Failure, Retry)> {
    #[cfg(all(test, feature = "http"))]
    let request = match simulated::open(request) {
        Ok(wire) => return Ok(wire),
        Err(request) => request,
    };
    let never = |failure| (failure, Retry::Never);
    if let Some(path) = local_path(&request.uri).map_err(never)? {
        let file = LocalFile::open(&path, request).map_err(never)?;
        return Ok(Box::new(file));
    }
    match source {
        #[cfg(feature = "http")]
        Source::Http(http) => {
            let threaded = Threaded::open(http, request).map_err(|error| {
                let why = format!("cannot start a thread for the download: {error}");
                (Failure::new(Code::Network, why), RESUME)
            })?;
            Ok(Box::new(threaded))
        }
        Source::Offers(offers) => Ok(Box::new(offers.open(request))),
    }
}

/// The other side has gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// A network that a test makes, for its own thread.
#[cfg(all(test, feature = "http"))]
pub(crate) mod simulated {
    use super::{Request, Wire};
    use std::cell::RefCell;

    type Network = Box<dyn FnMut(Request) -> Box<dyn Wire>>;

    thread_local!(static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) });

    /// From now on this one takes this thread's requests.
    pub(crate) fn by(network: Option<Network>) {
        NETWORK.set(network);
    }

    pub(super) fn open(request: Request) -> Result<Box<dyn Wire>, Request> {
        NETWORK.with_borrow_mut(|network| match network {
            Some(network) => Ok(network(request)),
            None => Err(request),
        })
    }
}
