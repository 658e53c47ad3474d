//! MQTT over WebSockets, for devices that only reach the HTTPS port.

use super::{Hub, Peer, connection::Allowance};
use crate::mqtt;
use axum::{
    Extension,
    body::Bytes,
    extract::{
        State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    response::Response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// The largest frame: the largest packet, with its topic.
const MAX_MESSAGE: usize = 384 * 1024;
/// What a peer may send, frames and all, before the hub has answered its CONNECT; until then it is nobody.
const MAX_UNKNOWN: usize = 32 * 1024;
/// How much is read and written at once. The library's own buffer has 128 KiB, which each device would hold all the time.
const BUFFER: usize = 8 * 1024;

pub(super) async fn upgrade(
    State(hub): Hub,
    Extension(peer): Extension<Peer>,
    Extension(allowance): Extension<Allowance>,
    upgrade: WebSocketUpgrade,
) -> Response {
    allowance.limit(MAX_UNKNOWN);
    upgrade
        .protocols(["mqtt"])
        .read_buffer_size(BUFFER)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .on_upgrade(async move |socket| {
            // Room for several packets each way, so that neither side waits for the other to read first.
            let (ours, theirs) = tokio::io::duplex(1024 * 1024);
            tokio::join!(
                bridge(socket, ours, &allowance),
                mqtt::serve(&hub, peer.address, &peer.certificates, theirs)
            );
            drop(peer.slot);
        })
}

/// Carries bytes between the frames and the connection until one side ends.
async fn bridge(mut socket: WebSocket, stream: DuplexStream, allowance: &Allowance) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut buffer = vec![0; BUFFER];
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if write.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => break,
            },
            count = read.read(&mut buffer) => match count {
                Ok(count) if count > 0 => {
                    // The first that the hub says is its answer to CONNECT; a bad one is the last, too.
                    allowance.lift();
                    let bytes = Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default());
                    if socket.send(Message::Binary(bytes)).await.is_err() {
                        break;
                    }
                }
                _ => {
                    let _ = socket.send(Message::Close(None)).await;
                    break;
                }
            },
        }
    }
}
