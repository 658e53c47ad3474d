//! One MQTT connection's bytes: packets in, packets out. Knows no IoT Hub.

use crate::event::DisconnectReason;
use mqtt_protocol_core::mqtt::{
    Connection, Version,
    common::Cursor,
    connection::{ConnectionOptions, Event},
    packet::{GenericPacketTrait, Packet, Qos, v3_1_1},
    role::Server,
};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

/// The largest packet: a 256 KB message with its topic.
const MAX_PACKET: u32 = 256 * 1024 + 64 * 1024 + 16;
/// The most bytes up to and with CONNECT; who is not known yet gets no more memory than that.
const MAX_CONNECT: usize = 16 * 1024;
/// The first byte of CONNECT, and so of a connection. Else HTTP's "GET" is a packet that never ends.
const CONNECT: u8 = 0x10;
/// How long a peer may take to read what was written to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Link<S> {
    stream: S,
    protocol: Connection<Server>,
    /// Bytes that came and are not looked at yet.
    unread: Vec<u8>,
    packets: VecDeque<Packet>,
    output: Vec<u8>,
    /// Why no more is read.
    ended: Option<DisconnectReason>,
    connected: bool,
    received: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub(crate) fn new(stream: S) -> Self {
        let options = ConnectionOptions::new().maximum_packet_size_recv(MAX_PACKET);
        let mut protocol = Connection::with_options(Version::V3_1_1, options);
        protocol.set_auto_ping_response(true);
        Self {
            stream,
            protocol,
            unread: Vec::new(),
            packets: VecDeque::new(),
            output: Vec::new(),
            ended: None,
            connected: false,
            received: 0,
        }
    }

    /// The next packet. May be dropped while it waits: nothing is lost. What the protocol answers by itself is left for
    /// [`Link::flush`].
    pub(crate) async fn next(&mut self) -> Result<Packet, DisconnectReason> {
        loop {
            self.parse();
            if let Some(packet) = self.packets.pop_front() {
                return Ok(packet);
            }
            if let Some(reason) = &self.ended {
                return Err(reason.clone());
            }
            let count = self.read().await.unwrap_or(0);
            if count == 0 {
                return Err(DisconnectReason::Lost);
            }
            if self.received == 0 && self.unread.first() != Some(&CONNECT) {
                return Err(DisconnectReason::Protocol(
                    "the first packet is not CONNECT".into(),
                ));
            }
            self.received = self.received.saturating_add(count);
            if !self.connected && self.received > MAX_CONNECT {
                return Err(DisconnectReason::Protocol(format!(
                    "no CONNECT within {MAX_CONNECT} bytes"
                )));
            }
        }
    }

    /// Reads what has come. The buffer is not the connection's: it would have one all the time it waits, and most do
    /// nothing else.
    async fn read(&mut self) -> std::io::Result<usize> {
        let Self { stream, unread, .. } = self;
        poll_fn(|context| {
            let mut buffer = [0; 8 * 1024];
            let mut buffer = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            unread.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
        .await
    }

    /// One packet at a time, so that nothing behind CONNECT is looked at before it is let in.
    fn parse(&mut self) {
        if !self.packets.is_empty() || self.ended.is_some() {
            return;
        }
        let mut cursor = Cursor::new(self.unread.as_slice());
        let mut events = Vec::new();
        let end = self.unread.len() as u64;
        while events.is_empty() && cursor.position() < end {
            events = self.protocol.recv(&mut cursor);
        }
        let taken = usize::try_from(cursor.position())
            .unwrap_or(usize::MAX)
            .min(self.unread.len());
        self.unread.drain(..taken);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        self.apply(events);
    }

    /// Queues a packet for [`Link::flush`].
    pub(crate) fn queue(&mut self, packet: Packet) {
        if let Packet::V3_1_1Connack(connack) = &packet {
            self.connected = connack.return_code().is_success();
        }
        let events = self.protocol.send(packet);
        self.apply(events);
    }

    /// Queues a message. At most once, as the real hub sends: TCP brings it, or the connection ends.
    pub(crate) fn publish(&mut self, topic: &str, payload: &[u8]) {
        let packet = v3_1_1::Publish::builder()
            .topic_name(topic)
            .and_then(|builder| builder.qos(Qos::AtMostOnce).payload(payload).build());
        match packet {
            Ok(packet) => self.queue(packet.into()),
            Err(error) => self.end(DisconnectReason::Protocol(format!(
                "cannot be told on {topic:?}: {error:?}"
            ))),
        }
    }

    fn apply(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::NotifyPacketReceived(packet) => self.packets.push_back(packet),
                Event::RequestSendPacket { packet, .. } => {
                    self.output.extend(packet.to_continuous_buffer())
                }
                Event::NotifyError(error) => {
                    self.ended = None;
                    self.end(DisconnectReason::Protocol(format!("{error:?}")));
                }
                Event::RequestClose => self.end(DisconnectReason::Protocol("closed".into())),
                // The keep-alive is watched by who reads; nothing we send takes a packet id.
                Event::RequestTimerReset { .. }
                | Event::RequestTimerCancel(_)
                | Event::NotifyPacketIdReleased(_) => {}
            }
        }
    }

    fn end(&mut self, reason: DisconnectReason) {
        self.ended.get_or_insert(reason);
    }

    /// Whether something is queued.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// What is queued is not to be written.
    pub(crate) fn forget_output(&mut self) {
        self.output = Vec::new();
    }

    /// Writes what is queued.
    pub(crate) async fn flush(&mut self) -> Result<(), DisconnectReason> {
        if self.output.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        };
        let written = timeout(WRITE_TIMEOUT, write).await;
        self.output = Vec::new();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(DisconnectReason::Lost),
            Err(_) => Err(DisconnectReason::TooSlow),
        }
    }

    /// Writes what is queued and says good-bye. Errors do not matter any more.
    pub(crate) async fn close(mut self) {
        let close = async {
            let _ = self.flush().await;
            let _ = self.stream.shutdown().await;
        };
        let _ = timeout(Duration::from_millis(500), close).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parses all of it, with CONNECT answered.
    fn feed(bytes: &[u8]) -> Option<DisconnectReason> {
        let mut link = Link::new(tokio::io::duplex(1).0);
        link.unread = bytes.to_vec();
        loop {
            let left = link.unread.len();
            link.parse();
            while let Some(packet) = link.packets.pop_front() {
                if let Packet::V3_1_1Connect(_) = packet
                    && let Ok(connack) = v3_1_1::Connack::builder()
                        .session_present(false)
                        .return_code(
                            mqtt_protocol_core::mqtt::result_code::ConnectReturnCode::Accepted,
                        )
                        .build()
                {
                    link.queue(connack.into());
                }
            }
            if link.ended.is_some() || link.unread.len() == left {
                return link.ended;
            }
        }
    }

    const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d";

    fn any_packet() -> impl Strategy<Value = Vec<u8>> {
        let body = prop::collection::vec(
            prop_oneof![Just(0_u8), Just(1), Just(4), any::<u8>()],
            0..40,
        );
        (any::<u8>(), body, -3_i8..3).prop_map(|(first, body, wrong)| {
            let length = u8::try_from(body.len())
                .unwrap()
                .saturating_add_signed(wrong);
            [vec![first, length], body].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_bytes_make_it_panic(packets in prop::collection::vec(any_packet(), 0..8), connected in any::<bool>()) {
            let start = if connected { CONNECT } else { &[] };
            feed(&[start, &packets.concat()].concat());
        }
    }

    #[test]
    fn a_good_connection_goes_on() {
        assert_eq!(
            feed(&[CONNECT, b"\xc0\x00", b"\x30\x03\x00\x01t"].concat()),
            None
        );
        assert!(feed(&[CONNECT, CONNECT].concat()).is_some());
    }
}
