//! `twinflash update` and `twinflash watch`

use crate::{
    Common,
    ask::{self, Ask, Asked, Event},
    cloud::Cloud,
    error::Error,
    follow::{End, Follower, follow},
    image,
    rollout::Rollout,
    screen::{Screen, Tone},
    service::Service,
    signals, telemetry,
};
use serde::Serialize;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};
use twinflash::{
    contract::{Contract, Verdict},
    update::{Origin, Policy},
};

/// Whose contract is not named.
const CONTRACT: &str = "iothub-dm";
/// Azure offers a back end nothing but to ask again.
const INTERVAL: Duration = Duration::from_secs(1);
/// Silence that a person would wonder about.
const QUIET: Duration = Duration::from_secs(10);

/// Asks a device for an update and follows it to its end. Ctrl-C ends the following, not the update.
#[derive(clap::Args)]
pub(crate) struct Update {
    #[command(flatten)]
    cloud: Cloud,
    /// The contract the device follows: a built-in one's name, or the file of another
    #[arg(long, default_value = CONTRACT, value_name = "NAME|FILE")]
    contract: String,
    /// The device's id
    device: String,
    /// Where the device gets the image from
    url: String,
    /// A check value of the image: CRC-16, CRC-32 or SHA-256 (`twinflash image info` prints them)
    #[arg(long, value_name = "VALUE")]
    check: Option<String>,
    /// The image's size in bytes
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// The image's version
    #[arg(long, value_name = "V")]
    version: Option<String>,
    /// A signed manifest, which goes with the request; it says version and size, too (`twinflash image sign` makes it)
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// Follows an update that is under way, to its end; exits with 0 if it succeeded. With --telemetry:
/// shows devices' messages.
#[derive(clap::Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    cloud: Cloud,
    /// Follow the update of all devices of this configuration
    #[arg(long, value_name = "ID", conflicts_with_all = ["device", "forever"])]
    config: Option<String>,
    /// Show the messages (telemetry) of the device, or of all, as they come, until Ctrl-C. From a local
    /// hub only: Azure hands them out elsewhere
    #[arg(long, conflicts_with_all = ["config", "contract", "forever"])]
    telemetry: bool,
    /// The contract the devices follow: a built-in one's name, or the file of another [default:
    /// iothub-dm; with --config, the one the configuration names]
    #[arg(long, value_name = "NAME|FILE")]
    contract: Option<String>,
    /// Go on after its end, until Ctrl-C
    #[arg(long)]
    forever: bool,
    /// The device's id
    #[arg(required_unless_present_any = ["config", "telemetry"])]
    device: Option<String>,
}

/// How an update ended, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "result", rename_all = "camelCase")]
struct Ended {
    outcome: &'static str,
    contract: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    seconds: f64,
}

impl Update {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        let service = self.cloud.open(common)?;
        let contract = twinflash::config::contract(&self.contract, Path::new(""))?;
        let device = &self.device;
        let signed = self.manifest.as_deref().map(image::opened).transpose()?;
        let (text, signed) = match signed {
            Some((jws, manifest)) => (Some(jws.to_string()), Some(manifest)),
            None => (None, None),
        };
        if let (Some(text), Some(_)) = (&text, contract.desired_path()) {
            image::note_length(screen, text);
        }
        let version = signed.as_ref().map(|manifest| manifest.version.as_str());
        let start = Instant::now();
        let asked = ask::ask(
            &service,
            &Ask {
                device,
                contract: &contract,
                url: &self.url,
                version: self.version.as_deref().or(version),
                check: self.check.as_deref(),
                size: self.size.or(signed.as_ref().map(|manifest| manifest.size)),
                manifest: text.as_deref(),
            },
            &mut |event| event.show(screen),
        )?;
        let end = match asked {
            Asked::Refused(reason) => End::Failed {
                code: Some("refused".into()),
                message: reason,
            },
            Asked::Follow(mut follower) => {
                let follow_again = format!(
                    "no longer following; device \"{device}\" goes on by itself. To follow it again: twinflash watch {device}"
                );
                leave_on_signal(screen, follow_again)?;
                let mut poll = Poll::new(&service, device, screen);
                follow(&mut follower, &mut || poll.next(), &mut |seen| {
                    Event::from(seen).show(screen);
                })?
            }
        };
        Ok(show_end(screen, &contract, end, start))
    }
}

