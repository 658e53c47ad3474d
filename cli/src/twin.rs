//! `twinflash twin`

use crate::{
    Common,
    cloud::{Cloud, object_argument, text},
    error::Error,
    screen::{Screen, Tone},
};
use serde_json::{Value, json};

/// A device's twin: tags, desired and reported properties.
#[derive(clap::Subcommand)]
pub(crate) enum Twin {
    /// Show a twin
    Show {
        #[command(flatten)]
        cloud: Cloud,
        /// The device's id
        device: String,
    },
    /// Merge into a twin; a null takes a member away
    Set {
        #[command(flatten)]
        cloud: Cloud,
        #[command(flatten)]
        change: Change,
        /// Only if the twin's etag is still this one (`twin show` prints it)
        #[arg(long, value_name = "ETAG")]
        if_match: Option<String>,
        /// The device's id
        device: String,
    },
}

/// A patch of a twin.
#[derive(clap::Args)]
#[group(multiple = true)]
pub(crate) struct Change {
    /// The desired properties to change, as a JSON object or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    desired: Option<String>,
    /// The tags to change, as a JSON object or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    tags: Option<String>,
}

impl Change {
    /// The patch as the hub wants it; none where nothing is given.
    pub(crate) fn patch(&self) -> Result<Option<Value>, Error> {
        let mut patch = json!({});
        if let (Some(tags), Value::Object(patch)) = (&self.tags, &mut patch) {
            patch.insert("tags".into(), object_argument(tags, "--tags")?);
        }
        if let (Some(desired), Value::Object(patch)) = (&self.desired, &mut patch) {
            let desired = object_argument(desired, "--desired")?;
            patch.insert("properties".into(), json!({"desired": desired}));
        }
        Ok(Some(patch).filter(|patch| *patch != json!({})))
    }
}

impl Twin {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        match self {
            Self::Show { cloud, device } => {
                let twin = cloud.open(common)?.twin(&device)?;
                match screen.is_json() {
                    true => screen.json(&twin),
                    false => show_indented(screen, &twin),
                }
            }
            Self::Set {
                cloud,
                change,
                if_match,
                device,
            } => {
                let patch = change.patch()?.ok_or_else(|| {
                    Error::new("nothing to change: give --desired, --tags, or both")
                })?;
                let service = cloud.open(common)?;
                let twin = service.patch_twin(&device, patch, if_match.as_deref())?;
                match screen.is_json() {
                    true => screen.json(&twin),
                    false => screen.text(
                        &format!(
                            "the twin of device \"{device}\" is changed: etag {}, version {} of the desired properties",
                            text(&twin, "/etag"),
                            text(&twin, "/properties/desired/$version")
                        ),
                        Tone::Normal,
                    ),
                }
            }
        }
        Ok(true)
    }
}

/// Shows a value over several lines, for people only.
pub(crate) fn show_indented(screen: &Screen, value: &Value) {
    for line in serde_json::to_string_pretty(value)
        .unwrap_or_default()
        .lines()
    {
        screen.text(line, Tone::Normal);
    }
}
