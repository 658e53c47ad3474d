//! The device's side of an attempt: takes the bytes, checks and installs them, keeps the timers.

#[cfg(feature = "http")]
use super::http::judge;
use super::{
    Source, Stop,
    answer::{Answer, RESUME, Resume, failure, fits, too_short},
    file::local_path,
    pace::Pace,
    unpack::Unpacker,
    wire::{self, Event, Request, Wire},
};
use crate::{
    clock,
    install::{ImageInfo, Installer},
    update::{
        Checkpoint, Checks, Code, Ended, Failure, Job, Progress, Retry, Scheme, redact, scheme_of,
    },
};
use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

/// How often a stop is looked for while the network is silent.
const TICK: Duration = Duration::from_millis(100);
/// `Progress::Received` at most so often.
const PROGRESS: Duration = Duration::from_millis(100);
/// States kept for an installer whose `sync` answers less than was written.
const UNSYNCED: usize = 16;

/// Why an attempt ended before its last byte.
pub(super) enum Abort {
    Failed(Failure, Retry),
    Stopped,
}

impl From<(Failure, Retry)> for Abort {
    fn from((failure, retry): (Failure, Retry)) -> Self {
        Self::Failed(failure, retry)
    }
}

/// An installer's failure, or a request that cannot be made: nothing another attempt would change.
impl From<Failure> for Abort {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure, Retry::Never)
    }
}

pub(super) fn run(
    source: &Source,
    job: &Job,
    installer: &mut dyn Installer,
    mut image: ImageInfo,
    stop: &Stop,
    on: &mut dyn FnMut(Progress),
) -> Ended {
    image.size = image.size.or(job.size);
    match attempt(source, job, installer, image, stop, on) {
        Ok(checks) => Ended::Complete {
            bytes: checks.bytes(),
            digests: checks.finish(),
        },
        Err(Abort::Failed(failure, retry)) => Ended::Failed(failure, retry),
        Err(Abort::Stopped) => Ended::Stopped,
    }
}

fn attempt(
    source: &Source,
    job: &Job,
    installer: &mut dyn Installer,
    mut image: ImageInfo,
    stop: &Stop,
    on: &mut dyn FnMut(Progress),
) -> Result<Checks, Abort> {
    let shown = redact(&job.uri);
    allowed(job)?;
    if let Some(size) = job.size.filter(|size| *size > job.max_size) {
        let why = format!("{size} bytes were announced, {} are allowed", job.max_size);
        return Err(failure(Code::TooLarge, &shown, &why).into());
    }
    let unpacker = job.compression.map(Unpacker::new).transpose()?;
    let mut resume = usable(job);
    if let Some((from, checks)) = &resume {
        image.size = size_of(job, from.total);
        let begun = installer.begin(&image, checks.bytes())?;
        resume = resume.filter(|(_, checks)| checks.bytes() == begun);
    }
    if let Some((from, checks)) = resume.as_ref().filter(|(r, _)| r.total == Some(r.offset)) {
        // Stopped between the last byte and its verification: nothing is left to be asked for.
        on(Progress::Started {
            offset: checks.bytes(),
            total: size_of(job, from.total),
        });
        return Ok(checks.clone());
    }

    let from = resume.as_ref().map(|(resume, _)| resume);
    let mut line = Line::open(source, job, stop, from, false)?;
    let answer = line.answer(from)?;

    let checks = match resume {
        Some((_, checks)) if answer.offset > 0 => checks,
        _ => {
            image.size = size_of(job, answer.total);
            if job.resume.is_some() {
                // Else a power cut would leave the checkpoint beside bytes that are not its own.
                on(Progress::StartingOver);
                if stop.is_stopped() {
                    return Err(Abort::Stopped);
                }
            }
            let begun = installer.begin(&image, 0)?;
            if begun != 0 {
                let why = format!("the installer begins at byte {begun}, not at the first");
                return Err(Failure::new(Code::Storage, why).into());
            }
            Checks::new()
        }
    };
    on(Progress::Started {
        offset: checks.bytes(),
        total: size_of(job, answer.total),
    });
    let mut sink = Sink {
        unpacker,
        file: answer.offset,
        boundary: (checks.clone(), answer.offset),
        job,
        installer,
        on,
        durable: checks.bytes(),
        unsynced: VecDeque::new(),
        synced: clock::monotonic(),
        told: checks.bytes(),
        told_at: clock::monotonic(),
        checks,
        answer,
    };
    let pumped = pump(&mut line, &mut sink);
    sink.tell();
    match pumped {
        Ok(()) => {}
        Err(abort @ (Abort::Stopped | Abort::Failed(_, Retry::Resume(_)))) => {
            // What is here need not be fetched again. A failing sync changes nothing about the end.
            let _ = sink.checkpoint();
            return Err(abort);
        }
        Err(abort) => return Err(abort),
    }
    sink.finish()?;
    Ok(sink.checks)
}

