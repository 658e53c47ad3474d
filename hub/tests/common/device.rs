//! A device that writes its MQTT bytes itself: the hub's protocol library is not asked to judge itself.

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};
use twinflash_hub::Info;

/// What a device says first.
#[derive(Clone)]
pub struct Connect {
    pub client_id: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub keep_alive: u16,
    pub clean: bool,
}

impl Connect {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        flags |= u8::from(self.user.is_some()) << 7 | u8::from(self.password.is_some()) << 6;
        let mut body = [
            string("MQTT"),
            vec![4, flags],
            self.keep_alive.to_be_bytes().to_vec(),
        ]
        .concat();
        for text in [
            Some(&self.client_id),
            self.user.as_ref(),
            self.password.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            body.extend(string(text));
        }
        packet(0x10, &body)
    }
}

/// CONNECT of a device with a token, CleanSession=0.
pub fn connect_bytes(id: &str, token: &str) -> Vec<u8> {
    Connect {
        client_id: id.into(),
        user: Some(format!("localhost/{id}/?api-version=2021-04-12")),
        password: Some(token.into()),
        keep_alive: 60,
        clean: false,
    }
    .bytes()
}

pub fn string(text: &str) -> Vec<u8> {
    [
        &u16::try_from(text.len()).unwrap().to_be_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let digit = u8::try_from(length % 128).unwrap();
        length /= 128;
        bytes.push(if length > 0 { digit | 0x80 } else { digit });
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// A message that came to a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// What MQTT runs over.
pub trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// TLS to one of the hub's ports.
pub fn tls(info: &Info, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    tls_as(info, port, None)
}

/// The same with a client certificate: a PEM file with its chain, and one with its key.
pub fn tls_as(
    info: &Info,
    port: u16,
    own: Option<(&Path, &Path)>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(info.ca_pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_file_iter(chain).unwrap();
            let key = PrivateKeyDer::from_pem_file(key).unwrap();
            config
                .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                .unwrap()
        }
    };
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    StreamOwned::new(tls, tcp)
}

/// A connection that speaks MQTT.
pub struct Device {
    stream: Box<dyn Stream>,
    pub session_present: bool,
    messages: VecDeque<Message>,
    next_id: u16,
}

impl Device {
    /// Only TLS so far.
    pub fn open(info: &Info) -> Self {
        Self::over(tls(info, info.mqtt_port))
    }

    pub fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            session_present: false,
            messages: VecDeque::new(),
            next_id: 0,
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // The hub may have closed already; reading tells.
        let _ = self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush());
    }

    /// The next packet's first byte and body; `None` when the hub closed the connection.
    pub fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        let mut read = |buffer: &mut [u8]| match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the hub says nothing")
            }
            Err(_) => None,
        };
        read(&mut byte)?;
        let first = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            read(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        read(&mut body)?;
        Some((first, body))
    }

    /// Reads up to a packet of this kind; messages on the way are kept.
    pub fn until(&mut self, kind: u8) -> Vec<u8> {
        loop {
            let (first, body) = self.packet().expect("the connection is open");
            if first & 0xf0 == 0x30 {
                self.messages.push_back(message(first, &body));
            }
            if first & 0xf0 == kind {
                return body;
            }
        }
    }

    pub fn message(&mut self) -> Message {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return message;
            }
            self.until(0x30);
        }
    }

    /// Reads to the end.
    pub fn is_closed(&mut self) {
        while self.packet().is_some() {}
    }

    /// Subscribes; returns the codes granted.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.next_id += 1;
        let mut body = self.next_id.to_be_bytes().to_vec();
        for (filter, qos) in filters {
            body.extend(string(filter));
            body.push(*qos);
        }
        self.write(&packet(0x82, &body));
        self.until(0x90)[2..].to_vec()
    }

    pub fn subscribe_all(&mut self) {
        let filters = [
            "$iothub/methods/POST/#",
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
        ];
        assert_eq!(
            self.subscribe(&filters.map(|filter| (filter, 1))),
            [1, 1, 1]
        );
    }

    pub fn publish(&mut self, qos: u8, topic: &str, payload: &[u8]) {
        let mut body = string(topic);
        if qos > 0 {
            self.next_id += 1;
            body.extend(self.next_id.to_be_bytes());
        }
        body.extend(payload);
        self.write(&packet(0x30 | qos << 1, &body));
    }

    pub fn get_twin(&mut self) -> Value {
        self.publish(0, "$iothub/twin/GET/?$rid=get", b" ");
        let answer = self.message();
        assert_eq!(answer.topic, "$iothub/twin/res/200/?$rid=get");
        answer.json()
    }

    pub fn report(&mut self, patch: &str) -> Message {
        self.publish(
            1,
            "$iothub/twin/PATCH/properties/reported/?$rid=r",
            patch.as_bytes(),
        );
        self.until(0x40);
        self.message()
    }

    /// Answers the next method.
    pub fn answer(&mut self, status: i32, payload: &str) -> Message {
        let call = self.message();
        let request = call.topic.split("$rid=").nth(1).unwrap();
        self.publish(
            0,
            &format!("$iothub/methods/res/{status}/?$rid={request}"),
            payload.as_bytes(),
        );
        call
    }
}

fn message(first: u8, body: &[u8]) -> Message {
    assert_eq!(first & 0x06, 0, "the hub sends at most once");
    let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
    Message {
        topic: String::from_utf8(body[2..2 + length].to_vec()).unwrap(),
        payload: body[2 + length..].to_vec(),
    }
}
