//! The IoT Hub client against mosquitto, which judges its MQTT and TLS, and against sockets that
//! misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod broker;
mod failures;
mod talk;

use broker::Broker;
use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
};
use twinflash::iothub::{Cause, Client, Disconnected, Event, Options, Roots, Session};

const KEY: &str = "VGhpcyBpcyBhIHRlc3Qga2V5LCBub3QgYSBzZWNyZXQu";

/// Options for device `d1` of the hub at `server`, quick to try again.
fn options(server: &str, roots: Roots) -> Options {
    let connection = format!("HostName={server};DeviceId=d1;SharedAccessKey={KEY}");
    let mut options = Options::new(connection.parse().unwrap());
    options.roots = roots;
    options.retry_min = Duration::from_millis(50);
    options.retry_max = Duration::from_millis(200);
    options
}

/// Options for device `d1` on this broker.
fn options_for(broker: &Broker) -> Options {
    options(
        &format!("localhost:{}", broker.port),
        broker.authority.roots(),
    )
}

/// A client and what it tells.
struct Device {
    client: Client,
    events: Receiver<Event>,
}

impl Device {
    fn connect(options: Options) -> Self {
        let (sender, events) = channel();
        let client = Client::connect(options, move |event| {
            let _ = sender.send(event);
        })
        .unwrap();
        Self { client, events }
    }

    /// Connects and waits until it is.
    fn online(options: Options) -> Self {
        let device = Self::connect(options);
        device.connected();
        device
    }

    fn next(&self) -> Event {
        self.events
            .recv_timeout(Duration::from_secs(15))
            .expect("an event")
    }

    /// Nothing is told for this long.
    fn silent(&self, time: Duration) {
        if let Ok(event) = self.events.recv_timeout(time) {
            panic!("{event:?}");
        }
    }

    fn connected(&self) -> Session {
        match self.next() {
            Event::Connected(session) => session,
            event => panic!("{event:?}"),
        }
    }

    fn disconnected(&self) -> Disconnected {
        match self.next() {
            Event::Disconnected(why) => why,
            event => panic!("{event:?}"),
        }
    }

    /// The next event says that the line is down, for this cause and with these words.
    fn fails(&self, cause: Cause, words: &str) {
        let why = self.disconnected();
        assert_eq!(why.cause, cause, "{}", why.reason);
        assert!(why.reason.contains(words), "{}", why.reason);
        assert!(!why.reason.contains(KEY) && !why.reason.contains("SharedAccessSignature"));
    }
}
