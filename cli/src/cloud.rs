//! What the back end's commands have in common: which hub, and JSON as an argument.

use crate::{Common, error::Error, service::Service};
use serde_json::Value;
use std::{fs, path::Path};

/// The hub a command speaks to.
#[derive(clap::Args)]
pub(crate) struct Cloud {
    /// The service's connection string of the hub, or @FILE
    #[arg(
        long,
        env = "TWINFLASH_SERVICE",
        hide_env_values = true,
        value_name = "CONNECTION_STRING"
    )]
    service: String,
}

impl Cloud {
    /// Nothing is connected yet.
    pub(crate) fn open(&self, common: &Common) -> Result<Service, Error> {
        let text = twinflash::config::connection_string(&self.service, Path::new(""))?;
        Service::new(text.parse()?, &common.roots()?, false)
    }
}

/// The JSON that is meant by an argument: itself, or with `@FILE` what that file holds. `option` is
/// the argument's name, for errors.
pub(crate) fn json_argument(given: &str, option: &str) -> Result<Value, Error> {
    let (text, place) = match given.strip_prefix('@') {
        None => (given.to_owned(), String::new()),
        Some(file) => {
            let failed = |error| Error::new(format_args!("cannot read {file}: {error}"));
            (
                fs::read_to_string(file).map_err(failed)?,
                format!(" {file}"),
            )
        }
    };
    serde_json::from_str(&text)
        .map_err(|error| Error::new(format_args!("{option}{place} is not JSON: {error}")))
}

/// A JSON argument that has to be an object.
pub(crate) fn object_argument(given: &str, option: &str) -> Result<Value, Error> {
    match json_argument(given, option)? {
        object @ Value::Object(_) => Ok(object),
        other => Err(Error::new(format_args!(
            "{option} is {other}; it has to be an object, such as {{\"name\": \"value\"}}"
        ))),
    }
}

/// A text in a query, in quotes.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A member of an object as text: nothing where there is none.
pub(crate) fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A time of the hub, to the second.
pub(crate) fn time(object: &Value, pointer: &str) -> String {
    let text = text(object, pointer);
    match text.get(..19) {
        // The hub's words for never.
        Some("0001-01-01T00:00:00") => String::new(),
        Some(time) => time.replace('T', " "),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn arguments() {
        assert_eq!(json_argument("null", "--x").unwrap(), json!(null));
        let error = json_argument("{a", "--desired").unwrap_err().to_string();
        assert!(error.starts_with("--desired is not JSON: "), "{error}");
        let error = object_argument("[1]", "--tags").unwrap_err().to_string();
        assert!(error.starts_with("--tags is [1]; "), "{error}");
        let error = json_argument("@/nowhere", "--tags")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot read /nowhere: "), "{error}");
    }

    #[test]
    fn values() {
        assert_eq!(quoted(r"a'b\"), r"'a\'b\\'");
        let twin = json!({"a": 1, "t": "2026-11-20T23:00:01.123Z", "n": "0001-01-01T00:00:00Z"});
        assert_eq!(
            (text(&twin, "/a"), text(&twin, "/b")),
            ("1".into(), String::new())
        );
        assert_eq!(time(&twin, "/t"), "2026-11-20 23:00:01");
        assert_eq!(time(&twin, "/n"), "");
    }
}
