//! How an updater is set up, as one document: what the agent reads as TOML, and what C, Python and
//! Node hand over as JSON. One set of keys for all, which
//! `examples/agent/twinflash.toml` describes.
//!
//! ```
//! use twinflash::config::Config;
//! # let dir = tempfile::tempdir()?;
//! let config = Config::from_json(br#"{
//!     "contract": "iothub-dm",
//!     "state_dir": "state",
//!     "current_version": "1.0.0",
//!     "install": { "file": "app.bin", "restart": "none" },
//!     "policy": { "progress_step": 5 }
//! }"#)?.in_directory(dir.path());
//! let updater = config.builder()?.start()?;
//! assert_eq!(updater.status().running_version.as_deref(), Some("1.0.0"));
//!
//! // What is wrong is named with its place.
//! let error = Config::from_json(br#"{"policy":{"retry_time":-1}}"#).unwrap_err();
//! assert!(error.message.contains("policy.retry_time"), "{error}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod install;
mod secret;
mod tables;
mod trust;

#[cfg(feature = "http")]
use crate::download::HttpOptions;
#[cfg(any(feature = "http", feature = "mqtt"))]
use crate::tls::{ClientIdentity, Roots};
use crate::{
    command,
    contract::Contract,
    device::{Builder, Updater},
    install::Installer,
    json,
    update::{Code, Failure, Policy, trust::Trust},
    windows::Windows,
};
use install::InstallTable;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};
#[cfg(feature = "http")]
use tables::HttpTable;
use tables::PolicyTable;
use trust::TrustTable;

/// The time a command has that tells the version.
const VERSION_TIME: Duration = Duration::from_secs(60);

/// What a program gave as a configuration. Its `Debug` shows no secret.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    connection_string: Option<String>,
    #[cfg_attr(not(any(feature = "http", feature = "mqtt")), expect(dead_code))]
    ca: Option<String>,
    #[cfg_attr(not(any(feature = "http", feature = "mqtt")), expect(dead_code))]
    client_certificate: Option<String>,
    #[cfg_attr(not(any(feature = "http", feature = "mqtt")), expect(dead_code))]
    client_key: Option<String>,
    #[serde(default)]
    contract: ContractChoice,
    state_dir: PathBuf,
    current_version: Option<String>,
    version_from: Option<VersionFrom>,
    install: Option<InstallTable>,
    #[serde(default)]
    trust: TrustTable,
    #[serde(default)]
    policy: PolicyTable,
    #[serde(default)]
    source: Source,
    #[cfg(feature = "http")]
    #[serde(default)]
    http: HttpTable,
    /// What relative paths are relative to.
    #[serde(skip)]
    directory: PathBuf,
}

#[derive(Debug)]
enum ContractChoice {
    Name(String),
    Whole(Value),
}

impl<'de> Deserialize<'de> for ContractChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self::Name(name)),
            whole @ Value::Object(_) => Ok(Self::Whole(whole)),
            _ => Err(D::Error::custom(
                "expected a contract's name or file, or a contract",
            )),
        }
    }
}

impl Default for ContractChoice {
    fn default() -> Self {
        Self::Name("iothub-dm".into())
    }
}

/// Who fetches images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    /// This library, from an HTTP server.
    #[cfg(feature = "http")]
    #[default]
    Http,
    /// The application.
    #[cfg_attr(not(feature = "http"), default)]
    Offered,
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

fn wrong(message: impl fmt::Display) -> Failure {
    Failure::new(Code::InvalidConfig, message)
}

impl Config {
    /// Reads a configuration in JSON.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: what is wrong, and under which key.
    pub fn from_json(json: &[u8]) -> Result<Self, Failure> {
        json::read(json).map_err(|error| match error.path() {
            "" => wrong(format_args!("configuration: {error}")),
            _ => wrong(format_args!("configuration, {error}")),
        })
    }

    /// Relative paths are relative to this directory; by default to the process's own.
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// An updater's builder with everything this configuration says.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: what is wrong, and under which key; a file that is named cannot be
    /// read; the command that tells the version failed.
    pub fn builder(&self) -> Result<Builder, Failure> {
        self.builder_with(self.installer()?)
    }

    /// As [`builder`](Self::builder), with an installer of the application's own in place of the
    /// configuration's.
    ///
    /// # Errors
    /// As [`builder`](Self::builder).
    pub fn builder_with(&self, installer: impl Installer + 'static) -> Result<Builder, Failure> {
        let mut builder = Updater::builder(self.state_dir(), self.contract()?, installer)
            .policy(self.policy()?)
            .windows(self.windows()?);
        #[cfg(feature = "http")]
        {
            builder = builder.http(self.http()?);
        }
        if self.source == Source::Offered {
            builder = builder.offered();
        }
        if let Some(trust) = self.trust()? {
            builder = builder.trust(trust);
        }
        #[cfg(feature = "encryption")]
        if let Some(identities) = self.identities()? {
            builder = builder.decryption(identities);
        }
        if let Some(version) = self.current_version()? {
            builder = builder.current_version(version);
        }
        Ok(builder)
    }

    /// Whether the configuration says what is installed, so that no installer is to be given.
    pub fn has_installer(&self) -> bool {
        self.install.is_some()
    }

    /// The device's connection string, where the configuration has one.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: the file it is in (`@FILE`) cannot be read, or is empty.
    pub fn connection_string(&self) -> Result<Option<String>, Failure> {
        let given = self.connection_string.as_deref();
        given
            .map(|given| connection_string(given, &self.directory))
            .transpose()
    }

    /// The authorities the hub's certificate must come from.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: the file cannot be read, or holds none.
    #[cfg(any(feature = "http", feature = "mqtt"))]
    pub fn roots(&self) -> Result<Roots, Failure> {
        tables::roots(self.ca.as_deref(), "ca", &self.directory)
    }

