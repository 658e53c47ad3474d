//! The core's device client against this hub: what mosquitto cannot judge, such as tokens, twins and
//! methods as a back end sees them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use twinflash::iothub::{
    Cause, Client, Disconnected, Event, Options, RequestError, Roots, ServiceConnectionString,
};
use twinflash_hub::{DisconnectReason, Hub, Observer};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A hub on free ports with device `d1`, and what it tells.
fn start(options: twinflash_hub::Options) -> (Hub, Receiver<twinflash_hub::Event>) {
    let (sender, events) = channel();
    let observer: Observer = Arc::new(move |event| {
        let _ = sender.send(event.clone());
    });
    let hub = Hub::start(twinflash_hub::Options {
        observer: Some(observer),
        ..options
    });
    (hub.unwrap(), events)
}

fn hub_options() -> twinflash_hub::Options {
    twinflash_hub::Options {
        mqtt_port: 0,
        https_port: 0,
        devices: vec!["d1".into()],
        ..twinflash_hub::Options::default()
    }
}

/// Options for device `d1`, quick to try again.
fn options(hub: &Hub) -> Options {
    let mut options = Options::new(hub.info().devices["d1"].parse().unwrap());
    options.roots = Roots::from_pem(hub.info().ca_pem.as_bytes()).unwrap();
    options.retry_min = Duration::from_millis(50);
    options.retry_max = Duration::from_millis(200);
    options
}

struct Device {
    client: Client,
    events: Receiver<Event>,
}

impl Device {
    fn connect(options: Options) -> Self {
        let (sender, events) = channel();
        let handler = move |event| {
            let _ = sender.send(event);
        };
        Self {
            client: Client::connect(options, handler).unwrap(),
            events,
        }
    }

    fn online(hub: &Hub) -> Self {
        let device = Self::connect(options(hub));
        device.connected();
        device
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(TIMEOUT).expect("an event")
    }

    fn connected(&self) {
        let event = self.next();
        assert!(matches!(event, Event::Connected(_)), "{event:?}");
    }

    fn disconnected(&self) -> Disconnected {
        match self.next() {
            Event::Disconnected(why) => why,
            event => panic!("{event:?}"),
        }
    }

    /// Asks for the twin and waits for it; what comes before it is an error.
    fn twin(&self) -> Value {
        self.client.read_twin();
        match self.next() {
            Event::Twin(twin) => serde_json::from_slice(&twin).unwrap(),
            event => panic!("{event:?}"),
        }
    }

    fn report(&self, id: u64, patch: &Value) -> Result<Option<u64>, RequestError> {
        self.client.report(id, patch.to_string().into_bytes());
        match self.next() {
            Event::ReportDone { id: done, result } if done == id => result,
            event => panic!("{event:?}"),
        }
    }
}

/// A back end, by REST.
struct Service {
    agent: ureq::Agent,
    connection: ServiceConnectionString,
}

impl Service {
    fn of(hub: &Hub) -> Self {
        let ca = ureq::tls::Certificate::from_pem(hub.info().ca_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::new_with_certs(&[ca]))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .build();
        Self {
            agent: config.into(),
            connection: hub.info().service_connection_string.parse().unwrap(),
        }
    }

    /// Status and body of a request.
    fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!(
                "https://{}:{}{path}?api-version=2021-04-12",
                self.connection.hub(),
                self.connection.server().1
            ))
            .header("Authorization", self.connection.token(now.as_secs() + 60))
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .unwrap();
        let mut response = self.agent.run(request).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        (response.status().as_u16(), body)
    }

    fn call(&self, method: &str, payload: &Value) -> (u16, Value) {
        let body = json!({
            "methodName": method,
            "payload": payload,
            "connectTimeoutInSeconds": 10,
            "responseTimeoutInSeconds": 10,
        });
        self.send("POST", "/twins/d1/methods", &body)
    }
}

