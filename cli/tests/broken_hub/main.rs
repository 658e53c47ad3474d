//! A whole update over a line that breaks at every step: the real hub, a proxy that spoils one packet, and a real
//! device. Whatever is spoilt, the device ends with the new file, the hub's twin says so as it does after an update that
//! nothing disturbed, and one update has run, not two.
//!
//! The packets of an undisturbed update are counted first; then there is a run for each packet and each fault that can
//! befall it. `TWINFLASH_FULL=1` plays all of them, otherwise it is every eighth; `TWINFLASH_CASE=text` those whose name
//! holds the text.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod packet;
mod proxy;
#[path = "../support/mod.rs"]
mod support;

use packet::From;
use proxy::{Fault, Proxy, Step};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::server::Server;
use twinflash::{
    contract::Contract,
    device::{Device, DeviceOptions, Event, Updater},
    install::FileInstall,
    iothub::ServiceConnectionString,
    tls::{Clock, Roots, client_config, ureq_config},
    update::{Check, Checks, Outcome, Policy},
};
use twinflash_hub::Hub;

/// They mostly wait.
const AT_ONCE: usize = 24;
/// How long an update may take, whatever is spoilt: a twin that was asked for and did not come is asked for again
/// after a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// The two ways to ask.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Method,
    Desired,
}

/// What every run uses.
struct World {
    hub: Hub,
    runtime: tokio::runtime::Runtime,
    server: Server,
    image: Vec<u8>,
    /// The proxies' certificate, and its authority as PEM.
    certificate: Arc<rustls::ServerConfig>,
    authority: String,
    to_hub: Arc<rustls::ClientConfig>,
    agent: ureq::Agent,
    owner: ServiceConnectionString,
    devices: AtomicUsize,
}

impl World {
    fn new(devices: usize) -> Self {
        let hub = Hub::start(twinflash_hub::Options {
            mqtt_port: 0,
            https_port: 0,
            devices: (0..devices).map(|n| format!("d{n}")).collect(),
            ..twinflash_hub::Options::default()
        })
        .unwrap();
        let roots = Roots::from_pem(hub.info().ca_pem.as_bytes()).unwrap();
        let clock: Clock = Arc::new(|| Some(SystemTime::now()));
        let image: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let served = image.clone();
        let (authority, certificate) = support::authority();
        Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            server: Server::http(move |reply| reply.serve(&served, Some("\"1\""), usize::MAX)),
            image,
            certificate: Arc::new(certificate),
            authority,
            to_hub: client_config(&roots, None, clock).unwrap(),
            agent: ureq::Agent::config_builder()
                .tls_config(ureq_config(&roots, None).unwrap())
                .http_status_as_error(false)
                .proxy(None)
                .build()
                .into(),
            owner: hub.info().service_connection_string.parse().unwrap(),
            hub,
            devices: AtomicUsize::new(0),
        }
    }

    /// A request to the hub's REST interface.
    fn rest(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let port = self.hub.info().https_port;
        let send = || {
            let request = ureq::http::Request::builder()
                .method(method)
                .uri(format!(
                    "https://localhost:{port}{path}?api-version=2021-04-12"
                ))
                .header("Authorization", self.owner.token(now.as_secs() + 600))
                .header("Content-Type", "application/json")
                .body(body.to_string())
                .unwrap();
            self.agent.run(request)
        };
        // A kept connection may have ended by the time it is used.
        let mut response = send().or_else(|_| send()).or_else(|_| send()).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        (response.status().as_u16(), body)
    }
}

/// A device behind its own proxy.
struct Run<'a> {
    world: &'a World,
    asked: Asked,
    id: String,
    proxy: Proxy,
    device: Device,
    directory: tempfile::TempDir,
    events: Arc<Mutex<Vec<String>>>,
    outcomes: Arc<AtomicUsize>,
}

