//! A small HTTP/1.1 server over `std::net` that can break every rule. It keeps a list of what it was
//! asked and how many body bytes it sent. A handler answers each request on its own thread; when it
//! returns, the connection is closed.

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A request, and what was sent for it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// Body bytes sent.
    pub sent: u64,
    /// The client went while nothing was sent to it.
    pub gone: bool,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The first byte of a `Range` without an end.
    pub fn range_start(&self) -> Option<usize> {
        let range = self
            .header("range")?
            .strip_prefix("bytes=")?
            .strip_suffix('-')?;
        Some(range.parse().unwrap())
    }
}

/// The way back to the client. A write that fails is ignored: the client has gone.
pub struct Reply {
    stream: Box<dyn Stream>,
    /// The same connection, if it is without TLS.
    tcp: TcpStream,
    server: Arc<Inner>,
    number: usize,
    pub asked: Asked,
    /// `serve` sends pieces of so many bytes…
    pub piece: usize,
    /// …and waits so long after each.
    pub pause: Duration,
    /// Before the last piece, in addition. What comes while the client is busy may wait in its buffer
    /// for more to come.
    pub pause_before_last: Duration,
}

impl Reply {
    /// Which request of this server it is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    pub fn head(&mut self, status: &str, headers: &[(&str, &str)]) {
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let _ = self.stream.write_all(format!("{head}\r\n").as_bytes());
        let _ = self.stream.flush();
    }

    /// Whether the client still takes bytes.
    pub fn body(&mut self, bytes: &[u8]) -> bool {
        let sent = self.stream.write_all(bytes).is_ok() && self.stream.flush().is_ok();
        if sent && let Some(asked) = self.server.asked.lock().unwrap().get_mut(self.number) {
            asked.sent += bytes.len() as u64;
        }
        sent
    }

    pub fn empty(&mut self, status: &str, headers: &[(&str, &str)]) {
        let mut headers = headers.to_vec();
        headers.push(("Content-Length", "0"));
        self.head(status, &headers);
    }

    /// Nothing more, until the client goes or the server ends.
    pub fn hang(&mut self) {
        let moment = Duration::from_millis(10);
        self.tcp.set_read_timeout(Some(moment)).unwrap();
        while !self.server.ended.load(Ordering::Relaxed) {
            match self.tcp.read(&mut [0; 16]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(1..) => {}
                _ => {
                    self.server.asked.lock().unwrap()[self.number].gone = true;
                    return;
                }
            }
        }
    }

    /// What a proxy does for `CONNECT`: bytes go to and from the address, until one side ends.
    pub fn tunnel(&mut self, to: SocketAddr) {
        self.head("200 OK", &[]);
        let there = TcpStream::connect(to).unwrap();
        let (mut from_client, mut to_server) =
            (self.tcp.try_clone().unwrap(), there.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        let _ = std::io::copy(&mut &there, &mut self.tcp);
    }

    /// What a good server does: ranges, `If-Range`, `ETag`. Sends at most `most` bytes of the body it
    /// announces.
    pub fn serve(&mut self, image: &[u8], etag: Option<&str>, most: usize) {
        let if_range = self.asked.header("if-range");
        let start = self
            .asked
            .range_start()
            .filter(|_| if_range.is_none() || if_range == etag)
            .filter(|_| etag.is_none_or(|etag| !etag.starts_with("W/")) || if_range.is_none());
        if start.is_some_and(|start| start >= image.len()) {
            let range = format!("bytes */{}", image.len());
            return self.empty("416 Range Not Satisfiable", &[("Content-Range", &range)]);
        }
        let body = &image[start.unwrap_or(0)..];
        let length = body.len().to_string();
        let range = format!(
            "bytes {}-{}/{}",
            start.unwrap_or(0),
            image.len() - 1,
            image.len()
        );
        let mut headers = vec![
            ("Content-Length", length.as_str()),
            ("Accept-Ranges", "bytes"),
        ];
        headers.extend(etag.map(|etag| ("ETag", etag)));
        if start.is_some() {
            headers.push(("Content-Range", &range));
        }
        self.head(
            if start.is_some() {
                "206 Partial Content"
            } else {
                "200 OK"
            },
            &headers,
        );
        let mut pieces = body[..body.len().min(most)].chunks(self.piece).peekable();
        while let Some(piece) = pieces.next() {
            if pieces.peek().is_none() {
                thread::sleep(self.pause_before_last);
            }
            if !self.body(piece) || self.server.ended.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(self.pause);
        }
    }
}

struct Inner {
    asked: Mutex<Vec<Asked>>,
    ended: AtomicBool,
}

pub struct Server {
    inner: Arc<Inner>,
    address: SocketAddr,
    scheme: &'static str,
}

impl Server {
    pub fn http(answer: impl Fn(&mut Reply) + Send + Sync + 'static) -> Self {
        Self::start("http", None, answer)
    }

    pub fn https(
        config: ServerConfig,
        answer: impl Fn(&mut Reply) + Send + Sync + 'static,
    ) -> Self {
        Self::start("https", Some(Arc::new(config)), answer)
    }

    /// Each connection is handed over before a byte of it is read, and is closed when `answer` lets go of it.
    pub fn raw(answer: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> Self {
        let connections = AtomicUsize::new(0);
        Self::listen("http", move |stream, _| {
            answer(connections.fetch_add(1, Ordering::Relaxed), stream);
        })
    }

    fn start(
        scheme: &'static str,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&mut Reply) + Send + Sync + 'static,
    ) -> Self {
        Self::listen(scheme, move |stream, server| {
            handle(stream, tls.clone(), server, &answer);
        })
    }

    fn listen(
        scheme: &'static str,
        connection: impl Fn(TcpStream, Arc<Inner>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            asked: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let server = inner.clone();
        let connection = Arc::new(connection);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if server.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (server, connection) = (server.clone(), connection.clone());
                let stream = stream.unwrap();
                thread::spawn(move || connection(stream, server));
            }
        });
        Self {
            inner,
            address,
            scheme,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// The `Range` of each request so far.
    pub fn ranges(&self) -> Vec<Option<String>> {
        self.asked()
            .iter()
            .map(|asked| asked.header("range").map(Into::into))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn handle(
    tcp: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    server: Arc<Inner>,
    answer: &(dyn Fn(&mut Reply) + Send + Sync),
) {
    tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    tcp.set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    tcp.set_nodelay(true).unwrap();
    let copy = tcp.try_clone().unwrap();
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(tcp),
        Some(config) => Box::new(StreamOwned::new(
            ServerConnection::new(config).unwrap(),
            tcp,
        )),
    };
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(length) if length > 2 => lines.push(line.trim_end().to_owned()),
            Ok(2) => break,
            // A client that goes before it has asked: a refused certificate, a stop.
            _ => return,
        }
    }
    let mut asked = Asked {
        path: lines[0].split(' ').nth(1).unwrap().into(),
        ..Asked::default()
    };
    for line in &lines[1..] {
        let (name, value) = line.split_once(':').unwrap();
        asked.headers.push((name.into(), value.trim().into()));
    }
    let number = {
        let mut all = server.asked.lock().unwrap();
        all.push(asked.clone());
        all.len() - 1
    };
    answer(&mut Reply {
        stream: reader.into_inner(),
        tcp: copy,
        server,
        number,
        asked,
        piece: 16 * 1024,
        pause: Duration::ZERO,
        pause_before_last: Duration::ZERO,
    });
}
