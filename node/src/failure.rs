//! Failures on their way to JavaScript and back.

use engine::update::{Code, Failure};
use serde_json::{Value, json};

/// What is thrown: an `Error` whose `code` is the failure's.
pub(crate) type Thrown = napi::Error<String>;

pub(crate) fn thrown(failure: Failure) -> Thrown {
    Thrown::new(failure.code.as_str().into(), failure.message)
}

/// A fault of ours or of Node's: what JavaScript would have to be told anyhow.
pub(crate) fn fault(error: impl ToString) -> Thrown {
    Thrown::new(Code::State.as_str().into(), error.to_string())
}

pub(crate) fn to_json(failure: &Failure) -> Value {
    json!({"code": failure.code.as_str(), "message": failure.message})
}

/// What a function of the application failed with.
pub(crate) fn from_application(code: &str, message: &str) -> Failure {
    let known = Code::ALL.iter().find(|known| known.as_str() == code);
    Failure::new(known.copied().unwrap_or(Code::InstallFailed), message)
}
