//! `twinflash device`: the agent.

use crate::{
    Common, config,
    control::{self, Control, Order},
    error::Error,
    log,
    screen::{Screen, Tone, size},
    signals,
};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};
use twinflash::{
    device::{Device, DeviceEvent, DeviceOptions, Event as News},
    install::{Installer, Restart},
    update::{Failure, redact},
};

/// Runs the device agent until Ctrl-C: it connects to its hub, takes requests for updates, and reports
/// every step. `examples/agent/` has a configuration that describes every key, and a systemd unit.
#[derive(clap::Args)]
pub(crate) struct Agent {
    /// The configuration, in TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The device's connection string, or @FILE; goes before the configuration's
    #[arg(
        long,
        env = "TWINFLASH_DEVICE",
        hide_env_values = true,
        value_name = "CONNECTION_STRING"
    )]
    connection: Option<String>,
    /// Asks the agent that runs with this configuration, in place of running one
    #[command(subcommand)]
    order: Option<Order>,
}

/// What happens, for programs.
#[derive(Serialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum Event {
    Started {
        device: String,
        contract: String,
        running_version: Option<String>,
    },
    Connected {
        server: String,
    },
    Disconnected {
        reason: String,
        retry_seconds: f64,
    },
    WaitingForClock,
    HubRefused {
        message: String,
    },
    Accepted {
        uri: String,
        version: Option<String>,
    },
    Phase {
        phase: &'static str,
    },
    Progress {
        bytes: u64,
        total: Option<u64>,
    },
    Waiting {
        r#for: &'static str,
        before: &'static str,
        after_seconds: Option<f64>,
    },
    Retry {
        code: &'static str,
        message: String,
        after_seconds: f64,
    },
    Verified {
        verified_by: &'static str,
        bytes: u64,
        sha256: String,
    },
    Ended {
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    Refused {
        code: &'static str,
        message: String,
    },
    Warning {
        message: String,
    },
    Restarting,
    Stopped,
}

/// Why the agent ends.
enum Stop {
    Signal,
    /// The new version is to run: the supervisor starts it.
    Restart,
}

impl Agent {
    pub(crate) fn run(self, common: &Common, screen: Screen) -> Result<bool, Error> {
        let config = config::read(&self.config)?;
        if let Some(order) = self.order {
            return control::ask(&config.state_dir(), order, &screen);
        }
        screen.in_background()?;
        log::show(screen.clone());
        let connection = match &self.connection {
            Some(given) => Some(twinflash::config::connection_string(given, Path::new(""))?),
            None => config.connection_string()?,
        };
        let connection = connection.ok_or_else(|| Error::new("no connection string: set connection_string in the configuration, TWINFLASH_DEVICE in the environment, or --connection @FILE"))?;
        let roots = match &common.ca {
            Some(_) => common.roots()?,
            None => config.roots()?,
        };
        let shown = screen.clone();
        let options = DeviceOptions::new(&connection)?
            .roots(roots)
            .identity(config.identity()?)
            .on_event(move |event| of_connection(&shown, event));
        let id = options.iothub.connection.device_id().to_owned();

        let (stop, stopped) = mpsc::channel();
        let on_signal = stop.clone();
        signals::on_stop(move |_| {
            let _ = on_signal.send(Stop::Signal);
        })?;
        let name = config.contract()?.name().to_owned();
        let installer = config.installer()?;
        let restart = installer.restart();
        let mut builder = config.builder_with(installer)?;
        // The others are the updater's own to perform.
        if restart == Restart::Exit {
            builder = builder.on_restart(move |_| {
                let _ = stop.send(Stop::Restart);
                Ok(())
            });
        }
        let shown = screen.clone();
        let updater = builder
            .on_event(move |event| of_update(&shown, event))
            .start()?;
        let running_version = updater.status().running_version;
        let started = Event::Started {
            device: id.clone(),
            contract: name.clone(),
            running_version: running_version.clone(),
        };
        screen.event(&started, "started", Tone::Normal, || {
            let version = running_version.unwrap_or_else(|| "an unknown version".into());
            format!("device {id} runs {version}; contract {name}")
        });
        let device = Arc::new(Device::connect(updater, options)?);
        let control = Control::start(&config.state_dir(), &device).inspect_err(|error| {
            // Updates matter more: some file systems have no sockets.
            let message = format!("this agent cannot be asked locally: {error}");
            let text = message.clone();
            screen.event(
                &Event::Warning { message },
                "warning",
                Tone::Warning,
                || text,
            );
        });
        let why = stopped.recv();
        drop(control);
        device.close();
        let under_way = device.updater().status().phase;
        screen.progress_ended();
        match why {
            Ok(Stop::Restart) => {
                screen.event(&Event::Restarting, "restarting", Tone::Normal, || {
                    "this process ends, so that its supervisor starts the new version".into()
                })
            }
            _ => screen.event(
                &Event::Stopped,
                "stopped",
                Tone::Normal,
                || match under_way {
                    Some(phase) => format!("the update ({phase}) goes on at the next start"),
                    None => "no update was under way".into(),
                },
            ),
        }
        Ok(true)
    }
}

