//! `twinflash demo`

use crate::{
    ask::{self, Ask, Asked, Event},
    error::Error,
    firmware,
    follow::{End, follow},
    image,
    screen::{Screen, Tone, size},
    service::Service,
    signals,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};
use twinflash::{
    contract::Contract,
    device::{Device, DeviceEvent, DeviceOptions, Event as DeviceNews, Updater},
    download::{HttpOptions, Proxy},
    install::FileInstall,
    tls::Roots,
    twin,
    update::Policy,
};
use twinflash_hub::{Event as HubEvent, Hub, Options};

const DEVICE: &str = "demo-device";
const OLD: &str = "1.0.0";
const NEW: &str = "1.0.1";
/// How long the device may take to connect.
const CONNECTING: Duration = Duration::from_secs(20);

/// Shows an update from end to end on this machine, with no cloud: a local hub, an HTTPS firmware
/// server, a device that goes from 1.0.0 to 1.0.1, and a back end that asks it to.
#[derive(clap::Args)]
pub(crate) struct Demo {
    /// The image to install [default: this program itself]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How the update is asked for and reported: a built-in contract's name, or the file of another
    #[arg(long, default_value = "iothub-dm", value_name = "NAME|FILE")]
    contract: String,
}

/// What happens, in the order it is shown.
enum News {
    BackEnd(Event),
    Progress { bytes: u64, total: Option<u64> },
    Trouble(String),
    Ended(Result<End, Error>),
    Interrupted(i32),
}

/// What there is before anything happens.
#[derive(Serialize)]
#[serde(tag = "event", rename = "ready", rename_all = "camelCase")]
struct Ready<'a> {
    hub: String,
    firmware: &'a str,
    device: &'a str,
    contract: &'a str,
    bytes: u64,
}

/// So much of the image is there.
#[derive(Serialize)]
#[serde(tag = "event", rename = "progress")]
struct Progress {
    bytes: u64,
    total: Option<u64>,
}

/// How it ended, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "result", rename_all = "camelCase")]
struct Ended<'a> {
    outcome: &'static str,
    contract: &'a str,
    bytes: u64,
    sha256: &'a str,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Demo {
    pub(crate) fn run(self, screen: &Screen) -> Result<bool, Error> {
        let contract = twinflash::config::contract(&self.contract, Path::new(""))?;
        let image = match self.image {
            Some(image) => image,
            None => std::env::current_exe().map_err(|error| {
                Error::new(format_args!(
                    "cannot find this program's file ({error}): name one with --image FILE"
                ))
            })?,
        };
        let (bytes, digests) = image::digest(&image)?;
        let sha256 = base16ct::lower::encode_string(&digests.sha256);
        let directory = tempfile::tempdir().map_err(failed)?;
        let target = directory.path().join("app.bin");
        fs::write(&target, format!("firmware {OLD}\n")).map_err(failed)?;

        let (tell, news) = mpsc::channel();
        let interrupt = tell.clone();
        signals::on_stop(move |signal| {
            let _ = interrupt.send(News::Interrupted(signal));
        })?;
        let (hub, reports) = start_hub()?;
        let info = hub.info();
        let roots = Roots::from_pem(info.ca_pem.as_bytes())?;
        let served = firmware::Image {
            file: image.clone(),
            size: bytes,
            etag: format!("\"{sha256}\""),
            path: format!("/app-{NEW}.bin"),
        };
        let firmware = firmware::Server::start(hub.server_config(), served)?;
        let connection = info.devices.get(DEVICE).map_or("", String::as_str);
        let state = directory.path().join("state");
        let installer = FileInstall::new(&target);
        let updater = updater(&state, contract.clone(), installer, &roots, &tell)?;
        let device = connect(updater, connection, &roots, &tell)?;
        let reported = first_report(&reports, &news)?;
        show_ready(screen, &hub, &firmware, &contract, bytes);

        let start = Instant::now();
        let back_end = BackEnd {
            service: Service::new(info.service_connection_string.parse()?, &roots, true)?,
            contract: contract.clone(),
            url: firmware.url().to_owned(),
            sha256: sha256.clone(),
            size: bytes,
        };
        thread::Builder::new()
            .name("back end".into())
            .spawn(move || {
                let end = back_end.run(&reports, reported, &tell);
                let _ = tell.send(News::Ended(end));
            })
            .map_err(failed)?;
        let mut end = show_news(screen, &news)?;
        screen.progress_ended();
        let seconds = start.elapsed().as_secs_f64();
        if end == End::Done && !same_bytes(&image, &target)? {
            end = End::Failed {
                code: None,
                message: "the installed file is not the image".into(),
            };
        }
        device.close();
        drop(firmware);
        hub.stop();
        Ok(show_end(screen, &contract, end, bytes, &sha256, seconds))
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(format_args!("cannot set up the demonstration: {error}"))
}

