//! `twinflash config`: automatic device configurations.

mod create;
mod metrics;

use crate::{
    Common,
    ask::redacted,
    cloud::{Cloud, text, time},
    error::Error,
    screen::{Screen, Tone},
    service::{About, Request},
    table,
    twin::show_indented,
};
use serde::Serialize;
use serde_json::Value;

/// The label of a configuration that says by which contract it asks for an update.
pub(crate) const CONTRACT: &str = "twinflash-contract";
/// How many configurations a hub can have.
const ALL: &str = "100";
/// The width of the longest name of [`show`].
const NAMES: usize = 10;

/// Automatic device configurations: updates for all devices that fulfil a condition.
#[derive(clap::Subcommand)]
pub(crate) enum Configurations {
    Create(create::Create),
    /// List all configurations with the numbers of their devices
    List {
        #[command(flatten)]
        cloud: Cloud,
    },
    /// Show a configuration and its metrics
    Show {
        #[command(flatten)]
        cloud: Cloud,
        /// The configuration's id
        configuration: String,
    },
    /// Remove a configuration; its devices lose what it set, and the next priority's takes effect
    Delete {
        #[command(flatten)]
        cloud: Cloud,
        /// The configuration's id
        configuration: String,
    },
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "deleted")]
struct Deleted {
    configuration: String,
}

impl Configurations {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        match self {
            Self::Create(create) => return create.run(common, screen),
            Self::List { cloud } => {
                let request = Request::new("GET", &["configurations"], About::Hub);
                let all = cloud.open(common)?.ask(request.parameter("top", ALL))?;
                list(
                    screen,
                    all.as_array().map(Vec::as_slice).unwrap_or_default(),
                );
            }
            Self::Show {
                cloud,
                configuration,
            } => {
                let path = ["configurations", &configuration];
                let about = About::Configuration(&configuration);
                let found = cloud.open(common)?.ask(Request::new("GET", &path, about))?;
                show(screen, &found);
            }
            Self::Delete {
                cloud,
                configuration,
            } => {
                let path = ["configurations", &configuration];
                let about = About::Configuration(&configuration);
                let request = Request::new("DELETE", &path, about).if_match("*");
                cloud.open(common)?.ask(request)?;
                let text = format!("configuration \"{configuration}\" is deleted");
                screen.text(&text, Tone::Normal);
                if screen.is_json() {
                    screen.json(&Deleted { configuration });
                }
            }
        }
        Ok(true)
    }
}

fn list(screen: &Screen, all: &[Value]) {
    if screen.is_json() {
        return all
            .iter()
            .for_each(|configuration| screen.json(configuration));
    }
    if all.is_empty() {
        return screen.text("no configurations", Tone::Dim);
    }
    let row = |configuration: &Value| {
        vec![
            text(configuration, "/id"),
            text(configuration, "/priority"),
            text(configuration, "/systemMetrics/results/targetedCount"),
            text(configuration, "/systemMetrics/results/appliedCount"),
            time(configuration, "/createdTimeUtc"),
            text(configuration, "/targetCondition"),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let columns = ["id", "priority", "targeted", "applied", "created", "target"];
    table::show(screen, &columns, &rows);
}

fn show(screen: &Screen, configuration: &Value) {
    if screen.is_json() {
        return screen.json(configuration);
    }
    for (name, value) in [
        ("id", text(configuration, "/id")),
        ("target", text(configuration, "/targetCondition")),
        ("priority", text(configuration, "/priority")),
        ("created", time(configuration, "/createdTimeUtc")),
        ("changed", time(configuration, "/lastUpdatedTimeUtc")),
        (
            "contract",
            text(configuration, &format!("/labels/{CONTRACT}")),
        ),
        ("etag", text(configuration, "/etag")),
    ] {
        screen.pair(NAMES, name, &value, "", Tone::Normal);
    }
    if let Some(content) = configuration.pointer("/content/deviceContent") {
        show_indented(screen, &redacted(content));
    }
    let results = ["/systemMetrics/results", "/metrics/results"];
    let results = results
        .iter()
        .filter_map(|path| configuration.pointer(path));
    let rows: Vec<_> = results
        .filter_map(Value::as_object)
        .flatten()
        .map(|(name, count)| vec![name.clone(), count.to_string()])
        .collect();
    table::show(screen, &["metric", "devices"], &rows);
}
