//! `twinflash simulate`: many devices in one process.

mod counts;
mod device;
mod fleet;
mod images;
mod registry;

use crate::{
    Common,
    cloud::object_argument,
    devices::Port,
    error::Error,
    screen::{Screen, Tone},
    service::Service,
    signals,
};
use counts::rate;
use device::Kind;
use fleet::{End, Plan};
use images::Fetch;
use registry::{Registered, Registration, ids};
use serde::Serialize;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use twinflash::{
    config::{connection_string, contract},
    contract::Contract,
    download::{Downloader, HttpOptions},
    iothub::ConnectionString,
    tls::{Roots, client_config},
    update::Policy,
};

/// Open files that are no connections to the hub: those of the runtime, and a few for each download.
const OTHER_FILES: u64 = 64;
const FILES_OF_A_DOWNLOAD: u64 = 4;
/// Threads that look up names: one name, many times.
const LOOKUPS: usize = 4;

/// Run a fleet: many devices in one process, each with an engine and a connection of its own
///
/// They do what a back end asks for, as `twinflash device` does, but nothing is installed anywhere.
/// The devices are registered by the hub's service connection string if they are not there yet, or
/// come with connection strings of their own. They run until Ctrl-C, unless --once or --for ends them
/// before. The exit status is 0 if all devices came to the hub and every update that ended did so as it
/// was to: completed, or failed by --fail.
#[derive(clap::Args)]
pub(crate) struct Simulate {
    /// How many devices
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// The service's connection string of the hub, or @FILE: it registers the devices
    #[arg(
        long,
        env = "TWINFLASH_SERVICE",
        hide_env_values = true,
        value_name = "CONNECTION_STRING"
    )]
    service: Option<String>,
    /// The devices' own connection strings, one a line, for want of a service's
    #[arg(long, value_name = "FILE")]
    connections: Option<PathBuf>,
    /// The devices' ids are this and a number
    #[arg(long, default_value = "sim-", value_name = "TEXT")]
    prefix: String,
    /// Tags for the devices' twins, an object or @FILE
    #[arg(long, value_name = "JSON")]
    tags: Option<String>,
    /// At the end, remove the devices that were registered by this command
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    port: Port,
    /// The contract the devices follow: a built-in one's name, or the file of another
    #[arg(long, default_value = "configuration", value_name = "NAME|FILE")]
    contract: String,
    /// The version the devices run at first
    #[arg(long, default_value = "1.0.0", value_name = "V")]
    current_version: String,
    /// So many per cent of the devices get each image with one bit wrong, and fail over its check value
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    fail: u8,
    /// A new version runs after a reboot that takes so long (default: at once)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    reboot: Option<Duration>,
    /// Spread the devices' first connects over this time
    #[arg(long, default_value = "0", value_name = "SECONDS", value_parser = seconds)]
    ramp: Duration,
    /// How the devices get images: only the checks' results are kept of them
    #[arg(long, value_enum, default_value_t = Fetch::Shared, value_name = "HOW")]
    fetch: Fetch,
    /// So many downloads at once
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    downloads: u16,
    /// Trust the certificate authorities in this PEM file to vouch for servers of images, and no others
    #[arg(long, value_name = "FILE")]
    image_ca: Option<PathBuf>,
    /// The devices take images by http: too
    #[arg(long)]
    allow_http: bool,
    /// End when each device has finished an update
    #[arg(long)]
    once: bool,
    /// End after this time; with --once, that is too late
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    time: Option<Duration>,
}

/// The devices are known to the hub and begin to connect.
#[derive(Serialize)]
#[serde(tag = "event", rename = "ready", rename_all = "camelCase")]
struct Ready<'a> {
    devices: usize,
    /// How many of them were registered by this command.
    registered: usize,
    /// How long registering took.
    seconds: f64,
    contract: &'a str,
}

