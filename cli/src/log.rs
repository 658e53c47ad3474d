//! What failing commands have printed, in the agent's own output.

use crate::screen::{Screen, Tone};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde::Serialize;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Event {
    Command { line: String },
}

struct Commands(Screen);

impl Log for Commands {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn && metadata.target() == "twinflash::command"
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            let text = line.clone();
            let event = Event::Command { line };
            self.0.event(&event, "command", Tone::Dim, || text);
        }
    }

    fn flush(&self) {}
}

/// Shows from now on what commands have printed before they failed.
pub(crate) fn show(screen: Screen) {
    if log::set_boxed_logger(Box::new(Commands(screen))).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Below `warn`, and from the libraries at any level: the HTTP library logs queries at `trace`.
    #[test]
    fn nothing_but_failing_commands_is_shown() {
        let commands = Commands(Screen::new(false));
        let enabled = |target, level| {
            let mut metadata = Metadata::builder();
            commands.enabled(&metadata.target(target).level(level).build())
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
            assert_eq!(enabled("twinflash::command", level), level <= Level::Warn);
        }
    }
}
