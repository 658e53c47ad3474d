//! The configuration's tables `policy` and `http`, and the forms of their values.

#[cfg(any(feature = "http", feature = "mqtt"))]
use super::secret;
use super::wrong;
#[cfg(feature = "http")]
use crate::download::{HttpOptions, Proxy};
use crate::json;
#[cfg(any(feature = "http", feature = "mqtt"))]
use crate::tls::{ClientIdentity, Roots};
use crate::update::{Confirm, ConsentBy, Failure, Policy, Ready, Stage, VersionRule};
use crate::windows::{Window, Windows};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
#[cfg(feature = "http")]
use std::collections::BTreeMap;
#[cfg(any(feature = "http", feature = "mqtt"))]
use std::path::Path;
use std::time::Duration;

/// Slower than this, servers and what lies between give a download up.
const SLOWEST: u64 = 1024;

#[derive(Debug)]
pub(super) enum WordOrCommand {
    Word(String),
    Command(Vec<String>),
}

impl<'de> Deserialize<'de> for WordOrCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(word) => Ok(Self::Word(word)),
            command => json::of(&command).map(Self::Command).map_err(|_| {
                de::Error::custom("expected a word, or a command as an array of texts")
            }),
        }
    }
}

/// Every key as in [`Policy`]; times in seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PolicyTable {
    allow_http: Option<bool>,
    max_size: Option<u64>,
    require_check: Option<bool>,
    require_manifest: Option<bool>,
    floor: Option<String>,
    version: Option<VersionRule>,
    consent: Option<Vec<Stage>>,
    consent_by: Option<ConsentBy>,
    consent_command: Option<Vec<String>>,
    consent_interval: Option<Seconds>,
    ready: Option<Vec<String>>,
    ready_interval: Option<Seconds>,
    start_delay: Option<Seconds>,
    bandwidth: Option<u64>,
    dry_run: Option<bool>,
    download_windows: Vec<WindowTable>,
    apply_windows: Vec<WindowTable>,
    retry_first: Option<Seconds>,
    retry_longest: Option<Seconds>,
    retry_time: Option<Seconds>,
    retry_sizes: Option<u32>,
    checkpoint_interval: Option<Seconds>,
    checkpoint_bytes: Option<u64>,
    stall_time: Option<Seconds>,
    stall_bytes: Option<u64>,
    max_redirects: Option<u32>,
    progress_step: Option<u8>,
    progress_interval: Option<Seconds>,
    answer_wait: Option<Seconds>,
    apply_attempts: Option<u32>,
    confirm: Option<WordOrCommand>,
    confirm_attempts: Option<u32>,
    confirm_time: Option<Seconds>,
}

/// As [`Window::new`] has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    #[serde(default)]
    days: Vec<String>,
    from: String,
    to: String,
    zone: Option<String>,
}

#[cfg(feature = "http")]
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpTable {
    ca: Option<String>,
    proxy: Option<String>,
    user_agent: Option<String>,
    connect_timeout: Option<Seconds>,
    hosts: Vec<String>,
    client_certificate: Option<String>,
    client_key: Option<String>,
    headers: BTreeMap<String, String>,
}

/// A time in seconds, whole or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds(pub(super) Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const MOST: u32 = 366 * 24 * 3600;
        let number = Value::deserialize(deserializer)?;
        let Some(seconds) = number.as_f64() else {
            return Err(de::Error::custom("expected a number of seconds"));
        };
        (0.0..=f64::from(MOST))
            .contains(&seconds)
            .then(|| Self(Duration::from_secs_f64(seconds)))
            .ok_or_else(|| de::Error::custom(format!("{number} s is not from 0 to {MOST} s")))
    }
}

