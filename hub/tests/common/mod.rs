//! A hub, a back end and a device for the tests, over real sockets. The device writes its MQTT bytes itself: the hub's
//! protocol library is not asked to judge itself.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

pub mod websocket;

use data_encoding::BASE64;
use ring::hmac;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
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
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(key.as_bytes()).unwrap());
    let signature =
        BASE64.encode(hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes()).as_ref());
    let signature = signature
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let policy = policy
        .map(|policy| format!("&skn={policy}"))
        .unwrap_or_default();
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}{policy}")
}

/// A back end.
#[derive(Clone)]
pub struct Rest {
    agent: ureq::Agent,
    base: String,
    token: Option<String>,
}

pub struct Response {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Value,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// That it is a refusal of the registry's and the twins' shape.
    pub fn refused(&self, status: u16, name: &str) {
        assert_eq!(
            (self.status, self.header("iothub-errorcode")),
            (status, Some(name)),
            "{}",
            self.body
        );
        let message = self.body["Message"].as_str().unwrap();
        assert!(
            message.starts_with(&format!("ErrorCode:{name};")),
            "{message}"
        );
        assert!(
            self.body["ExceptionMessage"]
                .as_str()
                .unwrap()
                .starts_with("Tracking ID:")
        );
    }

    /// That it is a refusal of the direct methods' shape; returns what is in it.
    pub fn method_refused(&self, code: u32) -> Value {
        assert_eq!(u32::from(self.status), code / 1000, "{}", self.body);
        assert_eq!(self.body["ExceptionMessage"], "");
        let inner: Value = serde_json::from_str(self.body["Message"].as_str().unwrap()).unwrap();
        assert_eq!(inner["errorCode"], code, "{inner}");
        assert!(inner["trackingId"].is_string() && inner["timestampUtc"].is_string());
        inner
    }
}

impl Rest {
    /// With all rights.
    pub fn owner(info: &Info) -> Self {
        let key = field(&info.service_connection_string, "SharedAccessKey");
        let token = token("localhost", &key, unix() + 600, Some("iothubowner"));
        Self::new(info, Some(token))
    }

    fn new(info: &Info, token: Option<String>) -> Self {
        let roots = CertificateDer::pem_slice_iter(info.ca_pem.as_bytes())
            .map(|certificate| ureq::tls::Certificate::from_der(&certificate.unwrap()).to_owned())
            .collect::<Vec<_>>();
        let tls = ureq::tls::TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(ureq::tls::RootCerts::Specific(Arc::new(roots)))
            .build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self {
            agent,
            base: format!("https://localhost:{}", info.https_port),
            token,
        }
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.raw(
            method,
            &with_version(path),
            body.map(|body| body.to_string().into_bytes()),
            &[],
        )
    }

    pub fn call_if(&self, method: &str, path: &str, body: Option<&Value>, etag: &str) -> Response {
        let body = body.map(|body| body.to_string().into_bytes());
        self.raw(method, &with_version(path), body, &[("If-Match", etag)])
    }

    pub fn get(&self, path: &str) -> Response {
        self.call("GET", path, None)
    }

    pub fn raw(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Response {
        self.attempt(method, path, body, headers).unwrap()
    }

    /// The same of a hub that may go away.
    pub fn try_call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Response> {
        let body = body.map(|body| body.to_string().into_bytes());
        let path = with_version(path);
        self.attempt(method, &path, body, &[]).ok()
    }

    fn attempt(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Result<Response, ureq::Error> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body {
            Some(body) => self.agent.run(request.body(body).unwrap()),
            None => self.agent.run(request.body(()).unwrap()),
        }?;
        let text = response.body_mut().read_to_string()?;
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        };
        Ok(Response {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body,
        })
    }

    pub fn query(&self, text: &str, headers: &[(&str, &str)]) -> Response {
        let body = json!({"query": text}).to_string().into_bytes();
        let path = with_version("/devices/query");
        self.raw("POST", &path, Some(body), headers)
    }

    pub fn invoke(&self, device: &str, body: &Value) -> Response {
        self.call("POST", &format!("/twins/{device}/methods"), Some(body))
    }
}

fn with_version(path: &str) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    format!("{path}{sign}api-version=2021-04-12")
}

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
    fn bytes(&self) -> Vec<u8> {
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
