//! The device agent's configuration: a TOML file.
//!
//! `examples/agent/twinflash.toml` describes every key.

mod install;

use crate::{error::Error, secret};
use install::InstallTable;
use serde::{Deserialize, Deserializer, de};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};
use twinflash::{
    command,
    contract::{Contract, ContractError},
    download::{HttpOptions, Proxy},
    install::Installer,
    tls::Roots,
    update::{Confirm, Policy},
};

/// The time a command has that tells the version.
const VERSION_TIME: Duration = Duration::from_secs(60);

/// The whole file. Relative paths in it are relative to its directory.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    connection_string: Option<String>,
    ca: Option<String>,
    #[serde(default = "default_contract")]
    contract: String,
    state_dir: PathBuf,
    current_version: Option<String>,
    version_from: Option<VersionFrom>,
    install: InstallTable,
    #[serde(default)]
    policy: PolicyTable,
    #[serde(default)]
    http: HttpTable,
    /// Where the file lies.
    #[serde(skip)]
    directory: PathBuf,
}

fn default_contract() -> String {
    "iothub-dm".into()
}

/// What tells the version that runs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VersionFrom {
    /// What is in this file.
    File(PathBuf),
    /// What this command prints.
    Command(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a word, or a command as an array of texts")]
enum WordOrCommand {
    Word(String),
    Command(Vec<String>),
}

/// Every key as in [`Policy`]; times in seconds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyTable {
    allow_http: Option<bool>,
    max_size: Option<u64>,
    require_check: Option<bool>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpTable {
    ca: Option<String>,
    proxy: Option<String>,
    user_agent: Option<String>,
    connect_timeout: Option<Seconds>,
}

/// A time in seconds, whole or not.
#[derive(Debug, Clone, Copy)]
struct Seconds(Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const MOST: f64 = 366.0 * 24.0 * 3600.0;
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number of seconds")]
        enum Number {
            Whole(i64),
            Part(f64),
        }
        let seconds = match Number::deserialize(deserializer)? {
            #[expect(clippy::cast_precision_loss, reason = "out of bounds long before")]
            Number::Whole(seconds) => seconds as f64,
            Number::Part(seconds) => seconds,
        };
        (0.0..=MOST)
            .contains(&seconds)
            .then(|| Self(Duration::from_secs_f64(seconds)))
            .ok_or_else(|| de::Error::custom(format!("{seconds} s is not from 0 to {MOST} s")))
    }
}