#[test]
fn the_twin_goes_both_ways() {
    let (hub, _events) = start(hub_options());
    let service = Service::of(&hub);
    let device = Device::online(&hub);
    assert_eq!(
        device.twin(),
        json!({"desired": {"$version": 1}, "reported": {"$version": 1}})
    );

    let desired = json!({"properties": {"desired": {"firmware": {"fwVersion": "2"}}}});
    let (status, _) = service.send("PATCH", "/twins/d1", &desired);
    assert_eq!(status, 200);
    let Event::Desired(patch) = device.next() else {
        panic!()
    };
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    assert_eq!(
        patch,
        json!({"firmware": {"fwVersion": "2"}, "$version": 2})
    );

    assert_eq!(device.report(7, &json!({"a": {"b": 1}})), Ok(Some(2)));
    assert_eq!(
        device.twin()["reported"],
        json!({"a": {"b": 1}, "$version": 2})
    );
    let (_, twin) = service.send("GET", "/twins/d1", &Value::Null);
    assert_eq!(twin["properties"]["reported"]["a"], json!({"b": 1}));

    // Refusals carry Azure's codes and reasons, and cost nothing else.
    let error = device.report(8, &json!({"bad.key": 1})).unwrap_err();
    assert_eq!((error.status, error.code), (400, Some(400_004)), "{error}");
    assert!(error.message.contains("'.'"), "{error}");
    let large = json!({"a": vec!["x".repeat(4000); 10]});
    let error = device.report(9, &large).unwrap_err();
    assert_eq!(error.code, Some(403_100), "{error}");
    assert_eq!(device.report(10, &json!({"a": null})), Ok(Some(3)));
}

