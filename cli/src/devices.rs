//! `twinflash devices`

use crate::{
    Common,
    cloud::{Cloud, text, time},
    error::Error,
    query,
    screen::{Screen, Tone},
    service::{About, Request, Service},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The hub's registry of devices.
#[derive(clap::Subcommand)]
pub(crate) enum Devices {
    /// Register devices, with new keys unless they have certificates; prints their connection strings
    Create {
        #[command(flatten)]
        cloud: Cloud,
        #[command(flatten)]
        port: Port,
        /// Register them so that they cannot connect yet
        #[arg(long)]
        disabled: bool,
        /// They prove themselves by a certificate with this thumbprint, SHA-1 or SHA-256, not by keys
        #[arg(long, value_name = "HEX")]
        thumbprint: Option<String>,
        /// They prove themselves by certificates of an authority the hub trusts, not by keys
        #[arg(long, conflicts_with = "thumbprint")]
        ca_signed: bool,
        /// The new devices' ids
        #[arg(required = true)]
        devices: Vec<String>,
    },
    /// List all devices
    List {
        #[command(flatten)]
        cloud: Cloud,
        /// Only those that fulfil this condition, such as "tags.building = '43'"
        #[arg(long = "where", value_name = "CONDITION")]
        condition: Option<String>,
    },
    /// Show what the registry holds of a device, without its keys
    Show {
        #[command(flatten)]
        cloud: Cloud,
        #[command(flatten)]
        port: Port,
        /// Show its connection string and keys, too
        #[arg(long)]
        keys: bool,
        /// The device's id
        device: String,
    },
    /// Remove devices and their twins
    Delete {
        #[command(flatten)]
        cloud: Cloud,
        /// The devices' ids
        #[arg(required = true)]
        devices: Vec<String>,
    },
}

#[derive(clap::Args)]
pub(crate) struct Port {
    /// The hub's MQTT port, for connection strings
    #[arg(long, default_value_t = 8883, value_name = "N")]
    pub(crate) mqtt_port: u16,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
enum Event<'a> {
    #[serde(rename_all = "camelCase")]
    Created {
        device: &'a str,
        connection_string: String,
    },
    Deleted {
        device: &'a str,
    },
}

impl Devices {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        match self {
            Self::Create {
                cloud,
                port,
                disabled,
                thumbprint,
                ca_signed,
                devices,
            } => {
                let service = cloud.open(common)?;
                let status = if disabled { "disabled" } else { "enabled" };
                let authentication = match (thumbprint, ca_signed) {
                    (Some(thumbprint), _) => json!({
                        "type": "selfSigned",
                        "x509Thumbprint": {"primaryThumbprint": thumbprint},
                    }),
                    (None, true) => json!({"type": "certificateAuthority"}),
                    (None, false) => json!({"type": "sas"}),
                };
                for device in &devices {
                    let body = json!({
                        "deviceId": device,
                        "status": status,
                        "authentication": authentication,
                    });
                    let made = service.ask(registry("PUT", &["devices", device]).body(body))?;
                    let connection_string = connection_string(&service, &made, port.mqtt_port);
                    screen.text(&connection_string, Tone::Normal);
                    if screen.is_json() {
                        screen.json(&Event::Created {
                            device,
                            connection_string,
                        });
                    }
                }
            }
            Self::List { cloud, condition } => {
                let service = cloud.open(common)?;
                let select = "SELECT deviceId, status, connectionState, lastActivityTime, version, tags FROM devices";
                let text = match &condition {
                    Some(condition) => format!("{select} WHERE {condition}"),
                    None => select.into(),
                };
                let mut all = Vec::new();
                service
                    .query(&text, &mut |rows| match screen.is_json() {
                        true => rows.iter().for_each(|row| screen.json(row)),
                        false => all.extend(rows),
                    })
                    .map_err(|refused| query::wrong(screen, &text, refused))?;
                match all.is_empty() {
                    true => screen.text("no devices", Tone::Dim),
                    false => query::show_twins(screen, &all),
                }
            }
            Self::Show {
                cloud,
                port,
                keys,
                device,
            } => {
                let service = cloud.open(common)?;
                let mut found = service.ask(registry("GET", &["devices", &device]))?;
                let string = connection_string(&service, &found, port.mqtt_port);
                let authentication = found.get_mut("authentication");
                if !keys && let Some(Value::Object(members)) = authentication {
                    members.remove("symmetricKey");
                }
                show(screen, &found);
                if keys {
                    screen.pair(NAMES, "connection string", &string, "", Tone::Normal);
                }
            }
            Self::Delete { cloud, devices } => {
                let service = cloud.open(common)?;
                for device in &devices {
                    service.ask(registry("DELETE", &["devices", device]).if_match("*"))?;
                    screen.text(&format!("device \"{device}\" is deleted"), Tone::Normal);
                    if screen.is_json() {
                        screen.json(&Event::Deleted { device });
                    }
                }
            }
        }
        Ok(true)
    }
}

/// The width of the longest name in [`show`].
const NAMES: usize = 17;

pub(crate) fn registry<'a>(method: &'static str, path: &'a [&'a str]) -> Request<'a> {
    let device = path.last().copied().unwrap_or_default();
    Request::new(method, path, About::Registry(device))
}

fn show(screen: &Screen, device: &Value) {
    if screen.is_json() {
        return screen.json(device);
    }
    for (name, value) in [
        ("device", text(device, "/deviceId")),
        ("status", text(device, "/status")),
        ("reason", text(device, "/statusReason")),
        ("connection", text(device, "/connectionState")),
        ("since", time(device, "/connectionStateUpdatedTime")),
        ("last heard of", time(device, "/lastActivityTime")),
        ("authentication", text(device, "/authentication/type")),
        ("etag", text(device, "/etag")),
    ] {
        if !value.is_empty() {
            screen.pair(NAMES, name, &value, "", Tone::Normal);
        }
    }
}

/// What the device connects with; the REST interface does not say the MQTT port.
pub(crate) fn connection_string(service: &Service, device: &Value, port: u16) -> String {
    let with_port = |host: &str| match port {
        8883 => host.to_owned(),
        port => format!("{host}:{port}"),
    };
    let (hub, server) = service.hosts();
    let (host, gateway) = match hub == server {
        true => (with_port(hub), String::new()),
        false => (
            hub.to_owned(),
            format!(";GatewayHostName={}", with_port(server)),
        ),
    };
    let id = text(device, "/deviceId");
    let proof = match text(device, "/authentication/type").as_str() {
        "selfSigned" | "certificateAuthority" => "x509=true".into(),
        _ => {
            let key = text(device, "/authentication/symmetricKey/primaryKey");
            format!("SharedAccessKey={key}")
        }
    };
    format!("HostName={host};DeviceId={id};{proof}{gateway}")
}
