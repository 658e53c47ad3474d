//! A running hub: its threads, its two ports, and its end.

use crate::{
    error::{Code, Error},
    event::DisconnectReason,
    files::Limit,
    jobs, mqtt,
    options::{Info, Options},
    rest::{self, Peer},
    state::{IfMatch, Shared},
    store::Store,
    throttle::Throttle,
    tls::Authority,
    x509::Authorities,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// How long a peer may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections may wait to be accepted: a fleet comes all at once.
#[cfg(unix)]
const BACKLOG: i32 = 1024;
/// How long what is open may take to end when the hub stops.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_millis(700);

/// A local IoT hub. It runs on threads of its own until it is stopped or dropped; every call may be made from any thread.
pub struct Hub {
    shared: Arc<Shared>,
    info: Info,
    tls: Arc<rustls::ServerConfig>,
    thread: Option<JoinHandle<()>>,
    /// Its temporary file must live as long as the hub.
    _authority: Authority,
}

impl Hub {
    /// Starts a hub. When this returns, its ports take connections.
    ///
    /// # Errors
    /// A port is in use, the state directory cannot be used, or a name is none.
    pub fn start(options: Options) -> Result<Self, Error> {
        check_host_name(&options.host_name)?;
        let limit = Limit::find(options.max_connections)?;
        // First of all what another process may hold.
        let (store, authority) = match &options.state {
            Some(directory) => (Store::open(directory)?, Authority::kept(directory)?),
            None => (Store::Memory, Authority::temporary()?),
        };
        let mqtt = listen(options.listen, options.mqtt_port, "MQTT", "--mqtt-port")?;
        let https = listen(options.listen, options.https_port, "HTTPS", "--https-port")?;
        let system = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| Error::System(format!("{what}: {error}"))
        };
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        let mqtt_port = port(&mqtt).map_err(system("no local address"))?;
        let https_port = port(&https).map_err(system("no local address"))?;
        let [tls, asking] = authority.server(names(&options))?;

        let shared = Arc::new(Shared::new(
            options.host_name.clone(),
            options.observer.clone(),
            store,
            Authorities::read(&options.trusted_authorities)?,
            Throttle::new(options.throttle),
        )?);
        for (id, body) in registrations(&options) {
            match shared.put_device(id, &body, &IfMatch::None) {
                Err(refusal) if refusal.code != Code::DEVICE_EXISTS => {
                    return Err(Error::Name(refusal.message));
                }
                _ => {}
            }
        }

        // What the hub is known by is durable before it is told.
        shared.write_behind()?;

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("twinflash-hub")
            .enable_io()
            .enable_time()
            .build()
            .map_err(system("cannot start the hub's threads"))?;
        let (alive, all_gone) = mpsc::channel(1);
        let slots = Arc::new(Semaphore::new(limit.connections));
        let limit = Arc::new(limit);
        for (listener, serves, tls) in [
            (mqtt, Serves::Mqtt, asking.clone()),
            (https, Serves::Https, asking),
        ] {
            let port = Port {
                hub: shared.clone(),
                tls: TlsAcceptor::from(tls),
                serves,
                slots: slots.clone(),
                limit: limit.clone(),
                alive: alive.clone(),
            };
            runtime.spawn(port.accept(listener));
        }
        drop(alive);
        runtime.spawn(jobs::resume(shared.clone()));
        // A thread of its own, so that the hub may be stopped from inside another runtime too.
        let hub = shared.clone();
        let thread = std::thread::Builder::new()
            .name("twinflash-hub-main".into())
            .spawn(move || run(runtime, &hub, all_gone))
            .map_err(system("cannot start the hub's thread"))?;

        let info = describe(options, &shared, &authority, mqtt_port, https_port);
        Ok(Self {
            shared,
            info,
            tls,
            thread: Some(thread),
            _authority: authority,
        })
    }

    /// How the hub is reached.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// TLS for another server on this machine, a firmware server for instance: with the hub's certificate, which is valid
    /// for the hub's name, `localhost`, `127.0.0.1` and `::1`. Who trusts the hub's authority trusts that server too.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.tls)
    }

    /// Closes a device's connection, as a hub may at any time; false when it has none.
    pub fn disconnect(&self, device: &str) -> bool {
        self.shared.disconnect(device, DisconnectReason::Requested)
    }

    /// Stops the hub within a second. Direct methods that wait are answered with 503, devices are disconnected.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // It panics only if the runtime does; then there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Holds the runtime until the hub is stopped.
fn run(runtime: Runtime, hub: &Shared, mut all_gone: mpsc::Receiver<()>) {
    runtime.block_on(async {
        hub.stopped().await;
        let _ = timeout(STOP_TIMEOUT, all_gone.recv()).await;
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
}

#[derive(Clone, Copy)]
enum Serves {
    Mqtt,
    Https,
}

/// A connection's place among those served at once; the hub's end waits for it.
struct Slot {
    _permit: OwnedSemaphorePermit,
    _alive: mpsc::Sender<()>,
}

struct Port {
    hub: Arc<Shared>,
    tls: TlsAcceptor,
    serves: Serves,
    slots: Arc<Semaphore>,
    limit: Arc<Limit>,
    alive: mpsc::Sender<()>,
}

impl Port {
    /// A place for one more connection, if there is one.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let kept = match self.serves {
            Serves::Mqtt => self.limit.kept(),
            Serves::Https => 0,
        };
        if self.slots.available_permits() <= kept {
            return None;
        }
        self.slots.clone().try_acquire_owned().ok()
    }

    async fn accept(self, listener: TcpListener) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                log::error!(target: "twinflash_hub", "cannot listen: {error}");
                return;
            }
        };
        let mut stopped = std::pin::pin!(self.hub.stopped());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stopped => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: some will be closed.
                    log::warn!(target: "twinflash_hub", "cannot accept a connection: {error}");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(permit) = self.permit() else {
                drop(stream);
                self.hub.tell(&crate::Event::ConnectionRefused {
                    device: None,
                    peer: peer.to_string(),
                    reason: self.limit.to_string(),
                });
                continue;
            };
            let slot = Slot {
                _permit: permit,
                _alive: self.alive.clone(),
            };
            tokio::spawn(serve(
                self.hub.clone(),
                self.tls.clone(),
                self.serves,
                stream,
                peer,
                slot,
            ));
        }
    }
}

