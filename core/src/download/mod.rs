//! Fetches one attempt of an image: over HTTP, from the application, or from a file of this device.
//!
//! One attempt is one HTTP request with its redirects. It resumes by a range where that is safe,
//! hands the bytes to an [`Installer`], computes every check on the way, and says when bytes have
//! become durable. Whether and when another attempt follows is decided elsewhere, by the engine.
//!
//! The network is read on a thread of its own, so that a silent server cannot hold up a stop, and
//! receiving overlaps hashing and writing. A fixed set of buffers goes round between the two.
//!
//! A URL's query and user name appear in no message. Nor do they in what the HTTP library underneath,
//! `ureq`, logs up to the level `debug`. At `trace` it logs each request's bytes as it writes them,
//! and there is no way to ask it not to: an application whose log is set to `trace` leaves out the targets
//! `ureq` and `ureq_proto`, as in `RUST_LOG=trace,ureq=debug,ureq_proto=debug`.
//!
//! Without the feature `http` there is no HTTP client: the application brings the bytes, see
//! [`Updater::wanted`](crate::device::Updater::wanted).
//!
//! ```no_run
//! # #[cfg(feature = "http")] mod of_http {
//! use twinflash::download::{Downloader, HttpOptions, Stop};
//! # fn run(job: &twinflash::update::Job, installer: &mut dyn twinflash::install::Installer)
//! # -> Result<(), twinflash::update::Failure> {
//! let downloader = Downloader::new(HttpOptions::default())?;
//! let ended = downloader.fetch(job, installer, Default::default(), &Stop::new(), &mut |progress| {
//!     println!("{progress:?}");
//! });
//! # Ok(()) } }
//! ```

mod attempt;
mod decrypt;
mod file;
#[cfg(feature = "http")]
mod http;
mod manifest;
mod offer;
mod pace;
mod sink;
mod unpack;
mod wire;

pub use file::local_uri;
#[cfg(feature = "http")]
pub use http::{HttpOptions, Proxy};
pub(crate) use offer::Offers;
pub use offer::{NotTaken, Response, Wanted};
#[cfg(all(test, feature = "http"))]
pub(crate) use {
    http::Head,
    wire::{Event, Gone, Request, Wire, simulated},
};

#[cfg(feature = "http")]
use crate::update::Failure;
use crate::{
    install::{ImageInfo, Installer},
    update::{Ended, Job, Progress, answer},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Tells a running attempt to stop. Cloned and used from any thread; once stopped, it stays so.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not yet stopped.
    pub fn new() -> Self {
        Self::default()
    }

    /// The attempt ends within a tenth of a second, and the time the installer's `write` and `sync`
    /// take.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Where bytes come from, but for images on this device.
#[derive(Clone)]
pub(crate) enum Source {
    /// A server.
    #[cfg(feature = "http")]
    Http(Box<http::Http>),
    /// The application.
    Offers(Offers),
}

/// Fetches images. Cheap to keep; holds no connection between attempts.
#[derive(Clone)]
pub struct Downloader {
    source: Source,
    keys: decrypt::Keys,
}

impl Downloader {
    /// Makes ready; nothing is connected yet.
    ///
    /// # Errors
    /// [`Code::Tls`](crate::update::Code::Tls): the certificate authorities cannot be used.
    /// [`Code::InvalidUri`](crate::update::Code::InvalidUri): the proxy's URL.
    /// [`Code::InvalidRequest`](crate::update::Code::InvalidRequest): the user agent is no header value.
    /// [`Code::InvalidConfig`](crate::update::Code::InvalidConfig): a host or a header is none.
    #[cfg(feature = "http")]
    pub fn new(options: HttpOptions) -> Result<Self, Failure> {
        Ok(Self {
            source: Source::Http(Box::new(http::prepare(options)?)),
            keys: Default::default(),
        })
    }

    /// The application brings the bytes.
    pub(crate) fn of_offers(offers: Offers) -> Self {
        Self {
            source: Source::Offers(offers),
            keys: Default::default(),
        }
    }

    /// Decrypts encrypted images with these.
    #[cfg(feature = "encryption")]
    pub fn decrypting(mut self, identities: crate::age::Identities) -> Self {
        self.keys = decrypt::Keys(Some(identities));
        self
    }

    /// Makes one attempt at fetching an image, and returns when it ended. Blocks; `on` and the
    /// installer are called on this thread.
    ///
    /// `image` is what [`Installer::begin`] is told; the size is filled in when the server says it.
    /// The installer is written, synced, and left there: [`Installer::finish`] or
    /// [`Installer::abort`] is the caller's, as is comparing the digests with the request's checks.
    pub fn fetch(
        &self,
        job: &Job,
        installer: &mut dyn Installer,
        image: ImageInfo,
        stop: &Stop,
        on: &mut dyn FnMut(Progress),
    ) -> Ended {
        attempt::run((&self.source, &self.keys), job, installer, image, stop, on)
    }

    /// Makes one attempt at fetching a manifest: a text of at most [`Job::max_size`] bytes, with no
    /// resume. Blocks; ends with [`Ended::Manifest`], or as [`fetch`](Self::fetch) does.
    pub fn fetch_manifest(&self, job: &Job, stop: &Stop) -> Ended {
        manifest::run(&self.source, job, stop)
    }
}

impl fmt::Debug for Downloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downloader").finish_non_exhaustive()
    }
}
