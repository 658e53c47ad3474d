//! A hub, a back end and a device for the tests, over real sockets.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod device;
mod rest;
pub mod websocket;

pub use device::{Connect, Device, Message, Stream, connect_bytes, packet, string, tls, tls_as};
pub use rest::{Response, Rest};

use base64ct::{Base64, Encoding as _};
use ring::hmac;
use serde_json::Value;
use std::{
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use twinflash_hub::{Event, Hub, Info, Options};

/// A hub in memory with devices `d1` and `d2`, and all it tells.
pub struct Fixture {
    pub hub: Hub,
    pub events: Arc<Mutex<Vec<Event>>>,
}

pub fn start() -> Fixture {
    start_with(Options::default())
}

pub fn start_with(mut options: Options) -> Fixture {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    options.devices.extend(["d1".into(), "d2".into()]);
    let hub = Hub::start(Options {
        mqtt_port: 0,
        https_port: 0,
        observer: Some(Arc::new(move |event| {
            told.lock().unwrap().push(event.clone())
        })),
        ..options
    })
    .unwrap();
    Fixture { hub, events }
}

impl Fixture {
    pub fn info(&self) -> &Info {
        self.hub.info()
    }

    /// Waits until an event was told, and returns what `pick` makes of it.
    pub fn event<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = self.events.lock().unwrap().iter().find_map(&pick) {
                return found;
            }
            assert!(
                Instant::now() < end,
                "not told; told was {:?}",
                self.events.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn refused_because(&self, part: &str) {
        self.event(|event| match event {
            Event::ConnectionRefused { reason, .. } if reason.contains(part) => Some(()),
            _ => None,
        });
    }

    pub fn disconnected_because(&self, part: &str) {
        self.event(|event| match event {
            Event::DeviceDisconnected { reason, .. } if reason.to_string().contains(part) => {
                Some(())
            }
            _ => None,
        });
    }

    /// A field of a connection string.
    pub fn key(&self, device: &str) -> String {
        field(&self.info().devices[device], "SharedAccessKey")
    }

    pub fn owner_key(&self) -> String {
        field(&self.info().service_connection_string, "SharedAccessKey")
    }

    pub fn owner(&self) -> Rest {
        Rest::owner(self.info())
    }

    /// Calls a direct method, to answer it meanwhile.
    pub fn invoke(&self, device: &'static str, body: Value) -> JoinHandle<Response> {
        let owner = self.owner();
        std::thread::spawn(move || owner.invoke(device, &body))
    }

    pub fn with_token(&self, token: Option<String>) -> Rest {
        Rest::new(self.info(), token)
    }

    /// A connected device with stored subscriptions.
    pub fn device(&self, id: &str) -> Device {
        self.connect(&Connect {
            clean: false,
            ..self.hello(id)
        })
        .unwrap()
    }

    /// What a well-behaved device says first.
    pub fn hello(&self, id: &str) -> Connect {
        Connect {
            client_id: id.into(),
            user: Some(format!("localhost/{id}/?api-version=2021-04-12")),
            password: Some(token(
                &format!("localhost/devices/{id}"),
                &self.key(id),
                unix() + 600,
                None,
            )),
            keep_alive: 60,
            clean: true,
        }
    }

    pub fn connect(&self, connect: &Connect) -> Result<Device, u8> {
        self.connect_over(Device::open(self.info()), connect)
    }

    pub fn connect_over(&self, mut device: Device, connect: &Connect) -> Result<Device, u8> {
        device.write(&connect.bytes());
        let (first, body) = device.packet().expect("a CONNACK");
        assert_eq!(first, 0x20);
        device.session_present = body[0] == 1;
        if body[1] == 0 {
            Ok(device)
        } else {
            Err(body[1])
        }
    }
}

pub fn field(connection_string: &str, name: &str) -> String {
    connection_string
        .split(';')
        .find_map(|field| field.strip_prefix(&format!("{name}=")))
        .unwrap()
        .into()
}

pub fn unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Makes a token, as the SDKs do.
pub fn token(resource: &str, key: &str, expiry: u64, policy: Option<&str>) -> String {
    let resource = resource.replace('/', "%2F").replace(':', "%3A");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &Base64::decode_vec(key).unwrap());
    let signature = Base64::encode_string(
        hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes()).as_ref(),
    );
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let policy = policy
        .map(|policy| format!("&skn={policy}"))
        .unwrap_or_default();
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}{policy}")
}