impl Watch {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        let service = self.cloud.open(common)?;
        if self.telemetry {
            leave_on_signal(screen, "no longer reading".into())?;
            return telemetry::watch(&service, self.device.as_deref(), screen);
        }
        if let Some(id) = &self.config {
            let rollout = Rollout::new(&service, screen, id, self.contract.as_deref())?;
            let note = "no longer following; the devices go on by themselves";
            leave_on_signal(screen, note.into())?;
            return rollout.follow();
        }
        let contract = self.contract.as_deref().unwrap_or(CONTRACT);
        let contract = twinflash::config::contract(contract, Path::new(""))?;
        let device = self.device.as_deref().unwrap_or_default();
        let twin = service.twin(device)?;
        let version = desired_version(&contract, &twin);
        let mut follower = Follower::new(&contract, version.as_deref());
        let note = format!("no longer following; device \"{device}\" goes on by itself");
        leave_on_signal(screen, note)?;
        let mut poll = Poll::new(&service, device, screen);
        let start = Instant::now();
        loop {
            let end = follow(&mut follower, &mut || poll.next(), &mut |seen| {
                Event::from(seen).show(screen);
            })?;
            let succeeded = show_end(screen, &contract, end, start);
            if !self.forever {
                return Ok(succeeded);
            }
            follower.go_on();
        }
    }
}

/// The version that is asked for by the desired properties.
fn desired_version(contract: &Contract, twin: &Value) -> Option<String> {
    requested_version(
        contract,
        contract.desired(twin.pointer("/properties/desired")?)?,
    )
}

/// The version that is asked for by an object as the contract has it in the desired properties.
pub(crate) fn requested_version(contract: &Contract, desired: &Value) -> Option<String> {
    match contract.judge(desired, Origin::Desired, None, &Policy::default()) {
        Verdict::Start(request) | Verdict::UpToDate(request) | Verdict::Refuse(request, _) => {
            request.version
        }
        Verdict::Ignore => None,
    }
}

/// Ends the process on Ctrl-C: everything that goes on does so elsewhere.
fn leave_on_signal(screen: &Screen, note: String) -> Result<(), Error> {
    let screen = screen.clone();
    signals::on_stop(move |signal| {
        screen.progress_ended();
        screen.note(&note);
        process::exit(128 + signal);
    })
}

/// Shows how it ended; whether it succeeded.
fn show_end(screen: &Screen, contract: &Contract, end: End, start: Instant) -> bool {
    screen.progress_ended();
    let seconds = start.elapsed().as_secs_f64();
    let (outcome, code, message) = match end {
        End::Done => ("completed", None, None),
        End::Failed { code, message } => ("failed", code, Some(message)),
    };
    match (&message, &code) {
        (None, _) => screen.text(&format!("completed in {seconds:.1} s"), Tone::Good),
        (Some(message), None) => screen.text(&format!("failed: {message}"), Tone::Bad),
        (Some(message), Some(code)) => {
            screen.text(&format!("failed: {message} ({code})"), Tone::Bad);
        }
    }
    let succeeded = message.is_none();
    if screen.is_json() {
        screen.json(&Ended {
            outcome,
            contract: contract.name().into(),
            code,
            message,
            seconds: (seconds * 1000.0).round() / 1000.0,
        });
    }
    succeeded
}

/// Reads the twin again and again.
struct Poll<'a> {
    service: &'a Service,
    device: &'a str,
    screen: &'a Screen,
    last: Option<Instant>,
    failing: bool,
    /// The reported properties' version, since when, and whether a note was made of that.
    quiet: (Option<u64>, Instant, bool),
}

impl<'a> Poll<'a> {
    fn new(service: &'a Service, device: &'a str, screen: &'a Screen) -> Self {
        Self {
            service,
            device,
            screen,
            last: None,
            failing: false,
            quiet: (None, Instant::now(), false),
        }
    }

    /// The reported properties, a second after the last time. What passes is waited out.
    fn next(&mut self) -> Result<Value, Error> {
        loop {
            if let Some(last) = self.last {
                thread::sleep(INTERVAL.saturating_sub(last.elapsed()));
            }
            self.last = Some(Instant::now());
            match self.service.twin(self.device) {
                Ok(mut twin) => {
                    self.failing = false;
                    self.note_silence(&twin);
                    let reported = twin.pointer_mut("/properties/reported");
                    return Ok(reported.map(Value::take).unwrap_or_default());
                }
                Err(refused) if refused.passing => {
                    if !self.failing {
                        self.screen.note(&format!("{refused}; trying again"));
                    }
                    self.failing = true;
                }
                Err(refused) => return Err(refused.into()),
            }
        }
    }

    fn note_silence(&mut self, twin: &Value) {
        let version = twin
            .pointer("/properties/reported/$version")
            .and_then(Value::as_u64);
        let (known, since, noted) = &mut self.quiet;
        if *known != version {
            self.quiet = (version, Instant::now(), false);
        } else if !*noted && since.elapsed() >= QUIET {
            *noted = true;
            let connected = twin.get("connectionState").and_then(Value::as_str);
            let device = self.device;
            let note = match connected {
                Some("Disconnected") => {
                    format!("device \"{device}\" is not connected; it goes on when it comes back")
                }
                _ => format!("device \"{device}\" has reported nothing new yet; still waiting"),
            };
            self.screen.note(&note);
        }
    }
}
