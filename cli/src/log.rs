//! What commands have printed that failed while no updater was there yet, what is wrong with the files of the configuration,
//! and what the local hub has to complain of, in the output of agent and hub.

use crate::screen::{Screen, Tone};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

#[derive(Serialize)]
#[serde(tag = "event", rename = "warning")]
struct Warning {
    message: String,
}

/// What is shown, at `warn`.
const TARGETS: [&str; 3] = [
    "twinflash::command",
    "twinflash::config::secret",
    "twinflash_hub",
];

struct Lines(Screen);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && TARGETS.contains(&metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let message = record.args().to_string();
            let text = message.clone();
            self.0
                .event(&Warning { message }, "warning", Tone::Warning, || text);
        }
    }

    fn flush(&self) {}
}

/// Shows from now on what commands have printed that failed at a start, files of secrets that everybody may read, and what goes
/// wrong within the hub.
pub(crate) fn show(screen: Screen) {
    if log::set_boxed_logger(Box::new(Lines(screen))).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below `warn`, and from the libraries at any level: the HTTP library logs queries at `trace`.
    #[test]
    fn nothing_but_failing_commands_is_shown() {
        let lines = Lines(Screen::new(false));
        let enabled = |target, level| {
            let mut metadata = Metadata::builder();
            lines.enabled(&metadata.target(target).level(level).build())
        };
        for level in Level::iter() {
            for target in [
                "ureq::run",
                "ureq_proto::util",
                "rustls::client::hs",
                "rumqttc",
            ] {
                assert!(!enabled(target, level), "{target} at {level}");
            }
            for target in TARGETS {
                assert_eq!(enabled(target, level), level <= Level::Warn);
            }
        }
    }
}
