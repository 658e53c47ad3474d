use super::*;
use twinflash::update::Policy;

const EXAMPLE: &str = include_str!("../../../examples/agent/twinflash.toml");

fn smallest(more: &str) -> Result<Config, String> {
    parse(&format!(
        "state_dir = \"s\"\n[install]\nfile = \"f\"\n{more}"
    ))
}

/// Which keys of `[install]` belong to which installer; the others to all.
const INSTALLERS: [(&str, &[&str]); 3] = [
    ("file", &["file", "verify"]),
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
        if table == "[install]" && owners.peek().is_some() && !owners.any(|o| o.0 == installer) {
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
        let config = parse(text).unwrap();
        config.policy().unwrap();
        config.installer().unwrap();
        config.contract().unwrap();
    }
    let config = parse(&uncommented()).unwrap();
    let version = config.current_version().unwrap_err().to_string();
    assert!(version.contains("/etc/firmware-version"), "{version}");
    let ca = config.http().unwrap_err().to_string();
    assert!(ca.contains("firmware-ca.pem"), "{ca}");
    let timeout = smallest("[http]\nconnect_timeout = 2.5").unwrap().http();
    assert_eq!(timeout.unwrap().connect_timeout.as_millis(), 2500);
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
        let config = parse(&text).unwrap();
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
        let config = parse(&text).unwrap();
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
            "command = [\"c\"]\nverify = \"read-back\"",
            "install.verify means nothing where install.command",
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
        ("command = []", "install.command is an empty array"),
        (
            "command = [\"\"]",
            "install.command begins with an empty text",
        ),
        (
            "command = [\"c\"]\nrollback = [\" \", \"x\"]",
            "install.rollback begins with an empty text",
        ),
        (
            &format!("{slots}running = {{ command = [] }}"),
            "install.running.command is an empty array",
        ),
        (
            "slots = { A = \"a\", B = \"b\" }\nswitch = { commands = { try = [\"t\"], keep = [\"\"], running = [\"r\"] } }",
            "install.switch.commands.keep begins with an empty text",
        ),
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
        .filter(|line| {
            let without_default = ["floor", "consent", "consent_command", "ready", "bandwidth"];
            let name = line.split(" = ").next().unwrap_or_default();
            !line.contains("health-check") && !without_default.contains(&name)
        })
        .collect();
    let text: String = text.iter().map(|line| format!("{line}\n")).collect();
    let policy = parse(&text).unwrap().policy().unwrap();
    assert_eq!(policy, Policy::default());
}

#[test]
fn the_example_describes_every_key() {
    for (table, at) in [
        ("", 0),
        ("[install]", 1),
        ("[trust]", 2),
        ("[policy]", 3),
        ("[http]", 4),
    ] {
        let error = smallest(&format!("{table}\nnothing = 1"));
        let error = match at {
            0 => parse("nothing = 1").unwrap_err(),
            1 => parse("state_dir = \"s\"\n[install]\nnothing = 1").unwrap_err(),
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
        (
            "[policy]\nconsent = [\"reboot\"]",
            "unknown variant `reboot`",
        ),
        ("[policy]\nversion = \"newer\"", "unknown variant `newer`"),
        (
            "[policy]\napply_windows = [{ from = \"02:00\" }]",
            "missing field `to`",
        ),
        ("[policy", "line 4: "),
    ] {
        let error = smallest(more).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    for (more, expected) in [
        ("restart = \"later\"", "install.restart is \"later\""),
        ("restart = []", "install.restart is an empty array"),
        (
            "restart = [\"\"]",
            "install.restart begins with an empty text",
        ),
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
            "[policy]\nconfirm = [\"\"]",
            "policy.confirm begins with an empty text; a command is its program and its arguments",
        ),
        ("[policy]\nconfirm = []", "policy.confirm is an empty array"),
        (
            "[policy]\nretry_first = 9\nretry_longest = 3.5",
            "policy.retry_first",
        ),
        (
            "[policy]\nconsent_command = [\"ask\"]",
            "policy.consent_command is never run",
        ),
        (
            "[policy]\nconsent = [\"apply\"]\nconsent_command = []",
            "policy.consent_command is an empty array",
        ),
        ("[policy]\nready = []", "policy.ready is an empty array"),
        ("[policy]\nready_interval = 0", "policy.ready_interval is 0"),
        ("[policy]\nbandwidth = 500", "policy.bandwidth is 500"),
        (
            "[policy]\nprogress_step = 101",
            "policy.progress_step is 101; it is per cent",
        ),
    ] {
        let error = smallest(more).unwrap().policy().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for (more, expected) in [
        (
            "apply_windows = [{ from = \"02:00\", to = \"04:00\" }, { from = \"2\", to = \"04:00\" }]",
            "policy.apply_windows[1]: \"2\" is no time",
        ),
        (
            "download_windows = [{ from = \"02:00\", to = \"04:00\", zone = \"CET+\" }]",
            "policy.download_windows[0]: \"CET+\" is no time zone",
        ),
    ] {
        let config = smallest(&format!("[policy]\n{more}")).unwrap();
        let error = config.windows().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    for (certificate, expected) in [
        (
            "client_certificate = \"none.pem\"",
            "client_certificate: cannot read none.pem: No such file",
        ),
        (
            "client_key = \"d.key\"",
            "client_key is there without client_certificate",
        ),
        (
            "client_certificate = \"-----BEGIN NOTHING-----\"",
            "client_certificate: not a PEM file of certificates: a block has no end",
        ),
    ] {
        for table in ["", "http."] {
            let (top, http) = match table {
                "" => (certificate, ""),
                _ => ("", certificate),
            };
            let text = format!("{top}\nstate_dir = \"s\"\n[http]\n{http}");
            let config = parse(&text).unwrap();
            let error = match table {
                "" => config.identity().unwrap_err(),
                _ => config.http().unwrap_err(),
            };
            let expected = expected.replace("client_", &format!("{table}client_"));
            assert!(error.message.starts_with(&expected), "{error}");
        }
    }
    // Its form is a certificate's, what is in it is none.
    let ca = "ca = '''-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'''";
    let text = format!("{ca}\nstate_dir = \"s\"\n[http]\n{ca}");
    let config = parse(&text).unwrap();
    for (key, error) in [
        ("ca", config.roots().err()),
        ("http.ca", config.http().err()),
    ] {
        let error = error.unwrap().message;
        let expected = format!("{key}: none of the certificates can be used");
        assert_eq!(error, expected);
    }
    let both = "current_version = \"1\"\nversion_from = { file = \"v\" }\nstate_dir = \"s\"\n[install]\nfile = \"f\"";
    let error = parse(both).unwrap().current_version().unwrap_err();
    assert!(error.message.contains("exclude each other"));
}

#[test]
fn a_version_comes_from_a_file_or_a_command() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("version"), " 1.2.3 \nmore").unwrap();
    let read = |line: &str| {
        let file = directory.path().join("c.toml");
        let text = format!("{line}\nstate_dir = \"s\"\n[install]\nfile = \"f\"");
        fs::write(&file, text).unwrap();
        read(&file).unwrap().current_version()
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
        (
            "version_from = { command = [] }",
            "no command is configured",
        ),
    ] {
        let error = read(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