impl PolicyTable {
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let table = self;
        let mut policy = Policy::default();
        macro_rules! take {
            ($($from:ident => $($to:ident).+ $(, $of:tt)?;)*) => {
                $(if let Some(value) = table.$from {
                    policy.$($to).+ = value $(.$of)?;
                })*
            };
        }
        take! {
            allow_http => allow_http;
            max_size => max_size;
            require_check => require_check;
            require_manifest => require_manifest;
            version => version;
            consent_by => consent_by;
            consent_interval => consent_interval, 0;
            ready_interval => ready_interval, 0;
            start_delay => start_delay, 0;
            dry_run => dry_run;
            retry_first => retry.first, 0;
            retry_longest => retry.longest, 0;
            retry_time => retry.time, 0;
            retry_sizes => retry.sizes;
            checkpoint_interval => checkpoint_interval, 0;
            checkpoint_bytes => checkpoint_bytes;
            stall_time => stall_time, 0;
            stall_bytes => stall_bytes;
            max_redirects => max_redirects;
            progress_step => progress_step;
            progress_interval => progress_interval, 0;
            answer_wait => answer_wait, 0;
            apply_attempts => apply_attempts;
            confirm_attempts => confirm_attempts;
            confirm_time => confirm_time, 0;
        }
        policy.floor.clone_from(&table.floor);
        policy.consent = table.consent.clone().unwrap_or_default();
        policy.consent_command = command(table.consent_command.as_ref(), "policy.consent_command")?;
        if policy.consent.is_empty() && !policy.consent_command.is_empty() {
            return Err(wrong(
                "policy.consent_command is never run: policy.consent says before which of \"download\" and \"apply\" it is",
            ));
        }
        policy.ready = match command(table.ready.as_ref(), "policy.ready")? {
            none if none.is_empty() => Ready::Always,
            command => Ready::Command(command),
        };
        for (time, key) in [
            (policy.consent_interval, "consent_interval"),
            (policy.ready_interval, "ready_interval"),
        ] {
            if time.is_zero() {
                return Err(wrong(format_args!(
                    "policy.{key} is 0; who is asked again must have some time"
                )));
            }
        }
        policy.bandwidth = table.bandwidth;
        if let Some(bytes) = table.bandwidth.filter(|bytes| *bytes < SLOWEST) {
            return Err(wrong(format_args!(
                "policy.bandwidth is {bytes}; it is a number of bytes a second, at least {SLOWEST}"
            )));
        }
        if policy.progress_step > 100 {
            return Err(wrong(format_args!(
                "policy.progress_step is {}; it is per cent, from 0 to 100",
                policy.progress_step
            )));
        }
        if policy.retry.first > policy.retry.longest {
            return Err(wrong(
                "policy.retry_first is longer than policy.retry_longest",
            ));
        }
        policy.confirm = match &table.confirm {
            None => Confirm::Connected,
            Some(WordOrCommand::Command(health)) => {
                Confirm::Health(command(Some(health), "policy.confirm")?)
            }
            Some(WordOrCommand::Word(word)) if word == "connected" => Confirm::Connected,
            Some(WordOrCommand::Word(word)) if word == "call" => Confirm::Call,
            Some(WordOrCommand::Word(word)) if word == "none" => Confirm::None,
            Some(WordOrCommand::Word(word)) => {
                return Err(wrong(format_args!(
                    "policy.confirm is \"{word}\"; it must be \"connected\", \"call\", \"none\" or a health command as an array of texts"
                )));
            }
        };
        Ok(policy)
    }
}

impl PolicyTable {
    pub(super) fn windows(&self) -> Result<Windows, Failure> {
        Ok(Windows {
            download: windows(&self.download_windows, "download_windows")?,
            apply: windows(&self.apply_windows, "apply_windows")?,
        })
    }
}

fn windows(tables: &[WindowTable], key: &str) -> Result<Vec<Window>, Failure> {
    let window = |(number, table): (usize, &WindowTable)| {
        let zone = table.zone.as_deref().unwrap_or("UTC");
        Window::new(&table.days, &table.from, &table.to, zone)
            .map_err(|failure| wrong(format_args!("policy.{key}[{number}]: {}", failure.message)))
    };
    tables.iter().enumerate().map(window).collect()
}

/// A command that may be left out, but not be without a program.
pub(super) fn command(command: Option<&Vec<String>>, key: &str) -> Result<Vec<String>, Failure> {
    let Some(command) = command else {
        return Ok(Vec::new());
    };
    let wrong = match command.first() {
        None => "is an empty array",
        Some(program) if program.trim().is_empty() => "begins with an empty text",
        Some(_) => return Ok(command.clone()),
    };
    Err(super::wrong(format_args!(
        "{key} {wrong}; a command is its program and its arguments"
    )))
}