/// A hub in memory, and the patches of reported properties it gets.
fn start_hub() -> Result<(Hub, Receiver<(Value, u64)>), Error> {
    let (tell, reports) = mpsc::channel();
    let hub = Hub::start(Options {
        mqtt_port: 0,
        https_port: 0,
        devices: vec![DEVICE.into()],
        observer: Some(Arc::new(move |event| {
            if let HubEvent::ReportedPatched { patch, version, .. } = event {
                let _ = tell.send((patch.clone(), *version));
            }
        })),
        ..Options::default()
    })?;
    Ok((hub, reports))
}

fn updater(
    state: &Path,
    contract: Contract,
    installer: FileInstall,
    roots: &Roots,
    tell: &Sender<News>,
) -> Result<Updater, Error> {
    let mut http = HttpOptions::default();
    http.roots = roots.clone();
    http.proxy = Proxy::None;
    let mut policy = Policy::default();
    // One device and nobody who pays for its messages.
    policy.progress_interval = Duration::from_millis(200);
    let tell = tell.clone();
    let updater = Updater::builder(state, contract, installer)
        .current_version(OLD)
        .policy(policy)
        .http(http)
        .on_event(move |event| {
            let news = match event {
                DeviceNews::Progress { bytes, total } => News::Progress {
                    bytes: *bytes,
                    total: *total,
                },
                DeviceNews::Warning(text) => News::Trouble(text.clone()),
                DeviceNews::Retry { failure, .. } => News::Trouble(failure.message.clone()),
                _ => return,
            };
            let _ = tell.send(news);
        })
        .start()?;
    Ok(updater)
}

fn connect(
    updater: Updater,
    connection: &str,
    roots: &Roots,
    tell: &Sender<News>,
) -> Result<Device, Error> {
    let tell = tell.clone();
    let options = DeviceOptions::new(connection)?
        .roots(roots.clone())
        .on_event(move |event| {
            let trouble = match event {
                DeviceEvent::Disconnected(why) => why.reason,
                DeviceEvent::Refused(error) => error.to_string(),
                DeviceEvent::WaitingForClock => "this machine's clock is wrong".into(),
                _ => return,
            };
            let _ = tell.send(News::Trouble(trouble));
        });
    Ok(Device::connect(updater, options)?)
}

/// Waits for the device to be there: the reported properties it starts with.
fn first_report(reports: &Receiver<(Value, u64)>, news: &Receiver<News>) -> Result<Value, Error> {
    let mut reported = json!({});
    match reports.recv_timeout(CONNECTING) {
        Ok((patch, version)) => merge(&mut reported, &patch, version),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let trouble = news.try_iter().find_map(|news| match news {
                News::Trouble(trouble) => Some(trouble),
                _ => None,
            });
            return Err(Error::new(format_args!(
                "the device does not get through to the hub: {}",
                trouble.unwrap_or_else(|| "no reason is known".into())
            )));
        }
    }
    Ok(reported)
}

fn merge(reported: &mut Value, patch: &Value, version: u64) {
    twin::merge(reported, patch);
    if let Some(members) = reported.as_object_mut() {
        members.insert("$version".into(), version.into());
    }
}

/// Asks for the update and follows it. A back end elsewhere would read the twin once a second; this
/// one is told of each patch, so that it misses no status however fast it goes.
struct BackEnd {
    service: Service,
    contract: Contract,
    url: String,
    sha256: String,
    size: u64,
}

