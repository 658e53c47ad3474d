//! `twinflash guard`

use crate::{
    error::Error,
    screen::{Screen, Tone},
};
use serde::Serialize;
use std::path::PathBuf;
use twinflash::device::{Guarded, guard};

/// Counts the start of a new version that has still to prove itself, and brings the old one back
/// when it has used up its starts. For an ExecStartPre= of the service whose file is updated.
#[derive(clap::Args)]
pub(crate) struct Guard {
    /// The agent's state directory
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Event {
    Nothing,
    Counted { starts: u32, allowed: u32 },
    RolledBack,
}

impl Guard {
    pub(crate) fn run(self, screen: &Screen) -> Result<bool, Error> {
        let (event, tone, text) = match guard(&self.state)? {
            Guarded::Counted { starts, allowed } => (
                Event::Counted { starts, allowed },
                Tone::Normal,
                format!("start {starts} of {allowed} of a version that has to prove itself"),
            ),
            Guarded::RolledBack => (
                Event::RolledBack,
                Tone::Bad,
                "the new version did not prove itself: the old one is back".into(),
            ),
            _ => (
                Event::Nothing,
                Tone::Normal,
                "no new version has to prove itself".into(),
            ),
        };
        screen.event(&event, "guard", tone, || text);
        Ok(true)
    }
}
