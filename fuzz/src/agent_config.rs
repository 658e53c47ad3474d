//! The configuration of an updater: the agent's in TOML, the other languages' in JSON.

use twinflash::{
    config::Config,
    update::{Code, Failure},
};

/// A configuration, read as both. What is refused, whole or in a part, is told in one line.
pub(crate) fn agent_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(config) = toml::from_str::<Config>(&text) {
        parts(config);
    }
    match Config::from_json(data) {
        Ok(config) => parts(config),
        Err(failure) => is_told(&failure),
    }
}

/// Each part is made, or refused. Those that read files or run commands of the input's are left out.
fn parts(config: Config) {
    let config = config.in_directory("/nowhere");
    assert!(!format!("{config:?}").contains(SECRET));
    assert!(
        config.state_dir().starts_with("/"),
        "{:?}",
        config.state_dir()
    );
    let parts = [config.policy().map(drop), config.installer().map(drop)];
    for failure in parts.into_iter().filter_map(Result::err) {
        is_told(&failure);
    }
}

/// Stands in the seeds' connection string.
const SECRET: &str = "c2VjcmV0";

fn is_told(failure: &Failure) {
    assert!(!failure.message.is_empty());
    assert!(
        matches!(failure.code, Code::InvalidConfig | Code::InstallFailed),
        "{failure}"
    );
}
