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
    process::{Command, Stdio},
    time::Duration,
};
use twinflash::{
    contract::{Contract, ContractError},
    download::{HttpOptions, Proxy},
    install::Installer,
    tls::Roots,
    update::{Confirm, Policy},
};

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
            Some(VersionFrom::Command(command)) => (command.join(" "), output(command)?),
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

/// What a command prints; it must end with status 0.
fn output(command: &[String]) -> Result<String, Error> {
    let failed = |why: String| {
        let command = command.join(" ");
        Error::new(format_args!("version_from: {command} {why}"))
    };
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::new("version_from: the command is empty"));
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../examples/agent/twinflash.toml");

    fn smallest(more: &str) -> Result<Config, String> {
        Config::parse(&format!(
            "state_dir = \"s\"\n[install]\nfile = \"f\"\n{more}"
        ))
    }

    /// Which keys of `[install]` belong to which installer; the others to all.
    const INSTALLERS: [(&str, &[&str]); 3] = [
        ("file", &["file"]),
        (
            "slots",
            &["slots", "switch", "running", "verify", "command_time"],
        ),
        (
            "command",
            &[
                "command",
                "install_time",
                "inspect",
                "confirm",
                "rollback",
                "command_time",
            ],
        ),
    ];

    fn uncommented() -> String {
        uncommented_for("file", 0)
    }

    /// The example with the keys that are commented out, for one installer; of several forms of a key
    /// the first, but of `switch` and `command` the one of this number.
    fn uncommented_for(installer: &str, form: usize) -> String {
        let mut seen = Vec::new();
        let mut text = String::new();
        let mut table = "";
        for line in EXAMPLE.lines() {
            if line.starts_with('[') {
                table = line;
                seen.clear();
            }
            let key = line.strip_prefix('#').filter(|key| !key.starts_with(' '));
            let Some((name, _)) = key.unwrap_or(line).split_once(" = ") else {
                text += &format!("{line}\n");
                continue;
            };
            let of = |(_, keys): &&(&str, &[&str])| keys.contains(&name);
            let mut owners = INSTALLERS.iter().filter(of).peekable();
            if table == "[install]" && owners.peek().is_some() && !owners.any(|o| o.0 == installer)
            {
                continue;
            }
            let before = seen.iter().filter(|seen| **seen == name).count();
            let forms = table == "[install]" && ["switch", "command"].contains(&name);
            if key.is_some() && name != "ca" {
                seen.push(name);
            }
            let wanted = if forms { form } else { 0 };
            if key.is_some() && (before != wanted || name == "current_version") {
                continue;
            }
            text += &format!("{}\n", key.unwrap_or(line));
        }
        text
    }

    #[test]
    fn the_example_is_good_with_and_without_its_comments() {
        for text in [EXAMPLE, &uncommented()] {
            let config = Config::parse(text).unwrap();
            config.policy().unwrap();
            config.installer().unwrap();
            config.contract().unwrap();
        }
        let config = Config::parse(&uncommented()).unwrap();
        assert!(matches!(config.version_from, Some(VersionFrom::File(_))));
        assert_eq!(config.http.connect_timeout.unwrap().0.as_secs(), 20);
    }

    #[test]
    fn every_installer_of_the_example_is_made() {
        for (installer, form, expected) in [
            ("slots", 0, "UBoot"),
            ("slots", 1, "/etc/fw_env.config"),
            ("slots", 2, "partitions: [2, 3]"),
            ("slots", 3, "Link(\"/data/current\")"),
            ("slots", 4, "try_slot: [\"slot\", \"try\", \"{slot}\"]"),
            ("command", 0, "\"rauc\", \"install\", \"{image}\""),
            ("command", 1, "\"swupdate\""),
        ] {
            let text = uncommented_for(installer, form);
            let config = Config::parse(&text).unwrap();
            let install = format!("{:?}", config.installer().unwrap());
            assert!(install.contains(expected), "{install}");
            let reboots = installer == "slots" && form != 3;
            let restart = config.installer().unwrap().restart();
            let is_reboot = matches!(restart, twinflash::install::Restart::Reboot(_));
            assert_eq!(is_reboot, reboots, "{restart:?}");
        }
    }

    #[test]
    fn an_installer_that_cannot_be() {
        let install = |text: &str| {
            let text = format!("state_dir = \"s\"\n[install]\n{text}");
            let config = Config::parse(&text).unwrap();
            config.installer().unwrap_err().to_string()
        };
        let slots = "slots = { A = \"a\", B = \"b\" }\nswitch = { link = \"l\" }\n";
        for (text, expected) in [
            ("", "one of file, slots and command"),
            (
                "file = \"f\"\ncommand = [\"c\"]",
                "one of file, slots and command",
            ),
            (
                "file = \"f\"\nverify = \"read-back\"",
                "install.verify means nothing where install.file",
            ),
            (
                &format!("{slots}inspect = [\"x\"]"),
                "install.inspect means nothing where install.slots",
            ),
            (
                "slots = { A = \"a\" }\nswitch = { link = \"l\" }",
                "must name two slots",
            ),
            ("slots = { A = \"a\", B = \"b\" }", "needs install.switch"),
            (
                "slots = { A = \"a\", B = \"a\" }\nswitch = { link = \"l\" }",
                "two places",
            ),
            ("command = []", "a command is an empty array"),
        ] {
            let error = install(text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_defaults_in_the_example_are_the_defaults() {
        let text: Vec<_> = uncommented().lines().map(str::to_owned).collect();
        let text: Vec<_> = text
            .iter()
            .filter(|line| !line.contains("health-check"))
            .collect();
        let text: String = text.iter().map(|line| format!("{line}\n")).collect();
        let policy = Config::parse(&text).unwrap().policy().unwrap();
        assert_eq!(policy, Policy::default());
    }

    #[test]
    fn the_example_describes_every_key() {
        for (table, at) in [("", 0), ("[install]", 1), ("[policy]", 2), ("[http]", 3)] {
            let error = smallest(&format!("{table}\nnothing = 1"));
            let error = match at {
                0 => Config::parse("nothing = 1").unwrap_err(),
                1 => Config::parse("state_dir = \"s\"\n[install]\nnothing = 1").unwrap_err(),
                _ => error.unwrap_err(),
            };
            assert!(error.contains("unknown field `nothing`"), "{error}");
            let section = EXAMPLE.split("\n[").nth(at).unwrap();
            let (_, known) = error.split_once("expected").unwrap();
            for key in known.split('`').skip(1).step_by(2) {
                let there = [format!("\n{key} = "), format!("\n#{key} = ")];
                let table = EXAMPLE.contains(&format!("\n[{key}]\n"));
                assert!(
                    table || there.iter().any(|key| section.contains(key)),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (more, expected) in [
            (
                "[policy]\nallow_htp = true",
                "line 5: unknown field `allow_htp`",
            ),
            ("[policy]\nretry_first = -1", "line 5: -1 s is not from 0"),
            ("[policy]\nretry_first = \"1\"", "a number of seconds"),
            ("[policy]\nmax_size = \"big\"", "line 5: invalid type"),
            ("restart = 5", "a word, or a command as an array of texts"),
            ("[policy", "line 4: "),
        ] {
            let error = smallest(more).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        for (more, expected) in [
            ("restart = \"later\"", "install.restart is \"later\""),
            ("restart = []", "install.restart is an empty array"),
        ] {
            let error = smallest(more).unwrap().installer().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        for (more, expected) in [
            (
                "[policy]\nconfirm = \"perhaps\"",
                "policy.confirm is \"perhaps\"",
            ),
            (
                "[policy]\nretry_first = 9\nretry_longest = 3.5",
                "policy.retry_first",
            ),
        ] {
            let error = smallest(more).unwrap().policy().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let both = "current_version = \"1\"\nversion_from = { file = \"v\" }\nstate_dir = \"s\"\n[install]\nfile = \"f\"";
        assert!(
            Config::parse(both)
                .unwrap_err()
                .contains("exclude each other")
        );
    }

    #[test]
    fn a_version_comes_from_a_file_or_a_command() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("version"), " 1.2.3 \nmore").unwrap();
        let read = |line: &str| {
            let file = directory.path().join("c.toml");
            let text = format!("{line}\nstate_dir = \"s\"\n[install]\nfile = \"f\"");
            fs::write(&file, text).unwrap();
            Config::read(&file).unwrap().current_version()
        };
        for line in [
            "version_from = { file = \"version\" }",
            "version_from = { command = [\"printf\", \"1.2.3\"] }",
            "current_version = \"1.2.3\"",
        ] {
            assert_eq!(read(line).unwrap().as_deref(), Some("1.2.3"));
        }
        for (line, expected) in [
            ("version_from = { file = \"none\" }", "none: No such file"),
            (
                "version_from = { command = [\"false\"] }",
                "false ended with exit status: 1",
            ),
            (
                "version_from = { command = [\"true\"] }",
                "gives no version",
            ),
            ("version_from = { command = [] }", "the command is empty"),
        ] {
            let error = read(line).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