/// The checkpoint, if it can be gone on from.
fn usable(job: &Job) -> Option<(Resume, Checks)> {
    let from = job.resume.as_ref().filter(|from| from.offset > 0)?;
    let checks = Checks::restore(&from.checks)?;
    let offset = from.packed.unwrap_or(from.offset);
    let fits = from.content == job.content
        && from.packed.is_some() == job.compression.is_some()
        && checks.bytes() == from.offset
        && from
            .total
            .or(job.announced())
            .is_none_or(|total| offset <= total)
        && job
            .announced()
            .is_none_or(|size| from.total.is_none_or(|total| total == size))
        && (from.validator.is_some() || job.hash_judges);
    let resume = Resume {
        offset,
        validator: from.validator.clone(),
        total: from.total,
    };
    fits.then_some((resume, checks))
}

/// The image's size, where the file's is known.
fn size_of(job: &Job, file: Option<u64>) -> Option<u64> {
    match job.compression {
        Some(_) => job.size,
        None => file.or(job.size),
    }
}

fn pump(line: &mut Line<'_>, sink: &mut Sink<'_>) -> Result<(), Abort> {
    loop {
        match line.next()? {
            Some(Event::Bytes(buffer, filled)) => {
                let bytes = buffer.get(..filled).unwrap_or_default();
                sink.take(bytes, &line.shown)?;
                line.pace.took(filled, clock::monotonic());
                line.give_back(buffer);
            }
            Some(Event::End) => return sink.ended(&line.shown),
            Some(Event::Failed(failure, retry)) => return Err(Abort::Failed(failure, retry)),
            Some(_) | None => {}
        }
        sink.checkpoint_if_due()?;
        line.keep_pace()?;
    }
}

/// Whether the address may be asked for.
pub(super) fn allowed(job: &Job) -> Result<(), Abort> {
    if job.local && local_path(&job.uri)?.is_some() {
        return Ok(());
    }
    if scheme_of(&job.uri)? == Scheme::Http && job.https_only {
        return Err(failure(Code::InsecureUri, &redact(&job.uri), "it is not https").into());
    }
    Ok(())
}

fn passed_since(moment: Instant) -> Duration {
    clock::monotonic().saturating_duration_since(moment)
}

/// The line to the network's side. Dropping it ends that side, too.
pub(super) struct Line<'a> {
    job: &'a Job,
    stop: &'a Stop,
    /// Who answers, as it may be shown.
    pub(super) shown: String,
    wire: Box<dyn Wire>,
    /// How long it has waited for the network…
    waited: Duration,
    /// …and what came in that time. The time the installer takes is not the network's.
    came: u64,
    pace: Pace,
}

impl<'a> Line<'a> {
    pub(super) fn open(
        source: &Source,
        job: &'a Job,
        stop: &'a Stop,
        resume: Option<&Resume>,
        manifest: bool,
    ) -> Result<Self, Abort> {
        let pace = Pace::new(job.bandwidth);
        let request = Request {
            longest: pace.longest(),
            uri: job.uri.clone(),
            range: resume.map(|resume| (resume.offset, resume.validator.clone())),
            https_only: job.https_only,
            max_redirects: job.max_redirects,
            manifest,
        };
        let wire = wire::open(source, request)?;
        Ok(Self {
            job,
            stop,
            shown: redact(&job.uri),
            wire,
            waited: Duration::ZERO,
            came: 0,
            pace,
        })
    }

    /// Waits for the answer, and judges it.
    pub(super) fn answer(&mut self, resume: Option<&Resume>) -> Result<Answer, Abort> {
        loop {
            match self.next()? {
                #[cfg(feature = "http")]
                Some(Event::Head(head)) => {
                    self.shown.clone_from(&head.shown);
                    return Ok(judge(&head, resume, self.job)?);
                }
                Some(Event::Begins(answer)) => {
                    return Ok(fits(&self.shown, answer, resume, self.job)?);
                }
                Some(Event::Failed(failure, retry)) => return Err(Abort::Failed(failure, retry)),
                Some(Event::Bytes(..) | Event::End) | None => {}
            }
        }
    }