#[test]
fn a_method_is_answered_to_the_back_end() {
    let (hub, _events) = start(hub_options());
    let service = Service::of(&hub);
    let device = Device::online(&hub);
    let answer = thread::scope(|scope| {
        let call = scope.spawn(|| service.call("firmwareUpdate", &json!({"fwPackageUri": "x"})));
        let Event::Method(call_seen) = device.next() else {
            panic!()
        };
        assert_eq!(call_seen.name, "firmwareUpdate");
        assert_eq!(call_seen.payload, br#"{"fwPackageUri":"x"}"#);
        let payload = b"\"FirmwareUpdate started.\"".to_vec();
        device
            .client
            .answer_method(&call_seen.request, 200, payload)
            .unwrap();
        call.join().unwrap()
    });
    assert_eq!(
        answer,
        (
            200,
            json!({"status": 200, "payload": "FirmwareUpdate started."})
        )
    );
}

#[test]
fn devices_the_hub_does_not_let_in() {
    let (hub, events) = start(hub_options());
    let refused = |change: &dyn Fn(&mut Options), reason: &str| {
        let mut options = options(&hub);
        change(&mut options);
        let why = Device::connect(options).disconnected();
        assert_eq!(why.cause, Cause::Refused, "{why:?}");
        assert!(why.reason.contains("is its key"), "{}", why.reason);
        let told = events
            .iter()
            .find_map(|event| match event {
                twinflash_hub::Event::ConnectionRefused { reason, .. } => Some(reason),
                _ => None,
            })
            .unwrap();
        assert!(told.contains(reason), "{told}");
        why.reason
    };
    let connection = hub.info().devices["d1"].clone();
    let (start, _key) = connection.split_once("SharedAccessKey=").unwrap();
    let other_key = format!("{start}SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    refused(
        &|options| options.connection = other_key.parse().unwrap(),
        "not signed with a key",
    );
    let unknown = connection.replace("DeviceId=d1", "DeviceId=d2");
    let words = refused(
        &|options| options.connection = unknown.parse().unwrap(),
        "regist",
    );
    assert!(words.contains("\"d2\""), "{words}");
    let words = refused(
        &|options| {
            options.clock = Arc::new(|| Some(SystemTime::now() - Duration::from_secs(2 * 3600)))
        },
        "expired",
    );
    assert!(
        words.contains("this machine's clock, which says 20"),
        "{words}"
    );
}

/// Every character a device id may have; what is encoded wrongly anywhere is refused.
#[test]
fn an_id_with_every_character_it_may_have() {
    let id = "aZ0-:.+%_#*?!(),=@$'";
    let (hub, _events) = start(hub_options());
    let service = Service::of(&hub);
    let path = "/devices/aZ0-%3A.%2B%25_%23%2A%3F%21%28%29%2C%3D%40%24%27";
    let (status, created) = service.send("PUT", path, &json!({"deviceId": id}));
    assert_eq!(status, 200, "{created}");
    let key = created["authentication"]["symmetricKey"]["primaryKey"].as_str();
    let mut options = options(&hub);
    let connection = format!(
        "HostName=localhost:{};DeviceId={id};SharedAccessKey={}",
        hub.info().mqtt_port,
        key.unwrap()
    );
    options.connection = connection.parse().unwrap();
    let device = Device::connect(options);
    device.connected();
    assert_eq!(device.twin()["desired"]["$version"], 1);
}

#[test]
fn a_gateway_in_the_name_of_a_hub() {
    let (hub, _events) = start(twinflash_hub::Options {
        host_name: "myhub.azure-devices.net".into(),
        ..hub_options()
    });
    let connection = &hub.info().devices["d1"];
    assert!(connection.starts_with("HostName=myhub.azure-devices.net"));
    assert!(connection.contains("GatewayHostName=localhost:"));
    let options = options(&hub);
    let device = Device::connect(options);
    device.connected();
    assert_eq!(device.twin()["desired"]["$version"], 1);
}

/// A hub may end a connection at any time, also by stopping; the device comes back by itself and
/// finds what it missed.
#[test]
fn the_hub_goes_and_comes_back() {
    let state = tempfile::tempdir().unwrap();
    let kept = |port: u16| twinflash_hub::Options {
        state: Some(state.path().into()),
        mqtt_port: port,
        ..hub_options()
    };
    let (hub, _events) = start(kept(0));
    let port = hub.info().mqtt_port;
    let device = Device::online(&hub);
    assert!(hub.disconnect("d1"));
    assert_eq!(device.disconnected().cause, Cause::Network);
    device.connected();

    hub.stop();
    assert_eq!(device.disconnected().cause, Cause::Network);
    assert_eq!(device.disconnected().cause, Cause::Network);
    let (hub, _events) = start(kept(port));
    let desired = json!({"properties": {"desired": {"missed": true}}});
    assert_eq!(
        Service::of(&hub).send("PATCH", "/twins/d1", &desired).0,
        200
    );
    loop {
        match device.next() {
            Event::Disconnected(_) => {}
            Event::Connected(_) => break,
            // It may be back before the change.
            event => panic!("{event:?}"),
        }
    }
    device.client.read_twin();
    loop {
        match device.next() {
            Event::Desired(_) => {}
            Event::Twin(twin) => {
                let twin: Value = serde_json::from_slice(&twin).unwrap();
                assert_eq!(twin["desired"]["missed"], true);
                break;
            }
            event => panic!("{event:?}"),
        }
    }
}

/// Through several renewals: no token runs out, no method call fails, no report under way is lost.
#[test]
fn renewals_are_not_noticed() {
    let (hub, hub_events) = start(hub_options());
    let service = Service::of(&hub);
    let mut options = options(&hub);
    options.token_lifetime = Duration::from_secs(2);
    let device = Device::connect(options);
    let (mut calls, mut renewals) = (0, 0);
    let end = Instant::now() + Duration::from_secs(10);
    thread::scope(|scope| {
        let back_end = scope.spawn(|| {
            let mut answers = 0;
            while Instant::now() < end {
                let answer = service.call("ping", &json!(answers));
                assert_eq!(answer, (200, json!({"status": 200, "payload": answers})));
                answers += 1;
                thread::sleep(Duration::from_millis(5));
            }
            answers
        });
        let mut reports = BTreeSet::new();
        let mut next_report = 0;
        while !back_end.is_finished() {
            let Ok(event) = device.events.recv_timeout(Duration::from_millis(100)) else {
                continue;
            };
            match event {
                Event::Method(call) => {
                    calls += 1;
                    let answer = device
                        .client
                        .answer_method(&call.request, 200, call.payload);
                    answer.unwrap();
                    reports.insert(next_report);
                    let patch = json!({"calls": next_report}).to_string();
                    device.client.report(next_report, patch.into_bytes());
                    next_report += 1;
                }
                Event::ReportDone { id, result } => {
                    assert!(reports.remove(&id));
                    if let Err(error) = result {
                        // Handed over between two connections.
                        assert_eq!(error.message, "not connected");
                    }
                }
                Event::Connected(_) => {}
                Event::Disconnected(why) => {
                    assert_eq!(why.cause, Cause::Renewal, "{}", why.reason);
                    renewals += 1;
                }
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(calls, back_end.join().unwrap());
    });
    assert!((4..8).contains(&renewals), "{renewals}");
    assert!(calls > 200, "{calls}");
    drop(device);
    drop(hub);
    let ends = hub_events.iter().filter_map(|event| match event {
        twinflash_hub::Event::DeviceDisconnected { reason, .. } => Some(reason),
        _ => None,
    });
    for reason in ends {
        let good = [DisconnectReason::ByDevice, DisconnectReason::HubStopped];
        assert!(good.contains(&reason), "{reason}");
    }
}
