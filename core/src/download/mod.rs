//! Fetches one attempt of an image over HTTP.
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
//! ```no_run
//! use twinflash::download::{Downloader, HttpOptions, Stop};
//! # fn run(job: &twinflash::update::Job, installer: &mut dyn twinflash::install::Installer)
//! # -> Result<(), twinflash::update::Failure> {
//! let downloader = Downloader::new(HttpOptions::default())?;
//! let ended = downloader.fetch(job, installer, Default::default(), &Stop::new(), &mut |progress| {
//!     println!("{progress:?}");
//! });
//! # Ok(()) }
//! ```

mod answer;
mod attempt;
mod failure;
mod manifest;
mod network;
mod wire;

#[cfg(test)]
pub(crate) use {
    network::{Event, Head, Request},
    wire::{Gone, Wire, simulated},
};

use crate::{
    install::{ImageInfo, Installer},
    tls::Roots,
    update::{Code, Ended, Failure, Job, Progress},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use ureq::{config::Config, http::HeaderValue};

/// How images are fetched; the same for all downloads of a [`Downloader`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// The certificate authorities a server's certificate must come from.
    pub roots: Roots,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// How long finding the server's address may take, and then again connecting to it, TLS included.
    pub connect_timeout: Duration,
    /// The proxy to go through.
    pub proxy: Proxy,
}

impl Default for HttpOptions {
    /// Mozilla's authorities, `twinflash/<version>`, 20 s, the environment's proxy.
    fn default() -> Self {
        Self {
            roots: Roots::BuiltIn,
            user_agent: concat!("twinflash/", env!("CARGO_PKG_VERSION")).into(),
            connect_timeout: Duration::from_secs(20),
            proxy: Proxy::Environment,
        }
    }
}

/// The proxy to go through.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Proxy {
    /// The first of `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` that is set, but for the hosts in
    /// `NO_PROXY`.
    #[default]
    Environment,
    /// None.
    None,
    /// This one, `http://[user:password@]host:port`.
    Url(String),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::None => f.write_str("None"),
            Self::Url(url) => f
                .debug_tuple("Url")
                .field(&crate::update::redact(url))
                .finish(),
        }
    }
}

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

/// Fetches images. Cheap to keep; holds no connection between attempts.
#[derive(Clone)]
pub struct Downloader {
    config: Config,
}

impl Downloader {
    /// Makes ready; nothing is connected yet.
    ///
    /// # Errors
    /// [`Code::Tls`]: the certificate authorities cannot be used. [`Code::InvalidUri`]: the proxy's
    /// URL. [`Code::InvalidRequest`]: the user agent is no header value.
    pub fn new(options: HttpOptions) -> Result<Self, Failure> {
        let tls = crate::tls::ureq_config(&options.roots)
            .map_err(|error| Failure::new(Code::Tls, error))?;
        let proxy = match &options.proxy {
            Proxy::Environment => ureq::Proxy::try_from_env(),
            Proxy::None => None,
            Proxy::Url(url) => Some(ureq::Proxy::new(url).map_err(|_| {
                let shown = crate::update::redact(url);
                Failure::new(
                    Code::InvalidUri,
                    format!("\"{shown}\" is not the URL of a proxy"),
                )
            })?),
        };
        if HeaderValue::from_str(&options.user_agent).is_err() {
            return Err(Failure::new(
                Code::InvalidRequest,
                format!("{:?} cannot be a User-Agent header", options.user_agent),
            ));
        }
        let config = Config::builder()
            .tls_config(tls)
            .proxy(proxy)
            .user_agent(options.user_agent)
            .accept_encoding("identity")
            .http_status_as_error(false)
            // Redirects are followed here: the library cannot tell http first from http after https.
            .max_redirects(0)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .input_buffer_size(network::BUFFER)
            // No limit of the library's own: behind an interim answer (103) it would count the body that is in the
            // buffer, too. A header that does not fit into the buffer ends the attempt as a broken connection does.
            .max_response_header_size(network::BUFFER)
            .build();
        Ok(Self { config })
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
        attempt::run(&self.config, job, installer, image, stop, on)
    }
}

impl Downloader {
    /// Makes one attempt at fetching a manifest: a text of at most [`Job::max_size`] bytes, with no
    /// resume. Blocks; ends with [`Ended::Manifest`], or as [`fetch`](Self::fetch) does.
    pub fn fetch_manifest(&self, job: &Job, stop: &Stop) -> Ended {
        manifest::run(&self.config, job, stop)
    }
}

impl fmt::Debug for Downloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downloader").finish_non_exhaustive()
    }
}
