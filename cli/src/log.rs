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