async fn serve(
    hub: Arc<Shared>,
    tls: TlsAcceptor,
    serves: Serves,
    stream: TcpStream,
    peer: SocketAddr,
    slot: Slot,
) {
    let _ = stream.set_nodelay(true);
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => accepted,
        () = hub.stopped() => return,
    };
    let refused = match accepted {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates();
            let certificates = certificates.unwrap_or_default().to_vec();
            match serves {
                Serves::Mqtt => mqtt::serve(&hub, peer.to_string(), &certificates, stream).await,
                Serves::Https => {
                    rest::serve(
                        hub,
                        stream,
                        Peer {
                            address: peer.to_string(),
                            certificates: certificates.into(),
                            slot: Arc::new(slot),
                        },
                    )
                    .await
                }
            }
            return;
        }
        Ok(Err(error)) => format!("TLS handshake failed: {error}"),
        Err(_) => "no TLS handshake in time".into(),
    };
    hub.tell(&crate::Event::ConnectionRefused {
        device: None,
        peer: peer.to_string(),
        reason: refused,
    });
}

fn listen(
    address: IpAddr,
    port: u16,
    what: &'static str,
    option: &'static str,
) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(address, port);
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AddrInUse => Error::PortInUse {
            address,
            what,
            option,
        },
        ErrorKind::PermissionDenied => Error::Listen {
            address,
            what,
            option,
            reason: format!("{error} (ports below 1024 may need more rights)"),
        },
        _ => Error::Listen {
            address,
            what,
            option,
            reason: error.to_string(),
        },
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    // The standard library's backlog is 128.
    #[cfg(unix)]
    let _ = rustix::net::listen(&listener, BACKLOG);
    Ok(listener)
}

fn check_host_name(name: &str) -> Result<(), Error> {
    let labels_are_sound = || {
        name.len() <= 253
            && name.split('.').all(|label| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            })
    };
    if name
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv4())
        || labels_are_sound()
    {
        return Ok(());
    }
    Err(Error::Name(format!(
        "{name:?} is no host name: letters, digits, dots and hyphens, without a port"
    )))
}

fn describe(
    options: Options,
    hub: &Shared,
    authority: &Authority,
    mqtt_port: u16,
    https_port: u16,
) -> Info {
    let (service, service_gateway) = host(&options, https_port, 443);
    let (device, device_gateway) = host(&options, mqtt_port, 8883);
    let of_policy = |(name, key): (&str, &str)| {
        let string =
            format!("{service};SharedAccessKeyName={name};SharedAccessKey={key}{service_gateway}");
        (name.to_owned(), string)
    };
    let of_device = |(id, key): (String, Option<String>)| {
        let proof = key.map_or("x509=true".into(), |key| format!("SharedAccessKey={key}"));
        let string = format!("{device};DeviceId={id};{proof}{device_gateway}");
        (id, string)
    };
    let policies: BTreeMap<String, String> = hub.policy_keys().map(of_policy).collect();
    Info {
        mqtt_port,
        https_port,
        ca: authority.file.clone(),
        ca_pem: authority.pem.clone(),
        service_connection_string: policies.get("iothubowner").cloned().unwrap_or_default(),
        policies,
        devices: hub.device_keys().into_iter().map(of_device).collect(),
        host_name: options.host_name,
    }
}

/// The devices to register, and what with.
fn registrations(options: &Options) -> impl Iterator<Item = (&String, Value)> {
    let x509 = |thumbprint: &Option<String>| match thumbprint {
        Some(thumbprint) => {
            json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}})
        }
        None => json!({"type": "certificateAuthority"}),
    };
    let with_keys = options.devices.iter().map(|id| (id, json!({})));
    let with_certificates = options.x509_devices.iter();
    with_keys.chain(
        with_certificates
            .map(move |(id, thumbprint)| (id, json!({"authentication": x509(thumbprint)}))),
    )
}

/// What the certificate is valid for.
fn names(options: &Options) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    for name in [options.host_name.clone(), options.listen.to_string()] {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A connection string's `HostName`, with the port unless it is the usual one, and its `GatewayHostName`: a realistic hub
/// name leads nowhere, the gateway here.
fn host(options: &Options, port: u16, usual: u16) -> (String, String) {
    let with_port = |name: &str| match port {
        port if port == usual => name.to_owned(),
        port => format!("{name}:{port}"),
    };
    let name = &options.host_name;
    if name == "localhost" || name.parse::<IpAddr>().is_ok() || !options.listen.is_loopback() {
        (format!("HostName={}", with_port(name)), String::new())
    } else {
        (
            format!("HostName={name}"),
            format!(";GatewayHostName={}", with_port("localhost")),
        )
    }
}
