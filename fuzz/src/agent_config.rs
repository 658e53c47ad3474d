//! The agent's configuration.

use crate::{agent::config::Config, journal::directory};
use std::fs;

/// A configuration file. One that is refused is told by a line that names the file; of one that is
/// taken, each part is made or refused the same way.
pub(crate) fn agent_config(data: &[u8]) {
    let directory = directory();
    let file = directory.path().join("agent.toml");
    fs::write(&file, data).expect("written");
    let config = match Config::read(&file) {
        Ok(config) => config,
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("agent.toml"), "{message}");
            return;
        }
    };
    // What these need of the file system is read later.
    let parts = [
        config.policy().map(drop),
        config.installer().map(drop),
        config.connection_string(Some("given")).map(drop),
    ];
    for error in parts.into_iter().filter_map(Result::err) {
        assert!(!error.to_string().is_empty());
    }
}
