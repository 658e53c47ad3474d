//! All devices on one thread: their connections are tasks of one runtime, their engines turn in one loop.

use super::{
    counts::Counts,
    device::{Device, Kind, Wish},
    images::{Arrived, Fetch, Images},
};
use crate::{
    error::Error,
    screen::{Screen, Tone},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{interval, sleep_until, timeout},
};
use twinflash::{
    download::Downloader,
    engine::{Event, Input, Now},
    iothub::{Cause, Client, ConnectionString, Event as Line, Options},
};

/// So many devices are on their way to the hub at once: more would wait for its processor until their
/// time is over.
const CONNECTING: usize = 64;
/// How often the numbers are looked at, and on a terminal shown.
const LOOK: Duration = Duration::from_millis(100);
/// How often they are shown in lines.
const SHOW: Duration = Duration::from_secs(1);
/// How long all connections together may take to say good-bye.
const LEAVE: Duration = Duration::from_secs(5);
/// A timer that nothing comes of must not spin.
const AGAIN: Duration = Duration::from_millis(50);
/// So many failed devices are shown by name to people.
const SHOWN: usize = 10;

/// What the fleet is to do.
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) connections: Vec<ConnectionString>,
    /// Per cent of the devices that get damaged images.
    pub(super) fail: usize,
    /// The first connects are spread over this time.
    pub(super) ramp: Duration,
    /// It ends when each device has finished an update.
    pub(super) once: bool,
    /// It ends after this time.
    pub(super) time: Option<Duration>,
    pub(super) fetch: Fetch,
    pub(super) downloads: usize,
    pub(super) downloader: Downloader,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

/// Why it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Every device has finished an update.
    Finished,
    /// Its time was over.
    Time,
    /// By this signal.
    Signal(i32),
}

/// What came of it.
pub(super) struct Result {
    pub(super) end: End,
    pub(super) counts: Counts,
    /// How many devices came to the hub at least once, and how long it took until all of them had.
    pub(super) came: usize,
    pub(super) connecting: Option<Duration>,
    /// From the first update's begin to the last one's end.
    pub(super) updating: Option<Duration>,
    /// Devices whose last update went otherwise than planned.
    pub(super) unplanned: usize,
}

/// What comes to the loop from elsewhere.
enum News {
    /// The device, which of its starts it is of, and what.
    Line(usize, u32, Line),
    Arrived(Arrived),
}

/// Why a timer was set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Tick,
    Boot,
}

/// A device's update failed, for programs.
#[derive(Serialize)]
#[serde(tag = "event", rename = "deviceFailed")]
struct Failed<'a> {
    device: &'a str,
    outcome: &'a str,
    code: &'a str,
    message: &'a str,
}

struct Fleet<'a> {
    screen: &'a Screen,
    kind: Kind,
    devices: Vec<Device>,
    tls: Arc<rustls::ClientConfig>,
    images: Images,
    tell: UnboundedSender<News>,
    lines: JoinSet<()>,
    timers: BTreeSet<(Duration, usize, Timer)>,
    begun: Instant,
    counts: Counts,
    /// Of them so many have tried to connect…
    started: usize,
    /// …so many were told how that went, …
    tried: usize,
    /// …and so many got through.
    came: usize,
    connecting: Option<Duration>,
    first_update: Option<Instant>,
    last_update: Option<Instant>,
    /// How often each kind of trouble came.
    troubles: BTreeMap<&'static str, usize>,
    named: usize,
}

