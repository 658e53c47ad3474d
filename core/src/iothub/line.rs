//! The line to the hub: one task, on one thread, that owns the MQTT connection and every state.
//!
//! Each attempt to connect has an MQTT client of its own, so nothing of one connection can leak into
//! the next: no stale events, no replayed packets. What must survive is kept here.

use super::{
    Cause, Disconnected, Event, MethodCall, MethodRequest, Options, RequestError, Session,
    client::{Answer, Command, MAX_MESSAGE},
    connection::{Connection, Phase, Request, What, refused_subscription},
    reason::Attempt,
    retry::{self, Retry},
    sas::percent_encode,
    topic::{self, Incoming},
};
use rumqttc::{
    AsyncClient, ConnectionError, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet,
    Publish, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    select,
    sync::mpsc::UnboundedReceiver,
    time::{sleep, sleep_until},
};

/// The longest a back end can wait for a method's answer: Azure's limit of responseTimeoutInSeconds.
const METHOD_TIMEOUT: Duration = Duration::from_secs(300);
/// Why we leave by ourselves, for people.
const RENEWAL: &str = "the token is renewed";
/// How often an unknown wall time is asked for again.
const CLOCK_INTERVAL: Duration = Duration::from_millis(500);
/// A topic and MQTT's own bytes come on top of a message.
const MAX_PACKET: usize = MAX_MESSAGE + 4096;
/// The version of IoT Hub's interface that is spoken.
const API_VERSION: &str = "2021-04-12";

/// How a connection, or the attempt at one, has ended.
enum End {
    /// By [`Command::Close`].
    Closed,
    /// By ourselves, to come back with a new token.
    Renewal,
    Lost(Cause, String),
}

pub(super) struct Line {
    options: Options,
    tls: Arc<ClientConfig>,
    commands: UnboundedReceiver<Command>,
    handler: Box<dyn FnMut(Event) + Send>,
    retry: Retry,
    /// Numbers requests about the twin; starts anywhere, so that two runs do not share numbers.
    request: u64,
    /// Methods a back end may be waiting for.
    methods: Vec<MethodRequest>,
    /// Answers that wait for the next connection.
    answers: Vec<Answer>,
}