impl Config {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(file)
            .map_err(|error| Error::new(format_args!("cannot read {}: {error}", file.display())))?;
        let mut config = Self::parse(&text)
            .map_err(|why| Error::new(format_args!("{}, {why}", file.display())))?;
        config.directory = file.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(config)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.matches('\n').count() + 1);
            let message: Vec<_> = error.message().lines().map(str::trim).collect();
            format!("line {line}: {}", message.join("; "))
        })?;
        if config.current_version.is_some() && config.version_from.is_some() {
            return Err("current_version and version_from exclude each other: keep one".into());
        }
        Ok(config)
    }

    /// The device's connection string: `given` on the command line or in the environment, else the
    /// file's.
    pub(crate) fn connection_string(&self, given: Option<&str>) -> Result<String, Error> {
        match (given, &self.connection_string) {
            (Some(given), _) => secret::resolve(given, Path::new("")),
            (None, Some(text)) => secret::resolve(text, &self.directory),
            (None, None) => Err(Error::new(
                "no connection string: set connection_string in the configuration, TWINFLASH_DEVICE in the environment, or --connection @FILE",
            )),
        }
    }

    /// The authorities the hub's certificate must come from.
    pub(crate) fn roots(&self) -> Result<Roots, Error> {
        roots(self.ca.as_deref(), &self.directory)
    }

    pub(crate) fn contract(&self) -> Result<Contract, Error> {
        contract(&self.contract, &self.directory)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.join(&self.state_dir)
    }

    pub(crate) fn installer(&self) -> Result<Box<dyn Installer>, Error> {
        self.install.installer(&self.directory, &self.state_dir())
    }

    /// The version that runs now, where the configuration says how that is known.
    pub(crate) fn current_version(&self) -> Result<Option<String>, Error> {
        let (from, text) = match &self.version_from {
            None => return Ok(self.current_version.clone()),
            Some(VersionFrom::File(file)) => {
                let file = self.directory.join(file);
                let text = start_of(&file).map_err(|error| {
                    let file = file.display();
                    Error::new(format_args!("version_from: cannot read {file}: {error}"))
                })?;
                (file.display().to_string(), text)
            }
            Some(VersionFrom::Command(command)) => {
                let printed = command::run(command, VERSION_TIME).map_err(|failure| {
                    Error::new(format_args!("version_from: {}", failure.message))
                })?;
                (command.join(" "), printed)
            }
        };
        match text.lines().next().map(str::trim) {
            Some(version) if !version.is_empty() => Ok(Some(version.to_owned())),
            _ => Err(Error::new(format_args!(
                "version_from: {from} gives no version in its first line"
            ))),
        }
    }

    pub(crate) fn policy(&self) -> Result<Policy, Error> {
        let table = &self.policy;
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
        if policy.retry.first > policy.retry.longest {
            return Err(Error::new(
                "policy.retry_first is longer than policy.retry_longest",
            ));
        }
        policy.confirm = match &table.confirm {
            None => Confirm::Connected,
            Some(WordOrCommand::Command(command)) if !command.is_empty() => {
                Confirm::Health(command.clone())
            }
            Some(WordOrCommand::Word(word)) if word == "connected" => Confirm::Connected,
            Some(WordOrCommand::Word(word)) if word == "none" => Confirm::None,
            Some(other) => {
                return Err(Error::new(format_args!(
                    "policy.confirm is {}; it must be \"connected\", \"none\" or a health command as an array of texts",
                    other.shown()
                )));
            }
        };
        Ok(policy)
    }

    pub(crate) fn http(&self) -> Result<HttpOptions, Error> {
        let table = &self.http;
        let mut http = HttpOptions::default();
        http.roots = roots(table.ca.as_deref(), &self.directory)?;
        http.proxy = match table.proxy.as_deref() {
            None | Some("environment") => Proxy::Environment,
            Some("none") => Proxy::None,
            Some(url) => Proxy::Url(url.into()),
        };
        if let Some(user_agent) = &table.user_agent {
            http.user_agent.clone_from(user_agent);
        }
        if let Some(timeout) = table.connect_timeout {
            http.connect_timeout = timeout.0;
        }
        Ok(http)
    }
}

impl WordOrCommand {
    fn shown(&self) -> String {
        match self {
            Self::Word(word) => format!("\"{word}\""),
            Self::Command(_) => "an empty array".into(),
        }
    }
}

/// Built-in authorities, the system's, or a file's.
fn roots(ca: Option<&str>, directory: &Path) -> Result<Roots, Error> {
    match ca {
        None => Ok(Roots::BuiltIn),
        Some("system") => Ok(Roots::System),
        Some(file) => Ok(Roots::from_pem_file(directory.join(file))?),
    }
}

/// A built-in contract by its name, or another one from its file: what has a slash in it, or ends in
/// `.json`.
pub(crate) fn contract(name: &str, directory: &Path) -> Result<Contract, Error> {
    if !name.contains(std::path::is_separator) && !name.ends_with(".json") {
        return Ok(Contract::built_in(name)?);
    }
    let file = directory.join(name);
    let shown = file.display();
    let json = fs::read(&file)
        .map_err(|error| Error::new(format_args!("cannot read the contract {shown}: {error}")))?;
    Contract::from_json(&json)
        .map_err(|error: ContractError| Error::new(format_args!("{shown}: {error}")))
}

/// As much of a file as may hold a version; it may be a program with a line of text before it.
fn start_of(file: &Path) -> io::Result<String> {
    let mut start = Vec::new();
    File::open(file)?.take(4096).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}

#[cfg(test)]
mod tests;