/// Runs the fleet to its end.
pub(super) async fn run(
    plan: Plan,
    screen: &Screen,
    mut stop: UnboundedReceiver<i32>,
) -> std::result::Result<Result, Error> {
    let (tell, mut news) = unbounded_channel();
    let told = tell.clone();
    let images = Images::start(
        plan.fetch,
        &plan.downloader,
        plan.downloads,
        move |arrived| {
            let _ = told.send(News::Arrived(arrived));
        },
    )
    .map_err(|error| Error::new(format_args!("cannot start a thread: {error}")))?;
    let total = plan.connections.len();
    let share = |count: usize| count * plan.fail / 100;
    let kind = plan.kind;
    let devices = plan.connections.into_iter().enumerate();
    let devices = devices.map(|(at, connection)| {
        Device::new(&kind, connection, at as u64, share(at + 1) > share(at))
    });
    let devices = devices.collect();
    let mut fleet = Fleet {
        screen,
        kind,
        devices,
        tls: plan.tls,
        images,
        tell,
        lines: JoinSet::new(),
        timers: BTreeSet::new(),
        begun: Instant::now(),
        counts: Counts::new(total),
        started: 0,
        tried: 0,
        came: 0,
        connecting: None,
        first_update: None,
        last_update: None,
        troubles: BTreeMap::new(),
        named: 0,
    };
    let step = plan.ramp / u32::try_from(total).unwrap_or(u32::MAX).max(1);
    let deadline = plan.time.map(|time| fleet.begun + time);
    let mut look = interval(LOOK);
    let mut shown = (Counts::default(), Instant::now());
    let end = loop {
        let due = fleet.start_due(step)?;
        let timer = fleet.timers.first().map(|(at, ..)| fleet.begun + *at);
        let next = [due, timer, deadline].into_iter().flatten().min();
        let next = next.unwrap_or_else(|| Instant::now() + SHOW);
        select! {
            biased;
            Some(signal) = stop.recv() => break End::Signal(signal),
            Some(first) = news.recv() => {
                fleet.news(first);
                // What else is there, but so that timers get their turn.
                for _ in 0..256 {
                    let Ok(more) = news.try_recv() else { break };
                    fleet.news(more);
                }
            }
            () = sleep_until(next.into()) => {}
            _ = look.tick() => {
                fleet.show(&mut shown);
                if plan.once && fleet.have_finished() {
                    break End::Finished;
                }
            }
        }
        fleet.ring()?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break End::Time;
        }
    };
    screen.progress_ended();
    fleet.leave().await;
    Ok(fleet.result(end))
}