impl Line {
    pub(super) fn new(
        options: Options,
        tls: Arc<ClientConfig>,
        commands: UnboundedReceiver<Command>,
        handler: Box<dyn FnMut(Event) + Send>,
    ) -> Self {
        Self {
            retry: Retry::new(options.retry_min, options.retry_max),
            options,
            tls,
            commands,
            handler,
            request: retry::random(),
            methods: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Keeps the line up until it is closed.
    pub(super) async fn run(mut self) {
        while let Some(time) = self.wall_time().await {
            let (cause, reason, retry_in) = match self.connection(time).await {
                End::Closed => return,
                End::Renewal => (Cause::Renewal, RENEWAL.into(), Duration::ZERO),
                End::Lost(cause, reason) => (cause, reason, self.retry.next()),
            };
            self.emit(Event::Disconnected(Disconnected {
                cause,
                reason,
                retry_in,
            }));
            if !self.pause(retry_in).await {
                return;
            }
        }
    }

    /// Waits until the wall time is known. `None` if closed before.
    async fn wall_time(&mut self) -> Option<SystemTime> {
        let mut told = false;
        loop {
            if let Some(time) = (self.options.clock)() {
                return Some(time);
            }
            if !told {
                told = true;
                self.emit(Event::WaitingForClock);
            }
            if !self.pause(CLOCK_INTERVAL).await {
                return None;
            }
        }
    }

    /// Waits, with no connection. `false` if closed meanwhile.
    async fn pause(&mut self, time: Duration) -> bool {
        let sleep = sleep(time);
        tokio::pin!(sleep);
        loop {
            select! {
                () = &mut sleep => return true,
                command = self.commands.recv() => match command {
                    None | Some(Command::Close) => return false,
                    Some(command) => self.offline(command),
                },
            }
        }
    }

    /// A command that finds no connection.
    fn offline(&mut self, command: Command) {
        match command {
            Command::Report { id, .. } => self.emit(Event::ReportDone {
                id,
                result: Err(RequestError::lost("not connected")),
            }),
            Command::ReadTwin => self.emit(Event::TwinFailed(RequestError::lost("not connected"))),
            Command::Answer(answer) => self.answers.push(answer),
            Command::Close => {}
        }
    }

    /// One connection, from the first packet to the end.
    async fn connection(&mut self, time: SystemTime) -> End {
        let lifetime = match self.options.connection.is_x509() {
            true => None,
            false => Some(self.options.token_lifetime),
        };
        let expires = lifetime.map(|lifetime| time.checked_add(lifetime).unwrap_or(time));
        let server = self.options.connection.server_name();
        let (client, mut eventloop) = self.mqtt(expires);
        let mut connection = Connection::new(client, lifetime);
        let end = loop {
            match self.next(&mut connection, &mut eventloop).await {
                Ok(Packet::ConnAck(_)) => connection.subscribe(self.options.connect_timeout),
                Ok(Packet::SubAck(answer))
                    if matches!(connection.phase, Phase::Subscribing { .. }) =>
                {
                    if let Some(filter) = refused_subscription(&answer) {
                        let reason = format!("{server} refuses the subscription of {filter}");
                        break End::Lost(Cause::Refused, reason);
                    }
                    let session = Session {
                        server: server.clone(),
                        token_expires: expires,
                    };
                    self.online(&mut connection, session);
                }
                Ok(Packet::UnsubAck(_)) => connection.unsubscribed(),
                Ok(Packet::Publish(message)) => self.incoming(&mut connection, message),
                Ok(_) => {}
                Err(Stop::End(end)) => break end,
                Err(Stop::Error(error)) => {
                    let attempt = Attempt {
                        server: &server,
                        device_id: self.options.connection.device_id(),
                        identity: self.options.identity.as_ref(),
                        time,
                        accepted: !matches!(connection.phase, Phase::Connecting),
                    };
                    let (cause, reason) = attempt.explain(&error);
                    break End::Lost(cause, reason);
                }
            }
        };
        if let Some(since) = connection.online {
            self.retry.was_up(since.elapsed());
        }
        if !matches!(end, End::Closed) {
            let reason = match &end {
                End::Lost(_, reason) => reason.clone(),
                _ => RENEWAL.into(),
            };
            for request in connection.requests.into_values() {
                self.done(request.what, Err(RequestError::lost(reason.clone())));
            }
        }
        end
    }

    /// The MQTT client for one connection, with a new token where the device has a key.
    fn mqtt(&self, expires: Option<SystemTime>) -> (AsyncClient, EventLoop) {
        let Options {
            connection,
            keep_alive,
            product_info,
            ..
        } = &self.options;
        // Rounded up: a token must not end before it is renewed.
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs().saturating_add(1))
        };
        let token = expires.and_then(|expires| connection.token(seconds(expires)));
        let (host, port) = connection.server();
        let mut options = MqttOptions::new(connection.device_id(), (host, port));
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
                Arc::clone(&self.tls),
            )))
            .set_keep_alive(u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX))
            // As every SDK of Azure's does. Nothing relies on what the hub remembers: subscriptions are
            // made anew, and at quality of service 0 no method comes twice.
            .set_clean_session(false)
            .set_max_packet_size(MAX_PACKET, MAX_PACKET);
        let user = format!(
            "{}/{}/?api-version={API_VERSION}&DeviceClientType={}",
            connection.hub(),
            connection.device_id(),
            percent_encode(product_info)
        );
        match token {
            Some(token) => options.set_credentials(user, token),
            None => options.set_username(user),
        };
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(self.options.connect_timeout.as_secs());
        let (client, mut eventloop) = AsyncClient::builder(options).unbounded().build();
        eventloop.set_network_options(network);
        (client, eventloop)
    }

    /// The next packet from the hub. Commands and timers are looked after meanwhile, without giving
    /// up what the event loop has begun: its futures must not be cancelled.
    async fn next(
        &mut self,
        connection: &mut Connection,
        eventloop: &mut EventLoop,
    ) -> Result<Packet, Stop> {
        loop {
            let poll = eventloop.poll();
            tokio::pin!(poll);
            let event = loop {
                let quiet = self.quiet();
                let deadline = connection.deadline(&self.options, quiet);
                // Of a closed one nothing more is asked; a dropped one's channel would answer at once.
                let open = !matches!(connection.phase, Phase::Leaving { renewal: false, .. });
                select! {
                    // What has come is read before anything is called late.
                    biased;
                    command = self.commands.recv(), if open => {
                        self.command(connection, command.unwrap_or(Command::Close))?;
                    }
                    event = &mut poll => break event,
                    () = sleep_until(deadline.into()) => self.timers(connection)?,
                }
            };
            match (event, &connection.phase) {
                (
                    Ok(rumqttc::Event::Outgoing(Outgoing::Disconnect)) | Err(_),
                    Phase::Leaving { renewal, .. },
                ) => {
                    return Err(Stop::End(if *renewal { End::Renewal } else { End::Closed }));
                }
                (Ok(rumqttc::Event::Incoming(packet)), _) => {
                    connection.heard = Instant::now();
                    return Ok(packet);
                }
                (Ok(rumqttc::Event::Outgoing(_)), _) => {}
                (Err(error), _) => return Err(Stop::Error(error)),
            }
        }
    }

    /// Whether no back end waits for an answer.
    fn quiet(&mut self) -> bool {
        self.methods
            .retain(|method| method.received.elapsed() < METHOD_TIMEOUT);
        self.methods.is_empty()
    }

    fn command(&mut self, connection: &mut Connection, command: Command) -> Result<(), Stop> {
        match (command, &connection.phase) {
            (Command::Close, Phase::Connecting) => return Err(Stop::End(End::Closed)),
            (Command::Close, _) => connection.leave(false),
            (Command::Answer(answer), Phase::Online) => self.answer(connection, answer),
            (Command::ReadTwin, Phase::Online) => {
                let id = self.request_id();
                connection.publish(topic::get_twin(&id), Vec::new());
                connection.expect(id, What::ReadTwin);
            }
            (Command::Report { id, patch }, Phase::Online) => {
                if patch.len() > MAX_MESSAGE {
                    let message = format!(
                        "a report may have {MAX_MESSAGE} bytes, this one has {}",
                        patch.len()
                    );
                    let error = RequestError {
                        status: 413,
                        code: None,
                        message,
                    };
                    self.done(What::Report(id), Err(error));
                } else {
                    let request = self.request_id();
                    connection.publish(topic::report(&request), patch);
                    connection.expect(request, What::Report(id));
                }
            }
            (command, _) => self.offline(command),
        }
        Ok(())
    }

    /// Whatever has come due.
    fn timers(&mut self, connection: &mut Connection) -> Result<(), Stop> {
        let now = Instant::now();
        let timeout = self.options.answer_timeout;
        let lost = |reason: &str| {
            let reason = format!("{} {reason}", self.options.connection.server_name());
            Err(Stop::End(End::Lost(Cause::Network, reason)))
        };
        let late = |request: &Request| now >= request.sent + timeout;
        // A line that has been silent all the while is dead.
        if connection
            .requests
            .values()
            .any(|request| late(request) && connection.heard < request.sent)
        {
            return lost("has stopped answering");
        }
        match connection.phase {
            Phase::Subscribing { until } if now >= until => {
                return lost("does not answer the subscriptions");
            }
            Phase::Leaving { until, renewal } if now >= until => {
                return Err(Stop::End(if renewal { End::Renewal } else { End::Closed }));
            }
            Phase::Online => {
                let quiet = self.quiet();
                connection.renew(now, quiet);
            }
            _ => {}
        }
        for (_, request) in connection.requests.extract_if(|_, request| late(request)) {
            let error = RequestError::lost(format!("no answer for {} s", timeout.as_secs()));
            self.done(request.what, Err(error));
        }
        Ok(())
    }

    /// Every subscription is acknowledged.
    fn online(&mut self, connection: &mut Connection, session: Session) {
        connection.phase = Phase::Online;
        connection.online = Some(Instant::now());
        self.emit(Event::Connected(session));
        for answer in std::mem::take(&mut self.answers) {
            self.answer(connection, answer);
        }
        for message in std::mem::take(&mut connection.early) {
            self.incoming(connection, message);
        }
    }

    fn answer(&mut self, connection: &Connection, answer: Answer) {
        let Answer {
            request,
            status,
            payload,
        } = answer;
        self.methods.retain(|method| *method != request);
        if request.received.elapsed() < METHOD_TIMEOUT {
            connection.publish(topic::method_answer(&request.id, status), payload);
        }
    }

    fn incoming(&mut self, connection: &mut Connection, message: Publish) {
        match connection.phase {
            Phase::Online | Phase::Leaving { renewal: true, .. } => {}
            Phase::Connecting | Phase::Subscribing { .. } => return connection.early.push(message),
            Phase::Leaving { renewal: false, .. } => return,
        }
        let Ok(topic) = std::str::from_utf8(&message.topic) else {
            return;
        };
        let payload = message.payload.to_vec();
        match Incoming::parse(topic) {
            Some(Incoming::Method { name, request }) => {
                let request = MethodRequest {
                    id: request.to_owned(),
                    received: Instant::now(),
                };
                self.methods.push(request.clone());
                self.emit(Event::Method(MethodCall {
                    request,
                    name: name.to_owned(),
                    payload,
                }));
            }
            Some(Incoming::Desired) => self.emit(Event::Desired(payload)),
            Some(Incoming::TwinAnswer {
                status,
                request,
                version,
            }) => {
                let Some(request) = connection.requests.remove(request) else {
                    return;
                };
                let result = match status {
                    200..300 => Ok((version, payload)),
                    _ => Err(RequestError::answered(status, &payload)),
                };
                self.done(request.what, result);
            }
            None => {}
        }
    }

    /// Tells the result of a request.
    fn done(&mut self, what: What, result: Result<(Option<u64>, Vec<u8>), RequestError>) {
        self.emit(match (what, result) {
            (What::ReadTwin, Ok((_, twin))) => Event::Twin(twin),
            (What::ReadTwin, Err(error)) => Event::TwinFailed(error),
            (What::Report(id), result) => Event::ReportDone {
                id,
                result: result.map(|(version, _)| version),
            },
        });
    }

    fn request_id(&mut self) -> String {
        self.request = self.request.wrapping_add(1);
        format!("{:x}", self.request)
    }

    fn emit(&mut self, event: Event) {
        (self.handler)(event);
    }
}

/// Why [`Line::next`] has no packet.
enum Stop {
    End(End),
    Error(ConnectionError),
}
