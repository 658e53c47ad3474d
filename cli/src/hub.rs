//! `twinflash hub`

use crate::{
    ask::redacted,
    error::Error,
    log,
    screen::{Screen, Tone},
    signals,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
};
use twinflash_hub::{Event, Info, Limits, Observer, Options};

/// So many devices are shown with their connection strings to people at the start.
const SHOWN: usize = 10;

/// Runs a local IoT hub until Ctrl-C. Devices and back ends connect to it as to Azure's; they have to
/// trust its certificate authority, whose file it names.
#[derive(clap::Args)]
pub(crate) struct Hub {
    /// A device to register if it is not there yet; may be given again [default: device1, without
    /// --state]
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<String>,
    /// Keep authority, keys, devices and twins in this directory; without it, in memory
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The port for MQTT over TLS (0: any free one)
    #[arg(long, default_value_t = 8883, value_name = "N")]
    mqtt_port: u16,
    /// The port for REST, and for MQTT over WebSockets (0: any free one)
    #[arg(long, default_value_t = 443, value_name = "N")]
    https_port: u16,
    /// A device to register likewise that proves itself by a certificate: with the thumbprint (SHA-1
    /// or SHA-256) the certificate has, or one that --trust vouches for; may be given again
    #[arg(long, value_name = "ID[=THUMBPRINT]")]
    x509_device: Vec<String>,
    /// A PEM file with the certificate of an authority that signs devices' certificates; may be given
    /// again
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// Take no more in a time than one unit of Azure's S1 does
    #[arg(long)]
    throttle: bool,
    /// Serve so many connections at once and no more [default: 20000, or as many as the system lets
    /// this process have open files]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Print no line for what happens
    #[arg(long)]
    quiet: bool,
    /// The hub's name in connection strings
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    host_name: String,
    /// The address to listen on; who can reach it can try keys
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    listen: IpAddr,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "ready")]
struct Ready<'a> {
    #[serde(flatten)]
    info: &'a Info,
    /// A connection string for each shared access policy: a back end may have less than all rights.
    policies: &'a BTreeMap<String, String>,
}

impl Hub {
    pub(crate) fn run(self, screen: &Screen) -> Result<bool, Error> {
        let (stop, stopped) = mpsc::channel();
        signals::on_stop(move |_| {
            let _ = stop.send(());
        })?;
        screen.in_background()?;
        log::show(screen.clone());
        let mut devices = self.devices;
        if devices.is_empty() && self.x509_device.is_empty() && self.state.is_none() {
            devices.push("device1".into());
        }
        let x509_device = |given: &String| match given.rsplit_once('=') {
            Some((id, thumbprint)) => (id.to_owned(), Some(thumbprint.to_owned())),
            None => (given.clone(), None),
        };
        let hub = twinflash_hub::Hub::start(Options {
            x509_devices: self.x509_device.iter().map(x509_device).collect(),
            trusted_authorities: self.trust,
            throttle: self.throttle.then_some(Limits::S1),
            host_name: self.host_name,
            listen: self.listen,
            mqtt_port: self.mqtt_port,
            https_port: self.https_port,
            devices,
            state: self.state,
            max_connections: self.max_connections,
            observer: (!self.quiet).then(|| -> Observer {
                let screen = screen.clone();
                Arc::new(move |event| show(&screen, &without_queries(event)))
            }),
        })?;
        show_ready(screen, hub.info());
        let _ = stopped.recv();
        hub.stop();
        Ok(true)
    }
}

fn show_ready(screen: &Screen, info: &Info) {
    if screen.is_json() {
        return screen.json(&Ready {
            info,
            policies: &info.policies,
        });
    }
    let Info {
        host_name,
        mqtt_port,
        https_port,
        ..
    } = info;
    let title = format!("The hub {host_name} listens: MQTT {mqtt_port}, HTTPS {https_port}");
    screen.text(&title, Tone::Good);
    let block = |title: &str, text: &str| {
        screen.text("", Tone::Normal);
        screen.text(title, Tone::Dim);
        screen.text(text, Tone::Normal);
    };
    block(
        "certificate authority (--ca)",
        &info.ca.display().to_string(),
    );
    block(
        "back end (TWINFLASH_SERVICE)",
        &info.service_connection_string,
    );
    for (id, connection) in info.devices.iter().take(SHOWN) {
        block(&format!("device {id} (TWINFLASH_DEVICE)"), connection);
    }
    if let Some(more @ 1..) = info.devices.len().checked_sub(SHOWN) {
        let how = "twinflash devices show --keys ID";
        block(&format!("{more} more devices"), how);
    }
    screen.text("", Tone::Normal);
}

/// URLs in requests may carry a signature in their query.
fn without_queries(event: &Event) -> Event {
    let mut event = event.clone();
    match &mut event {
        Event::MethodCalled {
            payload: Some(value),
            ..
        }
        | Event::MethodAnswered { payload: value, .. }
        | Event::ReportedPatched { patch: value, .. }
        | Event::DesiredPatched { patch: value, .. } => *value = redacted(value),
        _ => {}
    }
    event
}

fn show(screen: &Screen, event: &Event) {
    let (label, tone, text) = match event {
        Event::DeviceConnected { device, peer, .. } => {
            ("connected", Tone::Good, format!("{device} from {peer}"))
        }
        Event::DeviceDisconnected { device, reason } => {
            ("disconnected", Tone::Normal, format!("{device}: {reason}"))
        }
        Event::ConnectionRefused {
            device,
            peer,
            reason,
        } => {
            let device = device.as_deref().unwrap_or("a device");
            let text = format!("{device} from {peer}: {reason}");
            ("refused", Tone::Bad, text)
        }
        Event::RequestRefused {
            method,
            path,
            status,
            code,
            reason,
        } => {
            let text = format!("{method} {path}: {status} ({code}) {reason}");
            ("refused", Tone::Bad, text)
        }
        Event::Telemetry { device, bytes } => {
            ("telemetry", Tone::Dim, format!("{device}: {bytes} bytes"))
        }
        Event::MethodCalled {
            device,
            method,
            payload,
            ..
        } => {
            let payload = payload.as_ref().map(ToString::to_string);
            let text = format!("{device}: {method} {}", payload.unwrap_or_default());
            ("method", Tone::Normal, text)
        }
        Event::MethodAnswered {
            device,
            method,
            status,
            payload,
            ..
        } => {
            let text = format!("{device}: {method} {status} {payload}");
            ("answer", Tone::Normal, text)
        }
        Event::MethodFailed {
            device,
            method,
            code,
            ..
        } => {
            let text = format!("{device}: {method} was not answered ({code})");
            ("refused", Tone::Bad, text)
        }
        Event::ReportedPatched { device, patch, .. } => {
            ("reported", Tone::Running, format!("{device}: {patch}"))
        }
        Event::ReportedRefused {
            device,
            code,
            reason,
        } => {
            let text = format!("{device}: reported properties: ({code}) {reason}");
            ("refused", Tone::Bad, text)
        }
        Event::DesiredPatched { device, patch, .. } => {
            ("desired", Tone::Normal, format!("{device}: {patch}"))
        }
    };
    screen.event(event, label, tone, || text);
}