    /// Waits until more may be taken. The network is not to blame for that time.
    fn keep_pace(&self) -> Result<(), Abort> {
        loop {
            let left = self.pace.left(clock::monotonic());
            if left.is_zero() {
                return Ok(());
            }
            if self.stop.is_stopped() {
                return Err(Abort::Stopped);
            }
            thread::sleep(left.min(TICK));
        }
    }

    /// A buffer goes round.
    pub(super) fn give_back(&mut self, buffer: Vec<u8>) {
        self.wire.give_back(buffer);
    }

    /// The next event; `None` if there was none for a moment.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Abort> {
        if self.stop.is_stopped() {
            return Err(Abort::Stopped);
        }
        let asked = clock::monotonic();
        let event = self.wire.next(TICK).map_err(|_| {
            let why = "the download's thread ended unexpectedly";
            (failure(Code::Network, &self.shown, why), RESUME)
        })?;
        self.waited += passed_since(asked);
        match &event {
            Some(Event::Bytes(_, filled)) => self.came += *filled as u64,
            Some(_) => self.waited = Duration::ZERO,
            None => {}
        }
        if self.came >= self.job.stall_bytes.max(1) {
            self.came = 0;
            self.waited = Duration::ZERO;
        }
        if self.waited >= self.job.stall_time {
            let why = format!(
                "the server sent only {} bytes in {} s",
                self.came,
                self.job.stall_time.as_secs_f32()
            );
            return Err((failure(Code::Stalled, &self.shown, &why), RESUME).into());
        }
        Ok(event)
    }
}

/// Where the bytes go.
struct Sink<'a> {
    job: &'a Job,
    installer: &'a mut dyn Installer,
    on: &'a mut dyn FnMut(Progress),
    answer: Answer,
    unpacker: Option<Unpacker>,
    /// The file's bytes that came, and those before them.
    file: u64,
    /// What is known where the last frame of a packed file ended, and where in the file that is.
    boundary: (Checks, u64),
    checks: Checks,
    /// Up to here it is durable and said so.
    durable: u64,
    /// States whose bytes were written, but are not known to be durable.
    unsynced: VecDeque<(Checks, u64)>,
    synced: Instant,
    /// How much was last said to have come, and when.
    told: u64,
    told_at: Instant,
}

