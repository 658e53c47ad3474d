//! A back end.

use super::{field, token, unix};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use twinflash_hub::Info;

/// A back end.
#[derive(Clone)]
pub struct Rest {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

pub struct Response {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Value,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// That it is a refusal of the registry's and the twins' shape.
    pub fn refused(&self, status: u16, name: &str) {
        assert_eq!(
            (self.status, self.header("iothub-errorcode")),
            (status, Some(name)),
            "{}",
            self.body
        );
        let message = self.body["Message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("ErrorCode:{name};")),
            "{message}"
        );
        assert!(
            self.body["ExceptionMessage"]
                .as_str()
                .unwrap()
                .starts_with("Tracking ID:")
        );
    }

    /// That it is a refusal of the direct methods' shape; returns what is in it.
    pub fn method_refused(&self, code: u32) -> Value {
        assert_eq!(u32::from(self.status), code / 1000, "{}", self.body);
        assert_eq!(self.body["ExceptionMessage"], "");
        let inner: Value = serde_json::from_str(self.body["Message"].as_str().unwrap()).unwrap();
        assert_eq!(inner["errorCode"], code, "{inner}");
        assert!(inner["trackingId"].is_string() && inner["timestampUtc"].is_string());
        inner
    }
}

impl Rest {
    /// With all rights.
    pub fn owner(info: &Info) -> Self {
        let key = field(&info.service_connection_string, "SharedAccessKey");
        let token = token("localhost", &key, unix() + 600, Some("iothubowner"));
        Self::new(info, Some(token))
    }

    pub(super) fn new(info: &Info, token: Option<String>) -> Self {
        let roots = CertificateDer::pem_slice_iter(info.ca_pem.as_bytes())
            .map(|certificate| ureq::tls::Certificate::from_der(&certificate.unwrap()).to_owned())
            .collect::<Vec<_>>();
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(ureq::tls::RootCerts::Specific(Arc::new(roots)))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self {
            agent,
            base: format!("https://localhost:{}", info.https_port),
            token,
        }
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.raw(
            method,
            &with_version(path),
            body.map(|body| body.to_string().into_bytes()),
            &[],
        )
    }

    pub fn call_if(&self, method: &str, path: &str, body: Option<&Value>, etag: &str) -> Response {
        let body = body.map(|body| body.to_string().into_bytes());
        self.raw(method, &with_version(path), body, &[("If-Match", etag)])
    }

    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path, None)
    }

    pub fn raw(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Response {
        self.attempt(method, path, body, headers).unwrap()
    }

    /// The same of a hub that may go away.
    pub fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Response> {
        let body = body.map(|body| body.to_string().into_bytes());
        let path = with_version(path);
        self.attempt(method, &path, body, &[]).ok()
    }

    fn attempt(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Result<Response, ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        }?;
        let text = response.body_mut().read_to_string()?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        };
        Ok(Response {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body,
        })
    }

    pub fn query(&self, text: &str, headers: &[(&str, &str)]) -> Response {
        let body = json!({"query": text}).to_string().into_bytes();
        let path = with_version("/devices/query");
        self.raw("POST", &path, Some(body), headers)
    }

    pub fn invoke(&self, device: &str, body: &Value) -> Response {
        self.call("POST", &format!("/twins/{device}/methods"), Some(body))
    }
}

fn with_version(path: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}api-version=2021-04-12")
}