impl BackEnd {
    fn run(
        &self,
        reports: &Receiver<(Value, u64)>,
        mut reported: Value,
        tell: &Sender<News>,
    ) -> Result<End, Error> {
        let ask = Ask {
            device: DEVICE,
            contract: &self.contract,
            url: &self.url,
            version: Some(NEW),
            // Under some contracts a bare value is a CRC-16.
            check: Some(&format!("sha256:{}", self.sha256)),
            size: Some(self.size),
            manifest: None,
        };
        let mut on = |event| {
            let _ = tell.send(News::BackEnd(event));
        };
        let mut follower = match ask::ask(&self.service, &ask, &mut on)? {
            Asked::Follow(follower) => follower,
            Asked::Refused(message) => {
                return Ok(End::Failed {
                    code: None,
                    message,
                });
            }
        };
        let mut next = || {
            // Now and then also where nothing is new: some ends are known by that.
            match reports.recv_timeout(Duration::from_secs(1)) {
                Ok((patch, version)) => merge(&mut reported, &patch, version),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new("the hub has stopped"));
                }
            }
            Ok(reported.clone())
        };
        follow(&mut follower, &mut next, &mut |seen| on(seen.into()))
    }
}

fn show_ready(
    screen: &Screen,
    hub: &Hub,
    firmware: &firmware::Server,
    contract: &Contract,
    bytes: u64,
) {
    let info = hub.info();
    let address = format!(
        "localhost, MQTT {}, HTTPS {}",
        info.mqtt_port, info.https_port
    );
    screen.text(
        "One firmware update, with all its parts in this process.",
        Tone::Normal,
    );
    screen.text("", Tone::Normal);
    for (name, value, what) in [
        ("hub", address.as_str(), String::new()),
        ("firmware", firmware.url(), size(bytes)),
        ("device", DEVICE, format!("runs {OLD}")),
        ("contract", contract.name(), String::new()),
    ] {
        screen.pair(12, name, value, &what, Tone::Normal);
    }
    screen.text("", Tone::Normal);
    if screen.is_json() {
        screen.json(&Ready {
            hub: address,
            firmware: firmware.url(),
            device: DEVICE,
            contract: contract.name(),
            bytes,
        });
    }
}

fn show_news(screen: &Screen, news: &Receiver<News>) -> Result<End, Error> {
    for news in news {
        match news {
            News::BackEnd(event) => event.show_line(screen),
            News::Progress { bytes, total } => {
                screen.progress(&Progress { bytes, total }, bytes, total);
                if total == Some(bytes) {
                    screen.progress_ended();
                }
            }
            News::Trouble(text) => screen.note(&text),
            News::Ended(end) => return end,
            News::Interrupted(signal) => return Err(Error::interrupted(signal)),
        }
    }
    Err(Error::new("the back end has ended without a result"))
}

fn show_end(
    screen: &Screen,
    contract: &Contract,
    end: End,
    bytes: u64,
    sha256: &str,
    seconds: f64,
) -> bool {
    let (outcome, code, message) = match end {
        End::Done => ("completed", None, None),
        End::Failed { code, message } => ("failed", code, Some(message)),
    };
    screen.text("", Tone::Normal);
    match &message {
        None => {
            let length = size(bytes);
            screen.text(
                &format!("Updated from {OLD} to {NEW} in {seconds:.2} s."),
                Tone::Good,
            );
            screen.pair(
                12,
                "installed",
                &length,
                "byte for byte the image",
                Tone::Normal,
            );
            screen.pair(12, "sha256", sha256, "", Tone::Normal);
        }
        Some(message) => screen.text(&format!("failed: {message}"), Tone::Bad),
    }
    let succeeded = message.is_none();
    if screen.is_json() {
        screen.json(&Ended {
            outcome,
            contract: contract.name(),
            bytes,
            sha256,
            seconds: (seconds * 1000.0).round() / 1000.0,
            code,
            message,
        });
    }
    succeeded
}

fn same_bytes(one: &Path, other: &Path) -> Result<bool, Error> {
    let open = |path: &Path| {
        let failed = |error| Error::new(format_args!("cannot read {}: {error}", path.display()));
        File::open(path)
            .map(|file| BufReader::with_capacity(1 << 18, file))
            .map_err(failed)
    };
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        let (left, right) = (
            one.fill_buf().map_err(failed)?,
            other.fill_buf().map_err(failed)?,
        );
        let length = left.len().min(right.len());
        if left.get(..length) != right.get(..length) {
            return Ok(false);
        }
        if length == 0 {
            return Ok(left.len() == right.len());
        }
        one.consume(length);
        other.consume(length);
    }
}
