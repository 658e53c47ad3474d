//! The back end's side of an IoT hub: a small client of its REST interface.
//!
//! See Microsoft's "IoT Hub REST API", version 2021-04-12.

mod refused;

use crate::error::Error;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
pub(crate) use refused::Refused;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use twinflash::{
    iothub::ServiceConnectionString,
    tls::{Roots, ureq_config},
};
use ureq::{Agent, Body, config::Config, http};

const API_VERSION: &str = "2021-04-12";
/// How long a token is good for. It is made anew for each request, so this bounds only how wrong the
/// clocks may be.
const TOKEN: Duration = Duration::from_secs(3600);
/// How long is waited before a hub that is asked too often is asked again, and for how long it is tried.
/// Azure's limits are by the second or the minute: a query each 3 s in its S1.
const PAUSE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);
/// How many rows are asked for at a time; the hub may give fewer.
const PAGE: usize = 1000;
/// The largest answer that is read: a page of large twins. In bytes.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;
/// The longest line of an endless answer: a message of 256 KB with its properties.
const MAX_LINE: u64 = 1024 * 1024;
/// How long a device may take to answer a method.
const RESPONSE_TIMEOUT: u64 = 30;
/// How long a device that is not connected is waited for when a method is called.
const CONNECT_TIMEOUT: u64 = 5;

/// What a path's segment may hold as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A hub, as a back end sees it.
pub(crate) struct Service {
    agent: Agent,
    connection: ServiceConnectionString,
}

/// Asks the hub for one thing.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    method: &'static str,
    path: &'a [&'a str],
    /// After `api-version`, such as `&top=100`.
    parameters: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    about: About<'a>,
}