impl<'a> Run<'a> {
    fn start(world: &'a World, asked: Asked, spoil: Option<(Step, Fault)>) -> Self {
        let id = format!("d{}", world.devices.fetch_add(1, Ordering::Relaxed));
        let hub = SocketAddr::from(([127, 0, 0, 1], world.hub.info().mqtt_port));
        let proxy = Proxy::start(
            world.runtime.handle(),
            hub,
            world.certificate.clone(),
            world.to_hub.clone(),
            spoil,
        );
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("app.bin");
        fs::write(&target, b"old").unwrap();
        let mut policy = Policy::default();
        policy.allow_http = true;
        policy.retry.first = Duration::from_millis(10);
        let contract = match asked {
            Asked::Method => "iothub-dm",
            Asked::Desired => "configuration",
        };
        let events = Arc::new(Mutex::new(Vec::new()));
        let outcomes = Arc::new(AtomicUsize::new(0));
        let (told, counted) = (events.clone(), outcomes.clone());
        let updater = Updater::builder(
            directory.path().join("state"),
            Contract::built_in(contract).unwrap(),
            FileInstall::new(target),
        )
        .current_version("1.0.0")
        .policy(policy)
        .on_event(move |event| {
            told.lock().unwrap().push(format!("{event:?}"));
            counted.fetch_add(
                usize::from(matches!(event, Event::Ended(_))),
                Ordering::Relaxed,
            );
        })
        .start()
        .unwrap();
        let key = &world.hub.info().devices[&id];
        let port = world.hub.info().mqtt_port;
        let through = key.replace(&format!(":{port}"), &format!(":{}", proxy.port));
        assert_ne!(*key, through, "the port is not in the connection string");
        let told = events.clone();
        let mut options = DeviceOptions::new(&through)
            .unwrap()
            .roots(Roots::from_pem(world.authority.as_bytes()).unwrap())
            .on_event(move |event| told.lock().unwrap().push(format!("{event:?}")));
        options.iothub.retry_min = Duration::from_millis(10);
        options.iothub.retry_max = Duration::from_millis(100);
        options.iothub.connect_timeout = Duration::from_secs(1);
        options.iothub.answer_timeout = Duration::from_secs(1);
        let device = Device::connect(updater, options).unwrap();
        Self {
            world,
            asked,
            id,
            proxy,
            device,
            directory,
            events,
            outcomes,
        }
    }

    fn path(&self) -> String {
        format!("/image-{}", self.id)
    }

    /// The twin's reported properties, but for its metadata.
    fn reported(&self) -> Value {
        let path = format!("/twins/{}", self.id);
        let (status, twin) = self.world.rest("GET", &path, &Value::Null);
        assert_eq!(status, 200, "{twin}");
        let mut reported = twin["properties"]["reported"].clone();
        for name in ["$metadata", "$version"] {
            reported.as_object_mut().unwrap().remove(name);
        }
        reported
    }

    /// The update's status.
    fn status(&self) -> String {
        let path = match self.asked {
            Asked::Method => "iothubDM.firmwareUpdate.status",
            Asked::Desired => "firmware.fwUpdateStatus",
        };
        let reported = self.reported();
        let status = twinflash::contract::at_path(&reported, path);
        let status = status.and_then(Value::as_str).unwrap_or_default();
        let version = &reported["firmware"]["currentFwVersion"];
        match self.asked {
            Asked::Desired if version != "2.0.0" => format!("{status} with {version}"),
            _ => status.to_owned(),
        }
    }