#[cfg(feature = "http")]
impl HttpTable {
    pub(super) fn options(&self, directory: &Path) -> Result<HttpOptions, Failure> {
        let mut http = HttpOptions {
            roots: roots(self.ca.as_deref(), "http.ca", directory)?,
            proxy: match self.proxy.as_deref() {
                None | Some("environment") => Proxy::Environment,
                Some("none") => Proxy::None,
                Some(url) => Proxy::Url(url.into()),
            },
            ..HttpOptions::default()
        };
        if let Some(user_agent) = &self.user_agent {
            http.user_agent.clone_from(user_agent);
        }
        if let Some(timeout) = self.connect_timeout {
            http.connect_timeout = timeout.0;
        }
        let (certificate, key) = (&self.client_certificate, &self.client_key);
        http.identity = identity(certificate.as_ref(), key.as_ref(), "http.", directory)?;
        http.hosts.clone_from(&self.hosts);
        for (name, value) in &self.headers {
            let value = match value.strip_prefix('@') {
                Some(file) => {
                    let text = secret_of(&directory.join(file), "http.headers")?;
                    text.trim().to_owned()
                }
                None => value.clone(),
            };
            http.headers.push((name.clone(), value));
        }
        Ok(http)
    }
}

/// What the keys `client_certificate` and `client_key` of the table of this name say.
#[cfg(any(feature = "http", feature = "mqtt"))]
pub(super) fn identity(
    certificate: Option<&String>,
    key: Option<&String>,
    table: &str,
    directory: &Path,
) -> Result<Option<ClientIdentity>, Failure> {
    let names = [
        format!("{table}client_certificate"),
        format!("{table}client_key"),
    ];
    let [of_certificate, of_key] = &names;
    let Some(certificate) = certificate else {
        return match key {
            None => Ok(None),
            Some(_) => Err(wrong(format_args!(
                "{of_key} is there without {of_certificate}"
            ))),
        };
    };
    let (certificate, key) = match key {
        Some(key) => (
            text_of(certificate, of_certificate, false, directory)?,
            text_of(key, of_key, true, directory)?,
        ),
        // They may be in one file.
        None => {
            let both = text_of(certificate, of_certificate, true, directory)?;
            (both.clone(), both)
        }
    };
    ClientIdentity::from_pem(certificate.as_bytes(), key.as_bytes())
        .map(Some)
        .map_err(|error| wrong(format_args!("{of_certificate}: {error}")))
}

/// A PEM text, or a file's content.
#[cfg(any(feature = "http", feature = "mqtt"))]
fn text_of(given: &str, key: &str, is_secret: bool, directory: &Path) -> Result<String, Failure> {
    if given.trim_start().starts_with("-----BEGIN ") {
        return Ok(given.to_owned());
    }
    let file = directory.join(given);
    match is_secret {
        true => secret_of(&file, key),
        false => std::fs::read_to_string(&file).map_err(|error| unreadable(key, &file, &error)),
    }
}

#[cfg(any(feature = "http", feature = "mqtt"))]
fn secret_of(file: &Path, key: &str) -> Result<String, Failure> {
    secret::read_proof(file, key).map_err(|error| unreadable(key, file, &error))
}

#[cfg(any(feature = "http", feature = "mqtt"))]
fn unreadable(key: &str, file: &Path, error: &std::io::Error) -> Failure {
    let file = file.display();
    wrong(format_args!("{key}: cannot read {file}: {error}"))
}

/// Built-in authorities where there are any, the system's, those of a PEM text, or a file's.
#[cfg(any(feature = "http", feature = "mqtt"))]
pub(super) fn roots(ca: Option<&str>, key: &str, directory: &Path) -> Result<Roots, Failure> {
    let named = |error| wrong(format_args!("{key}: {error}"));
    let roots = match ca {
        None => return Ok(Roots::default()),
        Some("system") => return Ok(Roots::System),
        Some(pem) if pem.trim_start().starts_with("-----BEGIN ") => Roots::from_pem(pem.as_bytes()),
        Some(file) => Roots::from_pem_file(directory.join(file)),
    };
    // Where none can be used, whoever connects would say so, but not of which key.
    let roots = roots.and_then(|roots| roots.store().map(|_| roots));
    roots.map_err(named)
}
