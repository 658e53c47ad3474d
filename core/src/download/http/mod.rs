//! Bytes from an HTTP server, fetched by this library.

mod answer;
mod failure;
mod network;
mod wire;

pub(super) use answer::judge;
pub(crate) use network::Head;
pub(super) use wire::Threaded;

use crate::{
    tls::{ClientIdentity, Roots},
    update::{Code, Failure},
};
use std::{fmt, sync::Arc, time::Duration};
use ureq::{
    config::Config,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};

/// How images are fetched; the same for all downloads of a [`Downloader`](crate::download::Downloader).
#[derive(Clone)]
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
    /// What the device shows to a server that asks who it is.
    pub identity: Option<ClientIdentity>,
    /// The only hosts that are asked for images and manifests, be it at first or after a redirect: names,
    /// or `*.example.com` for all within a domain. Empty for all.
    pub hosts: Vec<String>,
    /// Headers of every request to the server that an address names; not of those to another one that it
    /// redirects to. Name and value; values are secrets, and shown nowhere.
    pub headers: Vec<(String, String)>,
}

impl Default for HttpOptions {
    /// Mozilla's authorities (the system's where none are built in), `twinflash/<version>`, 20 s, the environment's proxy.
    fn default() -> Self {
        Self {
            roots: Roots::default(),
            user_agent: concat!("twinflash/", env!("CARGO_PKG_VERSION")).into(),
            connect_timeout: Duration::from_secs(20),
            proxy: Proxy::Environment,
            identity: None,
            hosts: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers = self.headers.iter().map(|(name, _)| name);
        f.debug_struct("HttpOptions")
            .field("roots", &self.roots)
            .field("user_agent", &self.user_agent)
            .field("connect_timeout", &self.connect_timeout)
            .field("proxy", &self.proxy)
            .field("identity", &self.identity)
            .field("hosts", &self.hosts)
            .field("headers", &headers.collect::<Vec<_>>())
            .finish()
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

/// [`HttpOptions`], looked at.
#[derive(Clone)]
pub(crate) struct Http {
    config: Config,
    rules: Arc<Rules>,
}

/// What is this library's, not the HTTP library's.
#[derive(Default)]
struct Rules {
    hosts: Vec<String>,
    headers: HeaderMap,
}

impl Rules {
    /// Whether this host may be asked.
    fn allow(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let fits = |pattern: &String| match pattern.strip_prefix('*') {
            // With its dot: "*.example.com" is not "badexample.com", nor "example.com".
            Some(domain) => host.len() > domain.len() && host.ends_with(domain),
            None => *pattern == host,
        };
        self.hosts.is_empty() || self.hosts.iter().any(fits)
    }
}

/// Headers that say how a download is made, which is for the downloader to say.
const OURS: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::IF_RANGE,
    header::PROXY_AUTHORIZATION,
    header::RANGE,
    header::TRANSFER_ENCODING,
    header::USER_AGENT,
];

fn rules(options: &HttpOptions) -> Result<Rules, Failure> {
    let mut rules = Rules::default();
    for pattern in &options.hosts {
        let name = pattern.strip_prefix("*.").unwrap_or(pattern);
        let address = name.starts_with('[') && name.ends_with(']');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if name.trim_matches('.').is_empty() || !(address || name.bytes().all(plain)) {
            let text = format!(
                "{pattern:?} is not the name of a host, nor one such as \"*.example.com\"; ports and paths are not looked at"
            );
            return Err(Failure::new(Code::InvalidConfig, text));
        }
        rules.hosts.push(pattern.to_ascii_lowercase());
    }
    for (name, value) in &options.headers {
        let refuse = |why: &str| {
            let text = format!("the header {name:?} {why}");
            Failure::new(Code::InvalidConfig, text)
        };
        let known = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refuse("has no name that a header can have"))?;
        if OURS.contains(&known) {
            return Err(refuse("is set by the downloader itself"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| refuse("has a value with characters that a header cannot have"))?;
        value.set_sensitive(true);
        rules.headers.append(known, value);
    }
    Ok(rules)
}

/// As the downloader wants them.
pub(super) fn prepare(options: HttpOptions) -> Result<Http, Failure> {
    let rules = Arc::new(rules(&options)?);
    let tls = crate::tls::ureq_config(&options.roots, options.identity.as_ref())
        .map_err(|error| Failure::new(Code::Tls, error))?;
    let proxy = match &options.proxy {
        Proxy::Environment => ureq::Proxy::try_from_env(),
        Proxy::None => None,
        Proxy::Url(url) => Some(ureq::Proxy::new(url).map_err(|_| {
            let shown = crate::update::redact(url);
            Failure::new(
                Code::InvalidConfig,
                format!(
                    "http.proxy: \"{shown}\" is not the URL of a proxy, such as http://host:3128"
                ),
            )
        })?),
    };
    if HeaderValue::from_str(&options.user_agent).is_err() {
        return Err(Failure::new(
            Code::InvalidConfig,
            format!(
                "http.user_agent: {:?} cannot be a header's value",
                options.user_agent
            ),
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
    Ok(Http { config, rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let rules = |hosts: &[&str]| {
            rules(&HttpOptions {
                hosts: hosts.iter().map(|host| (*host).into()).collect(),
                ..HttpOptions::default()
            })
        };
        assert!(rules(&[]).unwrap().allow("anywhere"));
        let some = rules(&["Images.example.com", "*.blob.example.net", "[::1]"]).unwrap();
        for host in [
            "images.example.com",
            "IMAGES.example.com.",
            "a.blob.example.net",
            "[::1]",
        ] {
            assert!(some.allow(host), "{host}");
        }
        for host in [
            "example.com",
            "images.example.com.evil.org",
            "blob.example.net",
            "evilblob.example.net",
            ".blob.example.net.x",
            "",
        ] {
            assert!(!some.allow(host), "{host}");
        }
        for bad in ["", "*", "*.", "a/b", "host:443", "*.*", "https://h"] {
            assert_eq!(
                rules(&[bad]).err().unwrap().code,
                Code::InvalidConfig,
                "{bad}"
            );
        }
    }

    #[test]
    fn headers_are_set_but_not_shown() {
        let with = |name: &str, value: &str| {
            let options = HttpOptions {
                headers: vec![(name.into(), value.into())],
                ..HttpOptions::default()
            };
            assert!(!format!("{options:?}").contains("S3CR3T"));
            rules(&options)
        };
        assert_eq!(with("X-Key", "S3CR3T").unwrap().headers["x-key"], "S3CR3T");
        for (name, value) in [
            ("Range", "S3CR3T"),
            ("X Y", "S3CR3T"),
            ("X", "S3CR3T\r\nHost: y"),
        ] {
            let failure = with(name, value).err().unwrap();
            assert_eq!(failure.code, Code::InvalidConfig);
            assert!(!failure.message.contains("S3CR3T"), "{failure}");
        }
    }
}