/// What a request is about, for the words of its errors.
#[derive(Clone, Copy)]
pub(crate) enum About<'a> {
    /// A device's twin or its methods.
    Device(&'a str),
    /// A device in the registry.
    Registry(&'a str),
    Configuration(&'a str),
    Job(&'a str),
    /// The messages of a device, or of all.
    Messages(Option<&'a str>),
    Hub,
}

/// What the hub granted.
pub(crate) struct Answer {
    pub(crate) body: Value,
    /// There is more: what to ask for it with.
    continuation: Option<String>,
}

impl<'a> Request<'a> {
    /// `path` is of segments, as they are meant.
    pub(crate) fn new(method: &'static str, path: &'a [&'a str], about: About<'a>) -> Self {
        Self {
            method,
            path,
            parameters: String::new(),
            headers: Vec::new(),
            body: None,
            about,
        }
    }

    pub(crate) fn parameter(mut self, name: &str, value: &str) -> Self {
        let value = utf8_percent_encode(value, SEGMENT);
        self.parameters.push_str(&format!("&{name}={value}"));
        self
    }

    /// Only if the etag is still this one; `*`: whatever it is.
    pub(crate) fn if_match(mut self, etag: &str) -> Self {
        let etag = match etag.trim_matches('"') {
            "*" => "*".into(),
            etag => format!("\"{etag}\""),
        };
        self.headers.push(("If-Match", etag));
        self
    }

    pub(crate) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }
}

impl Service {
    /// Nothing is connected yet. `direct`: past the proxy that the environment names.
    pub(crate) fn new(
        connection: ServiceConnectionString,
        roots: &Roots,
        direct: bool,
    ) -> Result<Self, Error> {
        let mut config = Config::builder()
            .tls_config(ureq_config(roots, None)?)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("twinflash/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_global(Some(Duration::from_secs(
                RESPONSE_TIMEOUT + CONNECT_TIMEOUT + 15,
            )));
        if direct {
            config = config.proxy(None);
        }
        Ok(Self {
            agent: Agent::new_with_config(config.build()),
            connection,
        })
    }

    /// The device's twin.
    pub(crate) fn twin(&self, device: &str) -> Result<Value, Refused> {
        self.ask(Request::new(
            "GET",
            &["twins", device],
            About::Device(device),
        ))
    }

    /// Merges a patch into the device's twin; its tags and desired properties, that is. With an etag,
    /// only if that is still the twin's.
    pub(crate) fn patch_twin(
        &self,
        device: &str,
        patch: Value,
        etag: Option<&str>,
    ) -> Result<Value, Refused> {
        let path = ["twins", device];
        let mut request = Request::new("PATCH", &path, About::Device(device)).body(patch);
        if let Some(etag) = etag {
            request = request.if_match(etag);
        }
        self.ask(request)
    }

    /// Calls a direct method: the device's status and payload.
    pub(crate) fn call_method(
        &self,
        device: &str,
        name: &str,
        payload: &Value,
    ) -> Result<(i64, Value), Refused> {
        let path = ["twins", device, "methods"];
        let request = Request::new("POST", &path, About::Device(device));
        let mut answer = self.ask(request.body(method_call(name, payload)))?;
        let status = answer.get("status").and_then(Value::as_i64);
        let payload = answer.get_mut("payload").map(Value::take);
        Ok((status.unwrap_or_default(), payload.unwrap_or_default()))
    }

    /// Runs a query to its end; `page` gets the rows as they come. Each page is a request of its own.
    pub(crate) fn query(
        &self,
        text: &str,
        page: &mut dyn FnMut(Vec<Value>),
    ) -> Result<(), Refused> {
        self.pages(
            &|| {
                let body = json!({"query": text});
                Request::new("POST", &["devices", "query"], About::Hub).body(body)
            },
            page,
        )
    }

    /// All rows of a query.
    pub(crate) fn rows(&self, text: &str) -> Result<Vec<Value>, Refused> {
        let mut all = Vec::new();
        self.query(text, &mut |rows| all.extend(rows))?;
        Ok(all)
    }

    /// Asks the same again and again, for a further part each time.
    pub(crate) fn pages(
        &self,
        request: &dyn Fn() -> Request<'static>,
        page: &mut dyn FnMut(Vec<Value>),
    ) -> Result<(), Refused> {
        let mut continuation = None;
        loop {
            let mut request = request();
            request
                .headers
                .push(("x-ms-max-item-count", PAGE.to_string()));
            if let Some(token) = continuation {
                request.headers.push(("x-ms-continuation", token));
            }
            let answer = self.send(request)?;
            match answer.body {
                Value::Array(rows) => page(rows),
                _ => return Err(self.no_hub("a list is missing")),
            }
            continuation = answer.continuation;
            if continuation.is_none() {
                return Ok(());
            }
        }
    }

    /// What is asked for; null where the hub's answer is empty.
    pub(crate) fn ask(&self, request: Request<'_>) -> Result<Value, Refused> {
        self.send(request).map(|answer| answer.body)
    }

    /// What is asked for too soon is asked for again, for a while: the hub did nothing of it.
    fn send(&self, request: Request<'_>) -> Result<Answer, Refused> {
        let start = Instant::now();
        loop {
            match self.send_once(request.clone()) {
                Err(refused) if refused.throttled && start.elapsed() < PATIENCE => {
                    thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }

    fn send_once(&self, request: Request<'_>) -> Result<Answer, Refused> {
        let mut response = self.open(request, false)?;
        let continuation = response.headers().get("x-ms-continuation");
        let continuation = continuation.and_then(|value| value.to_str().ok());
        let continuation = continuation.filter(|token| !token.is_empty());
        let continuation = continuation.map(str::to_owned);
        let body = self.read(&mut response)?;
        let body = match body.is_empty() {
            true => Ok(Value::Null),
            false => serde_json::from_slice(&body),
        };
        Ok(Answer {
            body: body.map_err(|error| self.no_hub(&error.to_string()))?,
            continuation,
        })
    }

    /// Reads an answer that goes on until the hub ends it; `on` gets each line as it comes.
    pub(crate) fn lines(
        &self,
        request: Request<'_>,
        on: &mut dyn FnMut(&[u8]) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let response = self.open(request, true)?;
        let mut reader = BufReader::new(response.into_body().into_reader());
        loop {
            let mut line = Vec::new();
            let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
            read.map_err(|error| self.unreachable(error.into()))?;
            match line.pop() {
                None => return Ok(()),
                Some(b'\n') => on(&line)?,
                Some(_) => return Err(self.no_hub("a line does not end")),
            }
        }
    }

    /// Sends a request; gives the response once the hub grants it. An endless one has no end in time.
    fn open(&self, request: Request<'_>, endless: bool) -> Result<http::Response<Body>, Refused> {
        let about = request.about;
        let path: String = request
            .path
            .iter()
            .map(|segment| format!("/{}", utf8_percent_encode(segment, SEGMENT)))
            .collect();
        let mut http = http::Request::builder()
            .method(request.method)
            .uri(format!(
                "https://{}{path}?api-version={API_VERSION}{}",
                self.server(),
                request.parameters
            ))
            .header("Authorization", self.token());
        for (name, value) in request.headers {
            http = http.header(name, value);
        }
        let sent = match request.body {
            Some(body) => http
                .header("Content-Type", "application/json; charset=utf-8")
                .body(body.to_string())
                .map(|http| self.agent.run(http)),
            None if endless => http.body(()).map(|http| {
                let http = self.agent.configure_request(http);
                self.agent.run(http.timeout_global(None).build())
            }),
            None if request.method == "POST" => {
                http.body(String::new()).map(|http| self.agent.run(http))
            }
            None => http.body(()).map(|http| self.agent.run(http)),
        };
        let sent = sent.unwrap_or_else(|error| Err(error.into()));
        let mut response = sent.map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            return Ok(response);
        }
        let body = self.read(&mut response)?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Err(self.refused(about, status, &body))
    }

    fn read(&self, response: &mut http::Response<Body>) -> Result<Vec<u8>, Refused> {
        let body = response.body_mut().with_config().limit(MAX_ANSWER);
        body.read_to_vec().map_err(|error| self.unreachable(error))
    }

    /// The hub's name, and the host that is connected to.
    pub(crate) fn hosts(&self) -> (&str, &str) {
        (self.connection.hub(), self.connection.server().0)
    }

    /// Host and port of the REST interface.
    fn server(&self) -> String {
        match self.connection.server() {
            (host, port) if host.contains(':') => format!("[{host}]:{port}"),
            (host, port) => format!("{host}:{port}"),
        }
    }

    fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.connection
            .token((now.unwrap_or_default() + TOKEN).as_secs())
    }
}

/// A direct method's call, as the hub wants it.
pub(crate) fn method_call(name: &str, payload: &Value) -> Value {
    json!({
        "methodName": name,
        "payload": payload,
        "responseTimeoutInSeconds": RESPONSE_TIMEOUT,
        "connectTimeoutInSeconds": CONNECT_TIMEOUT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_segment() {
        let id = utf8_percent_encode("a/b#c%d-e.f", SEGMENT).to_string();
        assert_eq!(id, "a%2Fb%23c%25d-e.f");
    }
}
