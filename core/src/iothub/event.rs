//! What the client tells.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

/// What has happened on the line to the hub. Given to the handler of
/// [`Client::connect`](super::Client::connect) in the order it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The hub has accepted the device and every subscription; requests can be made. Nothing that
    /// changed before is told by itself: ask by [`Client::read_twin`](super::Client::read_twin).
    Connected(Session),
    /// The line is down, or an attempt to connect has failed. The client tries again by itself.
    /// Every request that was under way has been told as lost before.
    Disconnected(Disconnected),
    /// A back end calls a direct method. Answer with
    /// [`Client::answer_method`](super::Client::answer_method), soon: the back end waits.
    Method(MethodCall),
    /// The whole twin, as asked for: the JSON object `{"desired":…,"reported":…}`.
    Twin(Vec<u8>),
    /// The twin that was asked for did not come.
    TwinFailed(RequestError),
    /// Desired properties have changed: the JSON object of the changes, with its `$version`.
    Desired(Vec<u8>),
    /// A report is done; told once for each [`Client::report`](super::Client::report), unless
    /// the client is closed before.
    ReportDone {
        /// The number the report was given.
        id: u64,
        /// The new `$version` of the reported properties, or why they are not known to have
        /// changed.
        result: Result<Option<u64>, RequestError>,
    },
    /// The wall time is not known, so no token can be made; the client waits until it is. Told once
    /// for each wait.
    WaitingForClock,
}

/// A connection the hub has accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// Host and port that were connected to.
    pub server: String,
    /// When the token ends. The client reconnects with a new one before. `None` of a device with a
    /// certificate.
    pub token_expires: Option<SystemTime>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Disconnected {
    /// What kind of reason it is.
    pub cause: Cause,
    /// One line for people: what failed, and what to do about it.
    pub reason: String,
    /// When the next attempt starts.
    pub retry_in: Duration,
}

/// The kinds of reasons a line is down for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The hub does not accept this device: key or certificate, registration, clock.
    Refused,
    /// No secure connection: the certificate, or what listens there speaks no TLS.
    Tls,
    /// The server cannot be found or reached, or the line broke.
    Network,
    /// The client has left by itself to come back at once with a new token.
    Renewal,
}

/// A direct method called by a back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodCall {
    /// To answer with.
    pub request: MethodRequest,
    /// The method's name.
    pub name: String,
    /// The payload as it came: JSON, or empty.
    pub payload: Vec<u8>,
}

/// Names a method call, so that its answer finds the back end that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodRequest {
    pub(super) id: String,
    pub(super) received: Instant,
}

/// A request about the twin has not been granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestError {
    /// The hub's status (400 bad request, 413 too large, 429 too many requests, 5xx …); 0 if no
    /// answer came: there was no connection, or it was lost, and whether the hub has carried the
    /// request out is not known.
    pub status: u16,
    /// The hub's own number of the error, such as 403100, where it tells one.
    pub code: Option<u64>,
    /// One line for people.
    pub message: String,
}

impl RequestError {
    /// No answer came.
    pub(super) fn lost(message: impl Into<String>) -> Self {
        Self {
            status: 0,
            code: None,
            message: message.into(),
        }
    }

    /// The hub has answered with `status` and, usually,
    /// `{"errorCode":…,"trackingId":…,"message":…,"timestampUtc":…}`.
    pub(super) fn answered(status: u16, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Body {
            #[serde(rename = "errorCode")]
            code: Option<u64>,
            #[serde(alias = "Message")]
            message: Option<String>,
        }
        let body: Option<Body> = serde_json::from_slice(body).ok();
        let (code, message) = body.map_or((None, None), |body| (body.code, body.message));
        Self {
            status,
            code,
            message: message.unwrap_or_else(|| "the hub gives no reason".into()),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, self.code) {
            (0, _) => f.write_str(&self.message),
            (status, Some(code)) => write!(f, "status {status}, error {code}: {}", self.message),
            (status, None) => write!(f, "status {status}: {}", self.message),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_errors() {
        for (body, code, message) in [
            (
                r#"{"errorCode":403100,"trackingId":"x","message":"too large","timestampUtc":"y"}"#,
                Some(403_100),
                "too large",
            ),
            (r#"{"Message":"no"}"#, None, "no"),
            ("", None, "the hub gives no reason"),
            ("<html>", None, "the hub gives no reason"),
        ] {
            let error = RequestError::answered(413, body.as_bytes());
            assert_eq!((error.code, error.message.as_str()), (code, message));
        }
        let error = RequestError::answered(413, br#"{"errorCode":403100,"message":"too large"}"#);
        assert_eq!(error.to_string(), "status 413, error 403100: too large");
    }
}