    /// Asks as a back end does that is told when it does not work.
    fn ask(&self) -> Result<(), String> {
        let sha256 = {
            let mut checks = Checks::new();
            checks.update(&self.world.image);
            Check::Sha256(checks.finish().sha256).to_string()
        };
        let uri = self.world.server.url(&self.path());
        let path = format!("/twins/{}", self.id);
        if self.asked == Asked::Desired {
            let firmware =
                json!({"fwVersion": "2.0.0", "fwPackageURI": uri, "fwPackageCheckValue": sha256});
            let rest = |desired| {
                let patch = json!({"properties": {"desired": desired}});
                self.world.rest("PATCH", &path, &patch).0
            };
            let first = rest(json!({"firmware": firmware}));
            // Something else is changed, too.
            thread::sleep(Duration::from_millis(300));
            return match (first, rest(json!({"interval": 7}))) {
                (200, 200) => Ok(()),
                refused => Err(format!("{refused:?}")),
            };
        }
        let call = json!({
            "methodName": "firmwareUpdate",
            "payload": {"fwPackageUri": uri, "fwPackageCheckValue": sha256},
            "responseTimeoutInSeconds": 5,
            "connectTimeoutInSeconds": 5,
        });
        let patience = Instant::now() + PATIENCE;
        while Instant::now() < patience {
            let (status, answer) = self.world.rest("POST", &format!("{path}/methods"), &call);
            match (status, &answer["status"]) {
                (200, answer) if answer == 200 => return Ok(()),
                (200, _) => return Err(format!("refused: {answer}")),
                // Whether it was heard, the twin says.
                _ if !self.status().is_empty() && self.status() != "waiting" => return Ok(()),
                _ => thread::sleep(Duration::from_millis(100)),
            }
        }
        Err("no answer to the method".into())
    }

    fn told(&self) -> String {
        let seen: Vec<_> = self
            .proxy
            .seen()
            .iter()
            .map(|step| step.name.clone())
            .collect();
        format!("{:#?}\n{seen:?}", self.events.lock().unwrap())
    }