fn of_connection(screen: &Screen, event: DeviceEvent) {
    let (event, label, tone, text) = match event {
        DeviceEvent::Connected(session) => {
            let text = format!("to {}", session.server);
            let server = session.server;
            (Event::Connected { server }, "connected", Tone::Good, text)
        }
        DeviceEvent::Disconnected(why) => {
            let text = format!("{}; next attempt in {}", why.reason, pause(why.retry_in));
            let event = Event::Disconnected {
                reason: why.reason,
                retry_seconds: seconds(why.retry_in),
            };
            (event, "disconnected", Tone::Warning, text)
        }
        DeviceEvent::WaitingForClock => (
            Event::WaitingForClock,
            "waiting",
            Tone::Warning,
            "the wall time is not known yet; connecting waits for it".into(),
        ),
        DeviceEvent::Refused(error) => {
            let text = format!("by the hub: {error}");
            let message = error.to_string();
            (
                Event::HubRefused { message },
                "refused",
                Tone::Warning,
                text,
            )
        }
        _ => return,
    };
    screen.event(&event, label, tone, || text);
}

fn of_update(screen: &Screen, event: &News) {
    if let News::Progress { bytes, total } = event {
        let (bytes, total) = (*bytes, *total);
        return screen.progress(&Event::Progress { bytes, total }, bytes, total);
    }
    screen.progress_ended();
    let parts = |failure: &Failure| (failure.code.as_str(), failure.message.clone());
    let (event, label, tone, text) = match event.clone() {
        News::Accepted { uri, version } => {
            let uri = redact(&uri);
            let text = match &version {
                Some(version) => format!("version {version} from {uri}"),
                None => uri.clone(),
            };
            let event = Event::Accepted { uri, version };
            (event, "accepted", Tone::Normal, text)
        }
        News::Phase(phase) => {
            let phase = phase.as_str();
            (Event::Phase { phase }, "phase", Tone::Running, phase.into())
        }
        News::Waiting(waiting) => {
            let (on, before) = (waiting.on.as_str(), waiting.before.as_str());
            let text = match waiting.after {
                Some(after) => format!("for {on}, before {before}; {}", pause(after)),
                None => format!("for {on}, before {before}"),
            };
            let event = Event::Waiting {
                r#for: on,
                before,
                after_seconds: waiting.after.map(seconds),
            };
            (event, "waiting", Tone::Warning, text)
        }
        News::Retry { failure, after } => {
            let text = format!("in {}: {}", pause(after), failure.message);
            let (code, message) = parts(&failure);
            let event = Event::Retry {
                code,
                message,
                after_seconds: seconds(after),
            };
            (event, "retry", Tone::Warning, text)
        }
        News::Verified { by, bytes, sha256 } => {
            let by = by.as_str();
            let start = sha256.get(..24).unwrap_or_default();
            let text = format!("{} by {by}, sha256 {start}…", size(bytes));
            let event = Event::Verified {
                verified_by: by,
                bytes,
                sha256,
            };
            (event, "verified", Tone::Normal, text)
        }
        News::Ended(outcome) => {
            let tone = match outcome.is_success() {
                true => Tone::Good,
                false => Tone::Bad,
            };
            let (code, message) = outcome.failure().map(parts).unzip();
            let event = Event::Ended {
                outcome: outcome.as_str(),
                code,
                message,
            };
            (event, "ended", tone, outcome.to_string())
        }
        News::Refused(failure) => {
            let text = failure.to_string();
            let (code, message) = parts(&failure);
            (Event::Refused { code, message }, "refused", Tone::Bad, text)
        }
        News::Warning(message) => {
            let text = message.clone();
            (Event::Warning { message }, "warning", Tone::Warning, text)
        }
        _ => return,
    };
    screen.event(&event, label, tone, || text);
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A pause for people.
fn pause(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds => format!("{seconds:.0} s"),
    }
}
