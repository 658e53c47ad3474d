//! What can go wrong: when a hub is started, and in what it is asked for.

use crate::files::TooFewFiles;
use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::{fmt, net::SocketAddr, path::PathBuf};

/// Why a hub could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Another program listens on the port.
    PortInUse {
        /// Address and port.
        address: SocketAddr,
        /// `MQTT` or `HTTPS`.
        what: &'static str,
        /// The command's option that chooses another.
        option: &'static str,
    },
    /// The port cannot be listened on for another reason.
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// `MQTT` or `HTTPS`.
        what: &'static str,
        /// The command's option that chooses another.
        option: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The state directory cannot be used.
    State {
        /// The file or directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Certificates cannot be made or used.
    Certificate(String),
    /// A file of certificate authorities for devices cannot be used.
    TrustedAuthority {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A device or host name that cannot be used.
    Name(String),
    /// The process may not have as many files open as [`Options::max_connections`](crate::Options::max_connections) asks
    /// for.
    OpenFiles(TooFewFiles),
    /// The system gives no threads, random numbers or temporary file.
    System(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse {
                address,
                what,
                option,
            } => write!(
                f,
                "{what} port {} on {} is in use by another program: stop it, or choose another with {option} N (0 = any free port)",
                address.port(),
                address.ip()
            ),
            Self::Listen {
                address,
                what,
                option,
                reason,
            } => write!(
                f,
                "cannot listen on {address} for {what}: {reason}; choose another port with {option} N (0 = any free port)"
            ),
            Self::State { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::TrustedAuthority { path, reason } => write!(
                f,
                "{}: no certificate authority to trust: {reason}",
                path.display()
            ),
            Self::OpenFiles(few) => {
                write!(f, "{few}; or serve fewer connections (--max-connections N)")
            }
            Self::Certificate(reason) => write!(f, "cannot make the hub's certificate: {reason}"),
            Self::Name(reason) | Self::System(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Error {}

/// One of Azure's error codes. Its first three digits are the HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32, pub(crate) &'static str);

impl Code {
    pub(crate) const INVALID_PROTOCOL_VERSION: Self = Self(400_001, "InvalidProtocolVersion");
    pub(crate) const ARGUMENT_INVALID: Self = Self(400_004, "ArgumentInvalid");
    pub(crate) const FORMAT: Self = Self(400_006, "IotHubFormatError");
    pub(crate) const CONFIGURATION_CONDITION: Self =
        Self(400_401, "InvalidConfigurationTargetCondition");
    pub(crate) const CONFIGURATION_CONTENT: Self = Self(400_402, "InvalidConfigurationContent");
    pub(crate) const CONFIGURATION_IMMUTABLE: Self =
        Self(400_403, "CannotModifyImmutableConfigurationContent");
    pub(crate) const CONFIGURATION_METRICS: Self =
        Self(400_404, "InvalidConfigurationCustomMetricsQuery");
    pub(crate) const DEFINED_MULTIPLE_TIMES: Self = Self(400_011, "DeviceDefinedMultipleTimes");
    pub(crate) const DESERIALIZATION: Self = Self(400_012, "DeserializationError");
    pub(crate) const BULK_FAILED: Self = Self(400_013, "BulkRegistryOperationFailure");
    pub(crate) const UNAUTHORIZED_ACCESS: Self = Self(401_002, "IotHubUnauthorizedAccess");
    pub(crate) const UNAUTHORIZED: Self = Self(401_003, "IotHubUnauthorized");
    pub(crate) const TWIN_TOO_LARGE: Self = Self(403_100, "TwinSizeExceeded");
    pub(crate) const JOB_QUOTA_EXCEEDED: Self = Self(403_003, "JobQuotaExceeded");
    pub(crate) const TOO_MANY_METHODS: Self = Self(403_800, "TooManyMethodCalls");
    pub(crate) const NOT_FOUND: Self = Self(404_000, "NotFound");
    pub(crate) const DEVICE_NOT_FOUND: Self = Self(404_001, "DeviceNotFound");
    pub(crate) const DEVICE_NOT_ONLINE: Self = Self(404_103, "DeviceNotOnline");
    pub(crate) const CONFIGURATION_NOT_FOUND: Self = Self(404_301, "ConfigurationNotFound");
    pub(crate) const JOB_NOT_FOUND: Self = Self(404_002, "JobNotFound");
    pub(crate) const METHOD_NOT_ALLOWED: Self = Self(405_000, "MethodNotAllowed");
    pub(crate) const DEVICE_EXISTS: Self = Self(409_001, "DeviceAlreadyExists");
    pub(crate) const CONFIGURATION_EXISTS: Self = Self(409_401, "ConfigurationAlreadyExists");
    pub(crate) const JOB_EXISTS: Self = Self(409_005, "JobAlreadyExists");
    pub(crate) const PRECONDITION_FAILED: Self = Self(412_001, "PreconditionFailed");
    pub(crate) const TOO_LARGE: Self = Self(413_001, "MessageTooLarge");
    pub(crate) const TOO_MANY_DEVICES: Self = Self(413_002, "TooManyDevices");
    pub(crate) const THROTTLED: Self = Self(429_001, "ThrottlingException");
    pub(crate) const SERVER_ERROR: Self = Self(500_001, "ServerError");
    pub(crate) const UNAVAILABLE: Self = Self(503_001, "ServiceUnavailable");
    pub(crate) const TIMEOUT: Self = Self(504_101, "GatewayTimeout");

    pub(crate) fn status(self) -> StatusCode {
        u16::try_from(self.0 / 1000)
            .ok()
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// A request that is refused, to be told in one of Azure's shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// What `info` says in the body, if there is more to say.
    info: Option<Value>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            info: None,
        }
    }

    pub(crate) fn with_info(mut self, info: Value) -> Self {
        self.info = Some(info);
        self
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(Code::ARGUMENT_INVALID, message)
    }

    pub(crate) fn stopping() -> Self {
        Self::new(Code::UNAVAILABLE, "The hub is being stopped.")
    }

    pub(crate) fn no_device(id: &str) -> Self {
        Self::new(
            Code::DEVICE_NOT_FOUND,
            format!("Device {id} is not registered."),
        )
    }

    /// The object that twin answers over MQTT have as their body, and direct methods as their message's text.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "errorCode": self.code.0,
            "trackingId": tracking_id(),
            "message": self.message,
            "timestampUtc": crate::clock::now(),
        });
        if let (Some(info), Value::Object(members)) = (&self.info, &mut body) {
            members.insert("info".into(), info.clone());
        }
        body
    }

    /// The answer of `POST /twins/{id}/methods`: the error is a JSON text within the message.
    pub(crate) fn into_method_response(self) -> Response {
        let body = json!({"Message": self.body().to_string(), "ExceptionMessage": ""});
        self.respond(body)
    }

    /// An answer with another body.
    pub(crate) fn respond(self, body: Value) -> Response {
        let mut response = (self.code.status(), Json(body)).into_response();
        response.headers_mut().insert(
            HeaderName::from_static("iothub-errorcode"),
            HeaderValue::from_static(self.code.1),
        );
        response.extensions_mut().insert(self);
        response
    }
}

/// The shape of the registry and of twins.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "Message": format!("ErrorCode:{};{}", self.code.1, self.message),
            "ExceptionMessage": format!("Tracking ID:{}", tracking_id()),
        });
        self.respond(body)
    }
}

/// A change that the hub could not make, by no fault of the caller.
pub(crate) fn internal(error: impl std::fmt::Display) -> Refusal {
    log::error!(target: "twinflash_hub", "cannot keep a change: {error}");
    Refusal::new(
        Code::SERVER_ERROR,
        "The hub cannot keep the change; its log says why.",
    )
}

fn tracking_id() -> String {
    let mut bytes = [0; 16];
    // No secret: without random numbers it is just less unique.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    format!(
        "{}-G:0-TimeStamp:{}",
        base16ct::lower::encode_string(&bytes),
        crate::clock::now()
    )
}