    /// The certificate by which the device proves itself to its hub, and its key, where it has one.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: a file cannot be read, holds none, or the two are not each other's.
    #[cfg(any(feature = "http", feature = "mqtt"))]
    pub fn identity(&self) -> Result<Option<ClientIdentity>, Failure> {
        let (certificate, key) = (&self.client_certificate, &self.client_key);
        tables::identity(certificate.as_ref(), key.as_ref(), "", &self.directory)
    }

    /// The contract.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: there is none of that name, or its file or its text is wrong.
    pub fn contract(&self) -> Result<Contract, Failure> {
        match &self.contract {
            ContractChoice::Name(name) => contract(name, &self.directory),
            ContractChoice::Whole(object) => {
                let json = serde_json::to_vec(object).map_err(wrong)?;
                Contract::from_json(&json).map_err(wrong)
            }
        }
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join(&self.state_dir)
    }

    /// The installer.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: there is none, or something is wrong with it.
    pub fn installer(&self) -> Result<Box<dyn Installer>, Failure> {
        match &self.install {
            Some(install) => install.installer(&self.directory, &self.state_dir()),
            None => Err(wrong(
                "install is missing: it says what is installed (file, slots or command)",
            )),
        }
    }

    /// What the device's owner allows.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: two keys do not go together, or a word is not known.
    pub fn policy(&self) -> Result<Policy, Failure> {
        self.policy.policy()
    }

    /// When images are downloaded and applied.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: what is no day, no time or no zone that this system knows.
    pub fn windows(&self) -> Result<Windows, Failure> {
        self.policy.windows()
    }

    /// The keys that must vouch for an image, where the configuration has some.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: a key cannot be read or used, or there are fewer than must sign.
    pub fn trust(&self) -> Result<Option<Trust>, Failure> {
        self.trust.trust(&self.directory)
    }

    /// What decrypts images that are encrypted for this device, where the configuration has it.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: the file cannot be read, holds no age identity, or others may read it.
    #[cfg(feature = "encryption")]
    pub fn identities(&self) -> Result<Option<crate::age::Identities>, Failure> {
        self.trust.identities(&self.directory)
    }

    /// How images are fetched.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: the file of the authorities cannot be read, or holds none.
    #[cfg(feature = "http")]
    pub fn http(&self) -> Result<HttpOptions, Failure> {
        self.http.options(&self.directory)
    }

    /// The version that runs now, where the configuration says how that is known.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: the file or the command that tells it does not.
    pub fn current_version(&self) -> Result<Option<String>, Failure> {
        let (from, text) = match (&self.current_version, &self.version_from) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "current_version and version_from exclude each other: keep one",
                ));
            }
            (version, None) => return Ok(version.clone()),
            (None, Some(VersionFrom::File(file))) => {
                let file = self.directory.join(file);
                let text = start_of(&file).map_err(|error| {
                    let file = file.display();
                    wrong(format_args!("version_from: cannot read {file}: {error}"))
                })?;
                (file.display().to_string(), text)
            }
            (None, Some(VersionFrom::Command(command))) => {
                let printed = command::run(command, VERSION_TIME)
                    .map_err(|failure| wrong(format_args!("version_from: {}", failure.message)))?;
                (command.join(" "), printed)
            }
        };
        match text.lines().next().map(str::trim) {
            Some(version) if !version.is_empty() => Ok(Some(version.to_owned())),
            _ => Err(wrong(format_args!(
                "version_from: {from} gives no version in its first line"
            ))),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("contract", &self.contract)
            .field("state_dir", &self.state_dir)
            .field("current_version", &self.current_version)
            .field("version_from", &self.version_from)
            .field("install", &self.install)
            .field("trust", &self.trust)
            .field("policy", &self.policy)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

/// A built-in contract by its name, or another one from its file: what has a slash in it, or ends in
/// `.json`. A relative file is looked for in `directory`.
///
/// # Errors
/// [`Code::InvalidConfig`]: there is none of that name; the file cannot be read, or is wrong.
pub fn contract(name: &str, directory: &Path) -> Result<Contract, Failure> {
    if !name.contains(std::path::is_separator) && !name.ends_with(".json") {
        return Contract::built_in(name).map_err(wrong);
    }
    let file = directory.join(name);
    let shown = file.display();
    let json = fs::read(&file)
        .map_err(|error| wrong(format_args!("cannot read the contract {shown}: {error}")))?;
    Contract::from_json(&json).map_err(|error| wrong(format_args!("{shown}: {error}")))
}

/// What is meant by a connection string as it was given: itself, or with `@FILE` what that file
/// holds. A relative file is looked for in `directory`.
///
/// # Errors
/// [`Code::InvalidConfig`]: the file cannot be read, or is empty.
pub fn connection_string(given: &str, directory: &Path) -> Result<String, Failure> {
    let Some(file) = given.trim().strip_prefix('@') else {
        return Ok(given.to_owned());
    };
    let file = directory.join(file);
    let shown = file.display();
    let text = secret::read_proof(&file, "connection_string").map_err(|error| {
        wrong(format_args!(
            "cannot read the connection string from {shown}: {error}"
        ))
    })?;
    match text.trim() {
        "" => Err(wrong(format_args!(
            "{shown} is empty; it must hold a connection string"
        ))),
        text => Ok(text.to_owned()),
    }
}

/// As much of a file as may hold a version; it may be a program with a line of text before it.
fn start_of(file: &Path) -> io::Result<String> {
    let mut start = Vec::new();
    File::open(file)?.take(4096).read_to_end(&mut start)?;
    Ok(String::from_utf8_lossy(&start).into_owned())
}