    /// Everything that must hold at the end; the twin's reported properties.
    fn play(&self) -> Result<Value, String> {
        // It is there, or was to be.
        let patience = Instant::now() + Duration::from_secs(3);
        while self
            .proxy
            .seen()
            .iter()
            .filter(|s| s.from == From::Hub)
            .count()
            < 4
            && Instant::now() < patience
        {
            thread::sleep(Duration::from_millis(5));
        }
        self.ask()?;
        let end = match self.asked {
            Asked::Method => "applyComplete",
            Asked::Desired => "current",
        };
        let patience = Instant::now() + PATIENCE;
        while self.status() != end {
            if Instant::now() > patience {
                return Err(format!("the twin says {:?} at last", self.status()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        // What comes again later is no new request.
        self.proxy.replay();
        self.barrier()?;
        let status = self.device.updater().status();
        if status.phase.is_some() || status.outcome != Some(Outcome::Completed) {
            return Err(format!("the device: {status:?}"));
        }
        if fs::read(self.directory.path().join("app.bin")).unwrap() != self.world.image {
            return Err("another file is installed".into());
        }
        let path = self.path();
        let asked = self.world.server.asked();
        let fetched = asked.iter().filter(|asked| asked.path == path).count();
        let outcomes = self.outcomes.load(Ordering::Relaxed);
        if (fetched, outcomes) != (1, 1) {
            return Err(format!("fetched {fetched} times, {outcomes} outcomes"));
        }
        Ok(without_times(&self.reported(), &self.id))
    }

    /// The device has dealt with all that was sent to it.
    fn barrier(&self) -> Result<(), String> {
        let path = format!("/twins/{}/methods", self.id);
        let call = json!({"methodName": "nobody's", "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 5});
        for _ in 0..5 {
            let (status, answer) = self.world.rest("POST", &path, &call);
            if (status, &answer["status"]) == (200, &json!(404)) {
                return Ok(());
            }
        }
        Err("the device does not answer any more".into())
    }
}

/// Times and the device's name say nothing.
fn without_times(value: &Value, id: &str) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), without_times(value, id)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::String(text) if text.ends_with('Z') && text.contains('T') => "a time".into(),
        Value::String(text) => text.replace(&format!("image-{id}"), "image").into(),
        other => other.clone(),
    }
}

/// What can befall a packet.
fn faults(step: &Step) -> Vec<Fault> {
    let mut faults = vec![
        Fault::CutBefore,
        Fault::CutWithin,
        Fault::CutAfter,
        Fault::Swallowed,
    ];
    if step.from == From::Hub {
        faults.push(Fault::NoMqtt);
    }
    match step.name.as_str() {
        // The protocol allows neither; the hub closes the line.
        "CONNECT" | "CONNACK" => {}
        _ => faults.extend([Fault::Twice, Fault::OutOfOrder]),
    }
    match step.name.as_str() {
        "GET" | "report" => {
            faults.extend([429, 500, 503].map(Fault::Refused));
        }
        "204" => faults.extend([429, 500].map(Fault::DoneAndRefused)),
        "twin" => faults.extend([Fault::DoneAndRefused(500), Fault::Garbled]),
        "desired" => faults.extend([Fault::Garbled, Fault::VersionsSkipped]),
        _ => {}
    }
    faults
}

/// The device has no twin, and nothing that tells it to ask again at once.
fn takes_a_minute(step: &Step, fault: Fault) -> bool {
    match fault {
        Fault::Refused(_) => step.name == "GET",
        Fault::DoneAndRefused(_) | Fault::Garbled => step.name == "twin",
        _ => false,
    }
}

#[test]
fn an_update_over_a_line_that_breaks_at_every_step() {
    let full = env::var_os("TWINFLASH_FULL").is_some();
    let only = env::var("TWINFLASH_CASE").unwrap_or_default();
    let world = World::new(1000);
    let mut cases = Vec::new();
    let mut expected = BTreeMap::new();
    for asked in [Asked::Method, Asked::Desired] {
        let run = Run::start(&world, asked, None);
        let reported = run
            .play()
            .unwrap_or_else(|why| panic!("{why}: {}", run.told()));
        expected.insert(format!("{asked:?}"), reported);
        let steps: BTreeSet<_> = run.proxy.seen().into_iter().collect();
        println!(
            "{asked:?}: {} packets in an undisturbed update",
            steps.len()
        );
        for step in steps {
            for fault in faults(&step) {
                let name = format!(
                    "{asked:?}, {} {} of {:?}: {fault:?}",
                    step.name, step.nth, step.from
                );
                cases.push((name, asked, step.clone(), fault));
            }
        }
    }
    let all = cases.len();
    let mut number = 0;
    cases.retain(|(name, _, step, fault)| {
        number += 1;
        let some = number % 8 == 0 && !takes_a_minute(step, *fault);
        (full || !only.is_empty() || some) && name.contains(&only)
    });
    let next = AtomicUsize::new(0);
    let met = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let slowest = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((name, asked, step, fault)) =
                    cases.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let begun = Instant::now();
                    let run = Run::start(&world, *asked, Some((step.clone(), *fault)));
                    let done = run.play().and_then(|reported| {
                        let expected = &expected[&format!("{asked:?}")];
                        match reported == *expected {
                            true => Ok(()),
                            false => Err(format!("reported is {reported}, not {expected}")),
                        }
                    });
                    met.fetch_add(usize::from(run.proxy.met()), Ordering::Relaxed);
                    if let Err(why) = done {
                        let why = format!("{name}: {why}\n{}", run.told());
                        failed.lock().unwrap().push(why);
                    }
                    run.device.close();
                    slowest
                        .lock()
                        .unwrap()
                        .push((begun.elapsed().as_millis(), name));
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let mut slowest = slowest.into_inner().unwrap();
    slowest.sort_unstable_by(|one, other| other.cmp(one));
    println!(
        "{} of {all} cases, {} of them met the packet; the slowest: {:?}",
        cases.len(),
        met.load(Ordering::Relaxed),
        &slowest[..slowest.len().min(3)]
    );
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}