/// How it ended, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "ended", rename_all = "camelCase")]
struct Ended {
    outcome: &'static str,
    devices: usize,
    /// How many came to the hub at least once.
    came: usize,
    completed: usize,
    failed: usize,
    /// Devices whose last update ended otherwise than `--fail` says.
    unplanned: usize,
    /// From the first connect until all devices had been connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_seconds: Option<f64>,
    /// From the first update's begin to the last one's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    update_seconds: Option<f64>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.0..=1e6).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds is needed".into())
}

impl Simulate {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        let total = self.devices as usize;
        let contract = contract(&self.contract, Path::new(""))?;
        let files =
            u64::from(self.devices) + FILES_OF_A_DOWNLOAD * u64::from(self.downloads) + OTHER_FILES;
        twinflash_hub::allow_open_files(files)
            .map_err(|few| Error::new(format_args!("{few}; or simulate fewer devices")))?;
        let roots = common.roots()?;
        let tags = self.tags.as_deref();
        let tags = tags
            .map(|tags| object_argument(tags, "--tags"))
            .transpose()?;
        let http = self.http()?;
        let downloader = Downloader::new(http)?;

        let stopped = Arc::new(AtomicBool::new(false));
        let (tell, stop) = unbounded_channel();
        let flag = Arc::clone(&stopped);
        signals::on_stop(move |signal| {
            flag.store(true, Ordering::Release);
            let _ = tell.send(signal);
        })?;

