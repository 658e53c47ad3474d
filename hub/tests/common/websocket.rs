//! MQTT over WebSockets, the device's side.

use super::Stream;
use std::io::{self, Read, Write};

/// A WebSocket client, as RFC 6455 has it; what is written becomes binary frames.
pub struct WebSocket<S> {
    stream: S,
    left: usize,
}

/// Asks for a WebSocket as the SDKs do.
pub fn upgrade<S: Stream>(mut stream: S) -> WebSocket<S> {
    stream
        .write_all(
            b"GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
            Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(
        head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: mqtt"),
        "{head}"
    );
    WebSocket { stream, left: 0 }
}

impl<S: Stream> WebSocket<S> {
    /// A frame that is said to be of some length, as far as there is anything of it.
    pub fn begin(&mut self, length: u64, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![0x82, 0x80 | 127];
        frame.extend(length.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame)
    }

    pub fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        // The mask is zero, so the payload stays as it is.
        let mut frame = vec![0x80 | kind, 0x80 | 127];
        frame.extend((payload.len() as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame)
    }
}

impl<S: Stream> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // In pieces: frames and packets have nothing to do with each other.
        let piece = &bytes[..bytes.len().min(50_000)];
        self.frame(2, piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Stream> Read for WebSocket<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head)?;
            let mut length = usize::from(head[1]);
            if length >= 126 {
                let mut long = [0; 8];
                let bytes = if length == 126 { 2 } else { 8 };
                self.stream.read_exact(&mut long[8 - bytes..])?;
                length = usize::try_from(u64::from_be_bytes(long)).unwrap();
            }
            if head[0] & 0x0f == 8 {
                return Ok(0);
            }
            self.left = length;
        }
        let most = buffer.len().min(self.left);
        let count = self.stream.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}
