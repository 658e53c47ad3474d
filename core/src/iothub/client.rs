//! The client's handle: what is asked of the line, from any thread.

use super::{ConnectionString, Event, MethodRequest, line::Line};
use crate::tls::{self, ClientIdentity, Clock, Roots};
use rustls::ClientConfig;
use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The most a direct method's answer may hold, in bytes: Azure's limit.
pub const MAX_METHOD_ANSWER: usize = 128 * 1024;
/// The most any message to a hub may hold, in bytes: Azure's limit. (Reported properties may hold
/// 32 KB in all; the hub judges that.)
pub const MAX_MESSAGE: usize = 256 * 1024;
/// How long [`Client::close`] waits at most.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(900);

/// How a [`Client`] connects. Made by [`Options::new`], then changed where the defaults do not fit.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Which hub, which device, which key.
    pub connection: ConnectionString,
    /// Whose certificates are trusted. Default: Mozilla's, which Azure's are among; the
    /// system's where none are built in.
    pub roots: Roots,
    /// The certificate by which a device proves itself whose connection string says `x509=true`, and its
    /// key. Default: none.
    pub identity: Option<ClientIdentity>,
    /// How long a token is good for; between 80 and 85 % of it the client reconnects with a new
    /// one. Default: one hour. A device with a certificate has no tokens.
    pub token_lifetime: Duration,
    /// How long the line may be silent before the client asks whether the hub is there; a dead
    /// line is noticed within twice this time. From 1 to 1767 seconds, whole ones. Default: 4 min.
    pub keep_alive: Duration,
    /// How long finding the server, TCP, TLS and the hub's acceptance may take together.
    /// Whole seconds, at least 1. Default: 30 s.
    pub connect_timeout: Duration,
    /// How long the hub may take to answer a request about the twin. Default: 60 s.
    pub answer_timeout: Duration,
    /// The longest wait before the first retry. The wait is drawn at random from zero to a bound
    /// that doubles with each failure in a row, so that a fleet does not come back all at once.
    /// Default: 1 s.
    pub retry_min: Duration,
    /// Where that bound stops growing. Default: 5 min.
    pub retry_max: Duration,
    /// What the device tells the hub about its software (`DeviceClientType`).
    /// Default: `twinflash/` and the version.
    pub product_info: String,
    /// The wall time, for tokens and certificates. Default: the system's.
    pub clock: Clock,
}

impl Options {
    /// The defaults, for this device.
    #[must_use]
    pub fn new(connection: ConnectionString) -> Self {
        Self {
            connection,
            roots: Roots::default(),
            identity: None,
            token_lifetime: Duration::from_secs(60 * 60),
            keep_alive: Duration::from_secs(4 * 60),
            connect_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(60),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(5 * 60),
            product_info: concat!("twinflash/", env!("CARGO_PKG_VERSION")).into(),
            clock: Arc::new(|| Some(SystemTime::now())),
        }
    }

    /// The bounds of times are such that no later calculation can overflow.
    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        const DAY: u32 = 24 * 60 * 60;
        match (self.connection.is_x509(), &self.identity) {
            (true, None) => return Err(ConnectError(
                "the connection string says x509=true, so the device's certificate and its key are needed (client_certificate and client_key)".into(),
            )),
            (false, Some(_)) => return Err(ConnectError(
                "there are a client_certificate and a SharedAccessKey, which exclude each other: a device with a certificate has x509=true in its connection string".into(),
            )),
            _ => {}
        }
        let check = |name: &str, value: Duration, least: f64, most: u32| {
            if (least..=f64::from(most)).contains(&value.as_secs_f64()) {
                return Ok(());
            }
            Err(ConnectError(format!(
                "option {name} must be from {least} to {most} seconds, not {}",
                value.as_secs_f64()
            )))
        };
        check("token_lifetime", self.token_lifetime, 1.0, 365 * DAY)?;
        check("keep_alive", self.keep_alive, 1.0, 1767)?;
        check("connect_timeout", self.connect_timeout, 1.0, DAY)?;
        check("answer_timeout", self.answer_timeout, 0.001, DAY)?;
        check("retry_min", self.retry_min, 0.001, DAY)?;
        check("retry_max", self.retry_max, 0.001, DAY)?;
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connection", &self.connection)
            .field("roots", &self.roots)
            .field("identity", &self.identity)
            .field("token_lifetime", &self.token_lifetime)
            .field("keep_alive", &self.keep_alive)
            .field("connect_timeout", &self.connect_timeout)
            .field("answer_timeout", &self.answer_timeout)
            .field("retry_min", &self.retry_min)
            .field("retry_max", &self.retry_max)
            .field("product_info", &self.product_info)
            .finish_non_exhaustive()
    }
}