impl Fleet<'_> {
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        Now {
            monotonic: self.begun.elapsed(),
            wall: wall.and_then(|wall| u64::try_from(wall.as_millis()).ok()),
        }
    }

    /// Starts the devices whose turn it is; when the next one's comes, if time is all it waits for.
    fn start_due(&mut self, step: Duration) -> std::result::Result<Option<Instant>, Error> {
        while self.started < self.devices.len() && self.started < self.tried + CONNECTING {
            let at =
                self.begun + step.saturating_mul(u32::try_from(self.started).unwrap_or(u32::MAX));
            if at > Instant::now() {
                return Ok(Some(at));
            }
            self.started += 1;
            self.boot(self.started - 1)?;
        }
        Ok(None)
    }

    /// Starts a device, for the first time or again.
    fn boot(&mut self, index: usize) -> std::result::Result<(), Error> {
        let now = self.now();
        let tell = self.tell.clone();
        let Some(device) = self.devices.get_mut(index) else {
            return Ok(());
        };
        let wishes = device.boot(&self.kind, index as u64, now);
        let options = Options::new(device.connection.clone());
        let start = device.starts();
        let handler = move |event| {
            let _ = tell.send(News::Line(index, start, event));
        };
        let (client, line) =
            Client::connect_with(options, Arc::clone(&self.tls), handler).map_err(Error::new)?;
        device.client = Some(client);
        self.lines.spawn(line);
        self.fulfil(index, wishes);
        Ok(())
    }

    fn news(&mut self, news: News) {
        match news {
            News::Line(index, start, event) => {
                let device = self.devices.get(index);
                // What comes after it went into its reboot is of the past.
                if device.is_some_and(|device| device.client.is_some() && device.starts() == start)
                {
                    self.line(index, event);
                }
            }
            News::Arrived(arrived) => {
                let (waiting, fetched) = self.images.take(arrived);
                for (index, attempt) in waiting {
                    let now = self.now();
                    let Some(device) = self.devices.get_mut(index) else {
                        continue;
                    };
                    let wishes = device.fetched(attempt, &fetched, &self.kind, now);
                    self.fulfil(index, wishes);
                }
            }
        }
    }

    /// Something happened on a device's line.
    fn line(&mut self, index: usize, event: Line) {
        match &event {
            Line::Connected(_) => self.connected(index, true),
            Line::Disconnected(why) => {
                self.connected(index, false);
                self.trouble(index, why.cause, &why.reason);
            }
            Line::WaitingForClock => {
                self.screen.note("this machine's clock is wrong; waiting");
            }
            _ => {}
        }
        let now = self.now();
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let input = match &event {
            Line::Connected(_) => Input::Connected,
            Line::Disconnected(_) => Input::Disconnected,
            Line::Twin(json) => Input::Twin {
                complete: true,
                json,
            },
            Line::Desired(json) => Input::Twin {
                complete: false,
                json,
            },
            Line::ReportDone { id, result } => Input::ReportDone {
                id: *id,
                status: result.as_ref().map_or_else(|error| error.status, |_| 204),
            },
            Line::Method(call) => {
                let request = call.request.clone();
                let wishes = device.method(&call.name, &call.payload, request, &self.kind, now);
                return self.fulfil(index, wishes);
            }
            _ => return,
        };
        let wishes = device.feed(input, &self.kind, now);
        self.fulfil(index, wishes);
    }

    fn connected(&mut self, index: usize, connected: bool) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        if !std::mem::replace(&mut device.tried, true) {
            self.tried += 1;
        }
        match (
            std::mem::replace(&mut device.connected, connected),
            connected,
        ) {
            (false, true) => self.counts.connected += 1,
            (true, false) => self.counts.connected -= 1,
            _ => {}
        }
        if connected && !std::mem::replace(&mut device.came, true) {
            self.came += 1;
            if self.came == self.devices.len() {
                self.connecting = Some(self.begun.elapsed());
            }
        }
    }

    /// Says what hinders a device: the first time of each kind with its words, later in numbers.
    fn trouble(&mut self, index: usize, cause: Cause, reason: &str) {
        let kind = match cause {
            Cause::Renewal => return,
            Cause::Refused => "refused by the hub",
            Cause::Tls => "no secure connection",
            _ => "connection lost or not made",
        };
        let count = self.troubles.entry(kind).or_default();
        *count += 1;
        if *count == 1 {
            let id = self
                .devices
                .get(index)
                .map(|device| device.connection.device_id());
            let id = id.unwrap_or_default();
            self.screen.note(&format!(
                "device \"{id}\": {reason} (trying again; said of the first device only)"
            ));
        }
    }

    /// Does what a device wants, and sets its timer.
    fn fulfil(&mut self, index: usize, wishes: Vec<Wish>) {
        let mut wishes = std::collections::VecDeque::from(wishes);
        while let Some(wish) = wishes.pop_front() {
            match wish {
                Wish::Tell(event) => self.tell_of(index, event),
                Wish::Reboot => self.reboot(index),
                Wish::Download(attempt, job, image) => {
                    let there = self.images.get((index, attempt), job, image);
                    let now = self.now();
                    if let (Some(fetched), Some(device)) = (there, self.devices.get_mut(index)) {
                        wishes.extend(device.fetched(attempt, &fetched, &self.kind, now));
                    }
                }
            }
        }
        self.settle(index);
        self.set_timer(index, Duration::ZERO);
    }

    fn set_timer(&mut self, index: usize, not_before: Duration) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        let wake = device.wake_at().filter(|_| device.client.is_some());
        let wake = wake.map(|at| at.max(not_before));
        let before = std::mem::replace(&mut device.wake, wake);
        if before == wake {
            return;
        }
        if let Some(at) = before {
            self.timers.remove(&(at, index, Timer::Tick));
        }
        if let Some(at) = wake {
            self.timers.insert((at, index, Timer::Tick));
        }
    }

    /// Does what is due.
    fn ring(&mut self) -> std::result::Result<(), Error> {
        let begun = self.begun.elapsed();
        while let Some((_, index, timer)) =
            self.timers.first().copied().filter(|(at, ..)| *at <= begun)
        {
            self.timers.pop_first();
            if timer == Timer::Boot {
                self.boot(index)?;
                continue;
            }
            let now = self.now();
            let Some(device) = self.devices.get_mut(index) else {
                continue;
            };
            device.wake = None;
            let wishes = device.feed(Input::Tick, &self.kind, now);
            let idle = wishes.is_empty();
            self.fulfil(index, wishes);
            if idle {
                self.set_timer(index, begun + AGAIN);
            }
        }
        Ok(())
    }

    /// A device goes away, and comes back as from a cold start.
    fn reboot(&mut self, index: usize) {
        let (Some(time), now) = (self.kind.reboot, self.begun.elapsed()) else {
            return;
        };
        self.connected(index, false);
        if let Some(device) = self.devices.get_mut(index) {
            device.client = None;
            self.timers.insert((now + time, index, Timer::Boot));
        }
    }

    /// Something happened to a device's update.
    fn tell_of(&mut self, index: usize, event: Event) {
        let Some(device) = self.devices.get_mut(index) else {
            return;
        };
        match event {
            Event::Phase(phase) => {
                self.first_update.get_or_insert_with(Instant::now);
                self.counts.moved(device.phase.replace(phase), Some(phase));
                self.counts.ended(device.outcome.take().as_ref(), None);
                device.ended = None;
            }
            Event::Ended(outcome) => {
                self.first_update.get_or_insert_with(Instant::now);
                device.ended = Some(outcome);
            }
            _ => {}
        }
    }

    /// Counts an update as ended, once the hub knows.
    fn settle(&mut self, index: usize) {
        let device = self.devices.get_mut(index);
        let Some(device) = device.filter(|device| device.is_reported()) else {
            return;
        };
        let Some(outcome) = device.ended.take() else {
            return;
        };
        self.last_update = Some(Instant::now());
        self.counts.moved(device.phase.take(), None);
        self.counts.ended(device.outcome.as_ref(), Some(&outcome));
        let outcome = device.outcome.insert(outcome);
        if outcome.is_success() {
            return;
        }
        let id = device.connection.device_id();
        let failure = outcome.failure();
        let failed = Failed {
            device: id,
            outcome: outcome.as_str(),
            code: failure.map_or("", |failure| failure.code.as_str()),
            message: failure.map_or("", |failure| &failure.message),
        };
        self.named += 1;
        if self.screen.is_json() || self.named <= SHOWN {
            let more = match self.named {
                SHOWN => " (further ones are counted only)",
                _ => "",
            };
            let text = || format!("{id}: {outcome}{more}");
            self.screen.event(&failed, "failed", Tone::Bad, text);
        }
    }

    /// Whether each device has finished an update.
    fn have_finished(&self) -> bool {
        self.counts.completed + self.counts.failed == self.devices.len()
    }

    fn show(&self, shown: &mut (Counts, Instant)) {
        if shown.0 == self.counts {
            return;
        }
        let block = || vec![(self.counts.line(), self.counts.tone())];
        if self.screen.block(block) {
            return;
        }
        // The first and the last of a row of changes at once, the others from time to time.
        let still = self.counts.connected == self.counts.devices && self.counts.is_quiet();
        if shown.1.elapsed() < SHOW && !still {
            return;
        }
        *shown = (self.counts.clone(), Instant::now());
        let line = || self.counts.line();
        self.screen
            .event(&self.counts, "fleet", self.counts.tone(), line);
    }

    /// All devices say good-bye.
    async fn leave(&mut self) {
        for device in &mut self.devices {
            device.client = None;
        }
        let all = async { while self.lines.join_next().await.is_some() {} };
        let _ = timeout(LEAVE, all).await;
    }

    fn result(self, end: End) -> Result {
        let unplanned = self.devices.iter().filter(|device| {
            let outcome = device.outcome.as_ref();
            outcome.is_some_and(|outcome| outcome.is_success() == device.fails)
        });
        Result {
            end,
            came: self.came,
            connecting: self.connecting,
            updating: self
                .first_update
                .zip(self.last_update)
                .map(|(first, last)| last.saturating_duration_since(first)),
            unplanned: unplanned.count(),
            counts: self.counts,
        }
    }
}
