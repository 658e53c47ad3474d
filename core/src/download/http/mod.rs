//! Bytes from an HTTP server, fetched by this library.

mod answer;
mod failure;
mod network;
mod wire;

pub(super) use answer::judge;
pub(crate) use network::Head;
pub(super) use wire::Threaded;

use crate::{
    tls::Roots,
    update::{Code, Failure},
};
use std::{fmt, time::Duration};
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

/// As the HTTP library wants them.
pub(super) fn config(options: HttpOptions) -> Result<Config, Failure> {
    let tls =
        crate::tls::ureq_config(&options.roots).map_err(|error| Failure::new(Code::Tls, error))?;
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
    Ok(Config::builder()
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
        .build())
}
