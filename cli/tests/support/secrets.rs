//! Every process of these tests is looked through for secrets: what it prints, and what an agent keeps.

use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Stands for what is secret in URLs: a user's password, a signature in a query.
const SECRET: &str = "S3CR3T";
/// The keys of the hubs there were.
static KEYS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a command is there to tell.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub enum Tells {
    Nothing,
    /// What a hub has been told, as it is: the URL of an image in a configuration.
    Documents,
    /// Connection strings.
    Keys,
}

impl Tells {
    pub fn of(command: &Command) -> Self {
        let told = command.get_args().map(|argument| match argument.to_str() {
            Some("hub" | "devices") => Self::Keys,
            Some("config" | "job" | "query" | "twin") => Self::Documents,
            _ => Self::Nothing,
        });
        told.fold(
            Self::Nothing,
            |one, other| if other > one { other } else { one },
        )
    }
}

fn keys() -> MutexGuard<'static, Vec<String>> {
    KEYS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on no process may tell the keys in these connection strings.
pub fn keep(ready: &Value) {
    let text = ready.to_string();
    let found = text.split("SharedAccessKey=").skip(1);
    let found: Vec<_> = found
        .filter_map(|rest| Some(rest.split(['"', ';']).next()?.to_owned()))
        .collect();
    assert!(!found.is_empty(), "{text}");
    keys().extend(found);
}

/// A URL with a user, a password and a signature.
pub fn put_into(url: &str) -> String {
    let url = url.replace("://", &format!("://me:{SECRET}@"));
    match url.contains('?') {
        true => format!("{url}&sig={SECRET}"),
        false => format!("{url}?sig={SECRET}"),
    }
}

/// Fails where a text holds what its command is not there to tell.
pub fn none_in(text: &str, tells: Tells) {
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    if tells < Tells::Documents {
        assert!(!text.contains(SECRET) && !text.contains("sig="), "{text}");
    }
    if tells < Tells::Keys {
        let told = keys().iter().find(|key| text.contains(&**key)).cloned();
        assert_eq!(told, None, "is in {text}");
        assert!(!text.contains("SharedAccessSignature"), "{text}");
    }
}

/// An agent's state, which is looked through in the end for keys and tokens. That the journal holds the last request's
/// URL is known, and is looked at elsewhere.
pub struct State(pub PathBuf);

impl Drop for State {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        for entry in fs::read_dir(&self.0).into_iter().flatten() {
            let content = fs::read(entry.unwrap().path()).unwrap_or_default();
            none_in(&String::from_utf8_lossy(&content), Tells::Documents);
        }
    }
}
