//! What a hub is started with, and what it is known by.

use crate::{event::Observer, throttle::Limits};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

/// How a [`Hub`](crate::Hub) is started.
#[derive(Clone)]
pub struct Options {
    /// The hub's name, as it stands in connection strings. The certificate is also valid for `localhost`, `127.0.0.1`
    /// and `::1`. Default: `localhost`.
    pub host_name: String,
    /// The address to listen on. Default: `127.0.0.1`. Whoever can reach it can try keys.
    pub listen: IpAddr,
    /// The MQTT port; 0 is any free one. Default: 8883, the only one the Python device SDK knows.
    pub mqtt_port: u16,
    /// The port of REST and of MQTT over WebSockets; 0 is any free one. Default: 443, the only one the Node service SDK
    /// knows.
    pub https_port: u16,
    /// Devices to register if they are not there yet, with new keys.
    pub devices: Vec<String>,
    /// Devices to register likewise that authenticate with a client certificate: by its thumbprint (SHA-1 or SHA-256, in
    /// hexadecimal digits), or with `None` because one of `trusted_authorities` signed it and its common name is the id.
    pub x509_devices: Vec<(String, Option<String>)>,
    /// Files with the certificates, as PEM, of the authorities that sign devices' certificates.
    pub trusted_authorities: Vec<PathBuf>,
    /// Where the certificate authority, keys, devices and twins are kept. `None`: in memory, gone when the hub stops.
    pub state: Option<PathBuf>,
    /// How many connections the hub serves at once; further ones are closed. The last sixteenth, or 64, is kept for the
    /// HTTPS port, so that back ends get in where devices are too many. Each is an open file: the process's limit is
    /// raised where it can be. `None`: 20,000, or as many as the system lets the process have.
    pub max_connections: Option<usize>,
    /// What the hub takes in a time, such as [`Limits::S1`]. `None`: as much as it can.
    pub throttle: Option<Limits>,
    /// Is told what happens. Called on the hub's threads: it must not block.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host_name: "localhost".into(),
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            mqtt_port: 8883,
            https_port: 443,
            devices: Vec::new(),
            x509_devices: Vec::new(),
            trusted_authorities: Vec::new(),
            state: None,
            max_connections: None,
            throttle: None,
            observer: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("host_name", &self.host_name)
            .field("listen", &self.listen)
            .field("mqtt_port", &self.mqtt_port)
            .field("https_port", &self.https_port)
            .field("devices", &self.devices)
            .field("x509_devices", &self.x509_devices)
            .field("trusted_authorities", &self.trusted_authorities)
            .field("state", &self.state)
            .field("max_connections", &self.max_connections)
            .field("throttle", &self.throttle)
            .finish_non_exhaustive()
    }
}

/// How a running [`Hub`](crate::Hub) is reached. Serialised, it has the members of the command's `ready` line. It holds
/// keys: print it only where the user asked for them.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The hub's name.
    pub host_name: String,
    /// The MQTT port it listens on.
    pub mqtt_port: u16,
    /// The port of REST and WebSockets it listens on.
    pub https_port: u16,
    /// The file with the certificate of the hub's authority, as PEM. Without a state directory it is removed when the
    /// hub stops.
    pub ca: PathBuf,
    /// What is in that file.
    #[serde(skip)]
    pub ca_pem: String,
    /// The connection string of the policy `iothubowner`.
    pub service_connection_string: String,
    /// The connection string of each shared access policy, by its name.
    #[serde(skip)]
    pub policies: BTreeMap<String, String>,
    /// Every device registered when the hub had started, with its connection string.
    pub devices: BTreeMap<String, String>,
}

impl fmt::Debug for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Info")
            .field("host_name", &self.host_name)
            .field("mqtt_port", &self.mqtt_port)
            .field("https_port", &self.https_port)
            .field("ca", &self.ca)
            .field("devices", &self.devices.keys())
            .finish_non_exhaustive()
    }
}