impl Sink<'_> {
    fn take(&mut self, mut bytes: &[u8], shown: &str) -> Result<(), Abort> {
        let announced = self.answer.total.or(self.job.announced());
        let limit = announced
            .unwrap_or(self.job.max_size)
            .min(self.job.max_size);
        if bytes.len() as u64 > limit - self.file.min(limit) {
            let why = format!("it has more than {limit} bytes");
            return Err(failure(Code::TooLarge, shown, &why).into());
        }
        let Some(mut unpacker) = self.unpacker.take() else {
            self.file += bytes.len() as u64;
            return self.install(bytes);
        };
        loop {
            let step = unpacker
                .step(bytes, shown)
                .map_err(|failure| self.broken(failure))?;
            bytes = bytes.get(step.taken..).unwrap_or_default();
            self.file += step.taken as u64;
            let limit = self.job.size.unwrap_or(self.job.max_size);
            let limit = limit.min(self.job.max_size);
            if step.given as u64 > limit - self.checks.bytes().min(limit) {
                let why = format!("it unpacks to more than {limit} bytes");
                return Err(self.broken(failure(Code::TooLarge, shown, &why)));
            }
            self.install(unpacker.output(&step))?;
            if step.boundary {
                self.boundary = (self.checks.clone(), self.file);
            }
            if bytes.is_empty() && step.given == 0 {
                self.unpacker = Some(unpacker);
                return Ok(());
            }
        }
    }

    /// A packed file that is not what it should be; where it goes on with an earlier one, that may be why.
    fn broken(&self, failure: Failure) -> Abort {
        let retry = match self.answer.offset {
            0 => Retry::Never,
            _ => Retry::FromZero,
        };
        Abort::Failed(failure, retry)
    }

    fn install(&mut self, bytes: &[u8]) -> Result<(), Abort> {
        if bytes.is_empty() {
            return Ok(());
        }
        let offset = self.checks.bytes();
        self.checks.update(bytes);
        self.installer.write(offset, bytes)?;
        if passed_since(self.told_at) >= PROGRESS {
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        let received = self.checks.bytes();
        self.told_at = clock::monotonic();
        if std::mem::replace(&mut self.told, received) != received {
            (self.on)(Progress::Received(received));
        }
    }

    /// The body is at its end: is it the image's?
    fn ended(&self, shown: &str) -> Result<(), Abort> {
        let received = self.file;
        match self.answer.total.or(self.job.announced()) {
            Some(size)
                if received < size && self.answer.total.is_none() && !self.answer.until_close =>
            {
                let why = format!("it has {received} bytes, {size} were announced");
                Err(failure(Code::SizeMismatch, shown, &why).into())
            }
            Some(size) if received < size => Err(too_short(shown, received, size).into()),
            _ if received == 0 => Err(failure(Code::SizeMismatch, shown, "it is empty").into()),
            _ => self.unpacked(shown),
        }
    }

    /// All of the file is there: is it a whole packed file, of the image's size?
    fn unpacked(&self, shown: &str) -> Result<(), Abort> {
        let Some(unpacker) = &self.unpacker else {
            return Ok(());
        };
        if unpacker.within {
            if self.answer.until_close {
                let why = "the connection broke off within the packed file";
                return Err((failure(Code::Network, shown, why), RESUME).into());
            }
            let why = "it ends before all of it is unpacked";
            return Err(self.broken(failure(Code::SizeMismatch, shown, why)));
        }
        let bytes = self.checks.bytes();
        match self.job.size.filter(|size| *size != bytes) {
            Some(size) if bytes < size && self.answer.until_close => {
                Err(too_short(shown, bytes, size).into())
            }
            Some(size) => {
                let why = format!("it unpacks to {bytes} bytes, {size} were announced");
                Err(self.broken(failure(Code::SizeMismatch, shown, &why)))
            }
            None => Ok(()),
        }
    }

    /// Where a download can go on from what is here: what is known there, and the file's byte.
    fn resumable(&self) -> (Checks, u64) {
        match self.job.compression {
            Some(_) => self.boundary.clone(),
            None => (self.checks.clone(), self.file),
        }
    }

    fn checkpoint_if_due(&mut self) -> Result<(), Failure> {
        let written = match self.job.compression {
            Some(_) => self.boundary.0.bytes(),
            None => self.checks.bytes(),
        };
        let last = self.unsynced.back();
        let since = last.map_or(self.durable, |(checks, _)| checks.bytes());
        let due = written - since >= self.job.checkpoint_bytes
            || (written > self.durable
                && passed_since(self.synced) >= self.job.checkpoint_interval);
        if due {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Makes durable what was written, and says so; the installer's answer.
    fn checkpoint(&mut self) -> Result<u64, Failure> {
        let here = self.resumable();
        let written = here.0.bytes();
        if written == self.durable {
            return Ok(written);
        }
        let last = self.unsynced.back();
        let noted = last.is_some_and(|(checks, _)| checks.bytes() == written);
        if !noted && self.unsynced.len() < UNSYNCED {
            self.unsynced.push_back(here);
        }
        let durable = self.installer.sync()?;
        self.synced = clock::monotonic();
        let mut reached = None;
        while self
            .unsynced
            .front()
            .is_some_and(|(checks, _)| checks.bytes() <= durable)
        {
            reached = self.unsynced.pop_front();
        }
        let further = |(checks, _): &(Checks, u64)| checks.bytes() > self.durable;
        if let Some((checks, file)) = reached.filter(further) {
            self.durable = checks.bytes();
            (self.on)(Progress::Durable(Checkpoint {
                content: self.job.content.clone(),
                validator: self.answer.validator.clone(),
                total: self.answer.total,
                offset: checks.bytes(),
                packed: self.job.compression.map(|_| file),
                checks: checks.save(),
            }));
        }
        Ok(durable)
    }

    /// The last sync: nothing may be left over.
    fn finish(&mut self) -> Result<(), Failure> {
        let written = self.checks.bytes();
        self.unsynced.clear();
        let mut before = None;
        loop {
            let durable = self.checkpoint()?;
            if self.durable == written {
                return Ok(());
            }
            // An installer may sync behind its writes; one that gets no further has failed.
            if before.is_some_and(|before| durable <= before) {
                let why = format!("only {durable} of {written} bytes could be made durable");
                return Err(Failure::new(Code::Storage, why));
            }
            before = Some(durable);
        }
    }
}