        let begun = Instant::now();
        if let Some(file) = &self.connections {
            let connections = connections(file, total)?;
            self.show_ready(screen, total, 0, begun.elapsed());
            return self.simulate(contract, connections, &roots, downloader, stop, screen);
        }
        let Some(service) = &self.service else {
            return Err(Error::new(
                "which hub? Give its service connection string (--service, or TWINFLASH_SERVICE in the environment), or the devices' own (--connections FILE)",
            ));
        };
        let service = connection_string(service, Path::new(""))?;
        let service = Service::new(service.parse()?, &roots, false)?;
        let registration = Registration {
            service: &service,
            tags,
            mqtt_port: self.port.mqtt_port,
        };
        let ids = ids(&self.prefix, total);
        let progress = |what: &'static str| {
            move |done: usize| {
                screen.block(|| vec![(format!("{done} of {total} {what}"), Tone::Normal)]);
            }
        };
        let (registered, result) = registration.create(&ids, &stopped, &progress("registered"));
        screen.progress_ended();
        let (new, connections): (Vec<_>, Vec<_>) = registered
            .into_iter()
            .map(|Registered { connection, new }| {
                let id = new.then(|| connection.device_id().to_owned());
                (id, connection)
            })
            .unzip();
        let new: Vec<_> = new.into_iter().flatten().collect();
        let result = result.and_then(|()| {
            if connections.len() < total {
                return Err(Error::interrupted(stop_signal(stop)));
            }
            self.show_ready(screen, total, new.len(), begun.elapsed());
            self.simulate(contract, connections, &roots, downloader, stop, screen)
        });
        if self.remove {
            let removed = registration.remove(&new, &progress("removed"));
            screen.progress_ended();
            // What went wrong first is said.
            return result.and_then(|good| removed.map(|()| good));
        }
        result
    }

    fn http(&self) -> Result<HttpOptions, Error> {
        let mut http = HttpOptions::default();
        if let Some(file) = &self.image_ca {
            http.roots = Roots::from_pem_file(file)?;
        }
        Ok(http)
    }

    fn show_ready(&self, screen: &Screen, devices: usize, registered: usize, time: Duration) {
        if screen.is_json() {
            return screen.json(&Ready {
                devices,
                registered,
                seconds: rounded(time),
                contract: &self.contract,
            });
        }
        let contract = &self.contract;
        let text = format!("{devices} devices, {registered} of them new, by contract {contract}");
        screen.text(&text, Tone::Normal);
    }

    fn simulate(
        &self,
        contract: Contract,
        connections: Vec<ConnectionString>,
        roots: &Roots,
        downloader: Downloader,
        stop: UnboundedReceiver<i32>,
        screen: &Screen,
    ) -> Result<bool, Error> {
        let tls = client_config(roots, None, Arc::new(|| Some(SystemTime::now())))?;
        let mut tls = rustls::ClientConfig::clone(&tls);
        // Devices know nothing of one another.
        tls.resumption = rustls::client::Resumption::disabled();
        let mut policy = Policy::default();
        policy.allow_http = self.allow_http;
        let plan = Plan {
            kind: Kind {
                contract,
                policy,
                version: self.current_version.clone(),
                reboot: self.reboot,
            },
            connections,
            fail: self.fail.into(),
            ramp: self.ramp,
            once: self.once,
            time: self.time,
            fetch: self.fetch,
            downloads: self.downloads.into(),
            downloader,
            tls: Arc::new(tls),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOOKUPS)
            .build()
            .map_err(|error| Error::new(format_args!("cannot start the devices: {error}")))?;
        let result = runtime.block_on(fleet::run(plan, screen, stop));
        // Looking a name up cannot be cancelled: it is not waited for.
        runtime.shutdown_background();
        self.conclude(screen, &result?)
    }

    fn conclude(&self, screen: &Screen, result: &fleet::Result) -> Result<bool, Error> {
        let counts = &result.counts;
        let total = counts.devices;
        let good = result.came == total
            && result.unplanned == 0
            && (!self.once || result.end == End::Finished);
        let outcome = match result.end {
            End::Signal(_) => "stopped",
            _ if good => "completed",
            _ => "failed",
        };
        if screen.is_json() {
            screen.json(&Ended {
                outcome,
                devices: total,
                came: result.came,
                completed: counts.completed,
                failed: counts.failed,
                unplanned: result.unplanned,
                connect_seconds: result.connecting.map(rounded),
                update_seconds: result.updating.map(rounded),
            });
        }
        let tone = if good { Tone::Good } else { Tone::Bad };
        screen.text(&counts.line(), tone);
        for (time, count, what) in [
            (result.connecting, total, "connected"),
            (
                result.updating,
                counts.completed + counts.failed,
                "finished their updates",
            ),
        ] {
            if let Some(time) = time {
                let rate = rate(count, time);
                let time = time.as_secs_f64();
                let text = format!("{count} {what} in {time:.1} s: {rate} a second");
                screen.text(&text, Tone::Dim);
            }
        }
        match result.end {
            End::Signal(signal) if self.once || self.time.is_some() => {
                Err(Error::interrupted(signal))
            }
            _ if result.came < total => Err(Error::new(format_args!(
                "{} of {total} devices never got through to the hub",
                total - result.came
            ))),
            End::Time if self.once => Err(Error::new(format_args!(
                "only {} of {total} devices have finished an update",
                counts.completed + counts.failed
            ))),
            _ if result.unplanned > 0 => Err(Error::new(format_args!(
                "{} devices ended otherwise than --fail {} says{}",
                result.unplanned,
                self.fail,
                match self.fail {
                    0 => "",
                    _ => ": only a check value in the request tells a damaged image",
                }
            ))),
            _ => Ok(good),
        }
    }
}

/// To the millisecond.
fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The signal that has come.
fn stop_signal(mut stop: UnboundedReceiver<i32>) -> i32 {
    stop.blocking_recv().unwrap_or_default()
}

/// As many connection strings as are needed.
fn connections(file: &Path, devices: usize) -> Result<Vec<ConnectionString>, Error> {
    let shown = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Error::new(format_args!("cannot read {shown}: {error}")))?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let found = lines
        .take(devices)
        .map(|(at, line)| {
            let failed = |error| Error::new(format_args!("{shown}, line {}: {error}", at + 1));
            line.parse().map_err(failed)
        })
        .collect::<Result<Vec<ConnectionString>, Error>>()?;
    if found.len() < devices {
        return Err(Error::new(format_args!(
            "{shown} holds {} connection strings, {devices} devices were asked for",
            found.len()
        )));
    }
    Ok(found)
}
