//! A small HTTPS server for one file: ranges, `If-Range`, `ETag`. For the demonstration only.

use crate::error::Error;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A request's head may not be longer.
const HEAD: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is served.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) file: PathBuf,
    pub(crate) size: u64,
    /// Its strong validator, in quotes.
    pub(crate) etag: String,
    /// Where, such as `/firmware.bin`.
    pub(crate) path: String,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    url: String,
}

impl Server {
    /// Serves `image` on a free port of this machine.
    pub(crate) fn start(tls: Arc<ServerConfig>, image: Image) -> Result<Self, Error> {
        let failed = |error| Error::new(format_args!("cannot serve the image: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let url = format!("https://localhost:{}{}", address.port(), image.path);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, image) = (Arc::clone(&stop), Arc::new(image));
        thread::Builder::new()
            .name("firmware".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    if stopped.load(Ordering::Acquire) {
                        return;
                    }
                    let (tls, image) = (Arc::clone(&tls), Arc::clone(&image));
                    // A client that goes away is the client's business.
                    thread::spawn(move || serve(stream, tls, &image));
                }
            })
            .map_err(failed)?;
        Ok(Self { address, stop, url })
    }

    /// The image's address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes it up.
        let _ = TcpStream::connect(self.address);
    }
}

/// One request a connection.
fn serve(stream: TcpStream, tls: Arc<ServerConfig>, image: &Image) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let head = read_head(&mut stream)?;
    let answer = Answer::to(&head, image);
    stream.write_all(answer.head.as_bytes())?;
    if answer.length > 0 {
        let mut file = File::open(&image.file)?;
        file.seek(SeekFrom::Start(answer.start))?;
        let mut buffer = vec![0; 256 * 1024];
        let mut body = file.take(answer.length);
        loop {
            let read = body.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            stream.write_all(buffer.get(..read).unwrap_or_default())?;
        }
    }
    stream.conn.send_close_notify();
    stream.flush()
}

fn read_head(stream: &mut impl Read) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    for line in BufReader::new(stream.take(HEAD)).lines() {
        match line? {
            line if line.is_empty() => return Ok(lines),
            line => lines.push(line),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// What is answered: the head, and which bytes follow.
struct Answer {
    head: String,
    start: u64,
    length: u64,
}

impl Answer {
    fn to(request: &[String], image: &Image) -> Self {
        let mut words = request.first().map_or("", String::as_str).split(' ');
        let (method, path) = (words.next(), words.next());
        let header = |name: &str| {
            request.iter().skip(1).find_map(|line| {
                let (found, value) = line.split_once(':')?;
                found.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if path != Some(image.path.as_str()) {
            return Self::without_body("404 Not Found", "");
        }
        if !matches!(method, Some("GET" | "HEAD")) {
            return Self::without_body("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
        }
        // RFC 9110, section 13.1.5: another validator asks for the whole.
        let unchanged = header("if-range").is_none_or(|etag| etag == image.etag);
        let start = header("range").filter(|_| unchanged).and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        let (size, etag) = (image.size, &image.etag);
        if start.is_some_and(|start| start >= size) {
            let range = format!("Content-Range: bytes */{size}\r\n");
            return Self::without_body("416 Range Not Satisfiable", &range);
        }
        let (status, range) = match start {
            Some(start) => (
                "206 Partial Content",
                format!("Content-Range: bytes {start}-{}/{size}\r\n", size - 1),
            ),
            None => ("200 OK", String::new()),
        };
        let start = start.unwrap_or_default();
        let length = size - start;
        Self {
            head: format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{range}ETag: {etag}\r\n\
                 Accept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\n\
                 Connection: close\r\n\r\n"
            ),
            start,
            length: if method == Some("HEAD") { 0 } else { length },
        }
    }

    fn without_body(status: &str, headers: &str) -> Self {
        Self {
            head: format!(
                "HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
            ),
            start: 0,
            length: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &str) -> Answer {
        let image = Image {
            file: PathBuf::new(),
            size: 10,
            etag: "\"a\"".into(),
            path: "/i".into(),
        };
        let lines: Vec<_> = request.lines().map(Into::into).collect();
        Answer::to(&lines, &image)
    }

    #[test]
    fn what_is_asked_for_is_answered() {
        for (request, status, start, length) in [
            ("GET /i HTTP/1.1", "200", 0, 10),
            ("HEAD /i HTTP/1.1", "200", 0, 0),
            ("GET /j HTTP/1.1", "404", 0, 0),
            ("POST /i HTTP/1.1", "405", 0, 0),
            ("", "404", 0, 0),
            ("GET /i HTTP/1.1\nRange: bytes=4-", "206", 4, 6),
            (
                "GET /i HTTP/1.1\nrange: bytes=4-\nif-range: \"a\"",
                "206",
                4,
                6,
            ),
            (
                "GET /i HTTP/1.1\nRange: bytes=4-\nIf-Range: \"b\"",
                "200",
                0,
                10,
            ),
            ("GET /i HTTP/1.1\nRange: bytes=10-", "416", 0, 0),
            ("GET /i HTTP/1.1\nRange: bytes=x-", "200", 0, 10),
        ] {
            let answer = answer(request);
            assert!(
                answer.head.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}"
            );
            assert_eq!((answer.start, answer.length), (start, length), "{request}");
        }
        let partial = answer("GET /i HTTP/1.1\nRange: bytes=4-").head;
        assert!(partial.contains("\r\nContent-Range: bytes 4-9/10\r\n"));
    }
}
