//! A proxy between a device and its hub that spoils one packet. It ends TLS on both sides and reads MQTT.

use crate::packet::{From, Packet};
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{ClientConfig, ServerConfig, pki_types::ServerName},
};

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The line breaks before it is passed on…
    CutBefore,
    /// …in the middle of it…
    CutWithin,
    /// …after it.
    CutAfter,
    /// It is lost, and the line stays.
    Swallowed,
    Twice,
    /// After the packet that follows it.
    OutOfOrder,
    /// A request about the twin that the hub answers with this status, and does not do.
    Refused(u16),
    /// A request about the twin that the hub does, and then answers with this status.
    DoneAndRefused(u16),
    /// Half of its JSON.
    Garbled,
    /// Its `$version` is larger by 3.
    VersionsSkipped,
    /// Something that is no MQTT comes in its place.
    NoMqtt,
}

/// The packet that is spoilt: the `nth` of this name from there, counted over all connections.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) from: From,
    pub(crate) name: String,
    pub(crate) nth: usize,
}

struct Shared {
    hub: SocketAddr,
    connector: TlsConnector,
    spoil: Option<(Step, Fault)>,
    counts: Mutex<HashMap<(From, String), usize>>,
    /// Every packet, in order.
    seen: Mutex<Vec<Step>>,
    met: Mutex<bool>,
    /// Changes of desired properties that came by, and the way to the device.
    desired: Mutex<Vec<Packet>>,
    to_device: Mutex<Option<UnboundedSender<Vec<u8>>>>,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    listener: AbortHandle,
}

impl Proxy {
    pub(crate) fn start(
        runtime: &Handle,
        hub: SocketAddr,
        server: Arc<ServerConfig>,
        client: Arc<ClientConfig>,
        spoil: Option<(Step, Fault)>,
    ) -> Self {
        let shared = Arc::new(Shared {
            hub,
            connector: client.into(),
            spoil,
            counts: Mutex::default(),
            seen: Mutex::default(),
            met: Mutex::default(),
            desired: Mutex::default(),
            to_device: Mutex::default(),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(server);
        let state = shared.clone();
        let listening = runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (state.clone(), acceptor.clone());
                // An end of either side ends both.
                tokio::spawn(async move { state.connection(stream, &acceptor).await });
            }
        });
        Self {
            port,
            shared,
            listener: listening.abort_handle(),
        }
    }

    /// The packets that came by.
    pub(crate) fn seen(&self) -> Vec<Step> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Whether the packet came that was to be spoilt.
    pub(crate) fn met(&self) -> bool {
        *self.shared.met.lock().unwrap()
    }

    /// Sends the device every change of its desired properties once more.
    pub(crate) fn replay(&self) {
        let to_device = self.shared.to_device.lock().unwrap();
        for packet in self.shared.desired.lock().unwrap().iter() {
            if let Some(to_device) = &*to_device {
                let _ = to_device.send(packet.bytes().to_vec());
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// The two ways out of one connection.
#[derive(Clone)]
struct Ways {
    device: UnboundedSender<Vec<u8>>,
    hub: UnboundedSender<Vec<u8>>,
}

impl Ways {
    /// The way on for what comes from there.
    fn on(&self, from: From) -> &UnboundedSender<Vec<u8>> {
        match from {
            From::Device => &self.hub,
            From::Hub => &self.device,
        }
    }
}

impl Shared {
    async fn connection(&self, device: TcpStream, acceptor: &TlsAcceptor) -> io::Result<()> {
        device.set_nodelay(true)?;
        let device = acceptor.accept(device).await?;
        let hub = TcpStream::connect(self.hub).await?;
        hub.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let hub = self.connector.connect(name, hub).await?;
        let ((from_device, to_device), (from_hub, to_hub)) = (split(device), split(hub));
        let (device_way, for_device) = mpsc::unbounded_channel();
        let (hub_way, for_hub) = mpsc::unbounded_channel();
        *self.to_device.lock().unwrap() = Some(device_way.clone());
        let ways = Ways {
            device: device_way,
            hub: hub_way,
        };
        tokio::select! {
            () = self.pass(From::Device, from_device, &ways) => {}
            () = self.pass(From::Hub, from_hub, &ways) => {}
            () = write(to_device, for_device) => {}
            () = write(to_hub, for_hub) => {}
        }
        Ok(())
    }

    /// Passes packets on until the line is cut or closed.
    async fn pass(&self, from: From, reader: impl AsyncRead + Unpin, ways: &Ways) {
        let (send, mut packets) = mpsc::unbounded_channel();
        tokio::select! {
            () = read(reader, send) => {
                // What was read before the end is passed on.
                while let Ok(packet) = packets.try_recv() {
                    let _ = ways.on(from).send(Packet::bytes(&packet).to_vec());
                }
                sleep(Duration::from_millis(20)).await;
            }
            () = async {
                while let Some(packet) = packets.recv().await {
                    if !self.packet(from, packet, &mut packets, ways).await {
                        return;
                    }
                }
            } => {}
        }
    }

    /// Passes one on, or spoils it; whether the line is still there.
    async fn packet(
        &self,
        from: From,
        packet: Packet,
        packets: &mut UnboundedReceiver<Packet>,
        ways: &Ways,
    ) -> bool {
        let on = ways.on(from);
        let pass = |packet: &Packet| {
            let _ = on.send(packet.bytes().to_vec());
        };
        let Some(fault) = self.comes(from, &packet) else {
            pass(&packet);
            return true;
        };
        let moment = Duration::from_millis(30);
        match fault {
            Fault::CutBefore => return false,
            Fault::CutWithin => {
                let half = packet.bytes().len() / 2;
                let _ = on.send(packet.bytes()[..half.max(1)].to_vec());
                sleep(moment).await;
                return false;
            }
            Fault::CutAfter => {
                pass(&packet);
                sleep(moment).await;
                return false;
            }
            Fault::Swallowed => {}
            Fault::Twice => {
                pass(&packet);
                pass(&packet);
            }
            Fault::OutOfOrder => {
                let next = timeout(Duration::from_millis(300), packets.recv()).await;
                if let Ok(Some(next)) = &next {
                    self.comes(from, next);
                    pass(next);
                }
                pass(&packet);
            }
            Fault::Refused(status) => {
                let refusal = packet.refusal(status).unwrap();
                let _ = ways.device.send(refusal.bytes().to_vec());
            }
            Fault::DoneAndRefused(status) => pass(&packet.refusal(status).unwrap()),
            Fault::Garbled => pass(&packet.garbled().unwrap()),
            Fault::VersionsSkipped => pass(&packet.later().unwrap()),
            Fault::NoMqtt => {
                let _ = on.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n".to_vec());
            }
        }
        true
    }

    /// Notes a packet; what is to be done to it.
    fn comes(&self, from: From, packet: &Packet) -> Option<Fault> {
        let name = packet.name();
        if name == "desired" {
            self.desired.lock().unwrap().push(packet.clone());
        }
        let nth = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry((from, name.clone())).or_default();
            *count += 1;
            *count
        };
        let step = Step { from, name, nth };
        self.seen.lock().unwrap().push(step.clone());
        let (spoilt, fault) = self.spoil.as_ref()?;
        if *spoilt != step {
            return None;
        }
        *self.met.lock().unwrap() = true;
        Some(*fault)
    }
}

async fn read(mut reader: impl AsyncRead + Unpin, packets: UnboundedSender<Packet>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = reader.read_buf(&mut bytes).await {
        while let Some(packet) = Packet::take(&mut bytes) {
            let _ = packets.send(packet);
        }
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut bytes: UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = bytes.recv().await {
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}