/// A device's connection to its hub, kept up until it is closed.
///
/// A thread of its own connects, subscribes, renews the token and comes back after every failure.
/// The calls may be made from any thread, the handler included; none of them waits for the network.
///
/// ```no_run
/// use std::sync::mpsc;
/// use twinflash::iothub::{Client, Event, Options};
///
/// let connection = "HostName=localhost:18883;DeviceId=d1;SharedAccessKey=c2VjcmV0";
/// let (sender, events) = mpsc::channel();
/// let client = Client::connect(Options::new(connection.parse()?), move |event| {
///     let _ = sender.send(event);
/// })?;
/// for event in events {
///     match event {
///         Event::Connected(_) => client.read_twin(),
///         Event::Twin(_) => client.report(1, br#"{"firmwareVersion":"1.0.0"}"#.to_vec()),
///         Event::Method(call) => client.answer_method(&call.request, 200, b"{}".to_vec())?,
///         Event::Disconnected(why) => eprintln!("{}; retry in {:?}", why.reason, why.retry_in),
///         _ => {}
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    commands: UnboundedSender<Command>,
    /// The thread that is its own, until it has ended.
    thread: Mutex<Option<JoinHandle<()>>>,
    done: Arc<Done>,
}

impl Client {
    /// Starts to connect. Returns at once; `handler` is told how it goes.
    ///
    /// `handler` runs on the client's thread, one event at a time. While it runs, nothing is sent or
    /// received, so it must not wait for anything that needs the network: pass the event on, by a
    /// channel for example.
    ///
    /// # Errors
    /// The options make no sense, the roots cannot be read, or no thread can be started.
    pub fn connect(
        options: Options,
        handler: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, ConnectError> {
        options.check()?;
        let clock = Arc::clone(&options.clock);
        let tls = tls::client_config(&options.roots, options.identity.as_ref(), clock)
            .map_err(|error| ConnectError(error.to_string()))?;
        let cannot_start = |error: std::io::Error| {
            ConnectError(format!("cannot start the connection's thread: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot_start)?;
        let (commands, receiver) = unbounded_channel();
        let line = Line::new(options, tls, receiver, Box::new(handler));
        let done = Arc::new(Done::default());
        let guard = DoneGuard(Arc::clone(&done));
        let thread = thread::Builder::new()
            .name("twinflash-iothub".into())
            .spawn(move || {
                let _guard = guard;
                runtime.block_on(line.run());
                // The threads that looked names up end, too, before the client is said to have ended.
                // A look-up cannot be cancelled: one that takes longer is left to itself.
                runtime.shutdown_timeout(CLOSE_TIMEOUT);
            })
            .map_err(cannot_start)?;
        Ok(Self {
            commands,
            thread: Mutex::new(Some(thread)),
            done,
        })
    }

    /// As [`Client::connect`], for many devices in one program: it starts no thread. The future keeps
    /// the connection up, and ends after the client is closed or dropped; it has to run on a tokio
    /// runtime with I/O and time, where `handler` is called, too. [`Client::close`] waits for nothing.
    ///
    /// `tls` is what all of them share, as [`tls::client_config`] makes it; `options.roots` and what is
    /// in `options.identity` are not looked at.
    ///
    /// # Errors
    /// The options make no sense.
    pub fn connect_with(
        options: Options,
        tls: Arc<ClientConfig>,
        handler: impl FnMut(Event) + Send + 'static,
    ) -> Result<(Self, impl Future<Output = ()> + Send), ConnectError> {
        options.check()?;
        let (commands, receiver) = unbounded_channel();
        let client = Self {
            commands,
            thread: Mutex::default(),
            done: Arc::default(),
        };
        let line = Line::new(options, tls, receiver, Box::new(handler));
        Ok((client, line.run()))
    }

    /// Answers a method call. An answer given while the line is down leaves when it is up again, if
    /// a back end may still be waiting then.
    ///
    /// `payload` is JSON, or empty; `status` is what the method's contract says, such as 200.
    ///
    /// # Errors
    /// `payload` is larger than [`MAX_METHOD_ANSWER`]; nothing was sent.
    pub fn answer_method(
        &self,
        request: &MethodRequest,
        status: u16,
        payload: Vec<u8>,
    ) -> Result<(), AnswerTooLarge> {
        if payload.len() > MAX_METHOD_ANSWER {
            return Err(AnswerTooLarge(payload.len()));
        }
        self.send(Command::Answer(Answer {
            request: request.clone(),
            status,
            payload,
        }));
        Ok(())
    }

    /// Changes reported properties: `patch` is the JSON object to merge into them.
    ///
    /// [`Event::ReportDone`] tells the result, with this `id`, which is the caller's to choose.
    pub fn report(&self, id: u64, patch: Vec<u8>) {
        self.send(Command::Report { id, patch });
    }

    /// Asks for the whole twin: [`Event::Twin`] or [`Event::TwinFailed`].
    pub fn read_twin(&self) {
        self.send(Command::ReadTwin);
    }

    /// Ends the connection. What was handed over before is still sent if the line is up. After this
    /// has returned the handler is not called any more, unless it is in a call that does not end.
    ///
    /// Returns within a second, whatever the network does; at once when called by the handler.
    /// Dropping the client does the same.
    pub fn close(&self) {
        self.close_until(Instant::now() + CLOSE_TIMEOUT);
    }

    /// As [`close`](Self::close), with its own time limit.
    pub(crate) fn close_until(&self, deadline: Instant) {
        self.send(Command::Close);
        let own = self.thread().as_ref().map(|thread| thread.thread().id());
        let left = deadline.saturating_duration_since(Instant::now());
        if own.is_none_or(|id| id == thread::current().id()) || !self.done.wait(left) {
            return;
        }
        let ended = self.thread().take();
        if let Some(thread) = ended {
            let _ = thread.join();
        }
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: Command) {
        // Fails only after the end, when there is nobody left to be told.
        let _ = self.commands.send(command);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What the line is asked to do.
pub(super) enum Command {
    Answer(Answer),
    Report { id: u64, patch: Vec<u8> },
    ReadTwin,
    Close,
}

/// An answer to a method call.
pub(super) struct Answer {
    pub(super) request: MethodRequest,
    pub(super) status: u16,
    pub(super) payload: Vec<u8>,
}

/// Whether the thread has done all it had to do.
#[derive(Default)]
struct Done {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Done {
    /// Waits for it; whether it has.
    fn wait(&self, timeout: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .changed
            .wait_timeout_while(ended, timeout, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Says so however the thread ends.
struct DoneGuard(Arc<Done>);

impl Drop for DoneGuard {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

/// A client cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError(String);

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}

/// A method's answer is larger than a hub takes; this many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerTooLarge(pub usize);

impl fmt::Display for AnswerTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the answer to a method may have {MAX_METHOD_ANSWER} bytes, this one has {}",
            self.0
        )
    }
}

impl std::error::Error for AnswerTooLarge {}
