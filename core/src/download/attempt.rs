//! The device's side of an attempt: takes the bytes, checks and installs them, keeps the timers.

#[cfg(feature = "http")]
use super::http::judge;
use super::{
    Source, Stop,
    answer::{Answer, RESUME, Resume, failure, fits},
    decrypt::{Decryptor, Keys},
    file::local_path,
    pace::Pace,
    sink::Sink,
    unpack::Unpacker,
    wire::{self, Event, Request, Wire},
};
use crate::{
    clock,
    install::{ImageInfo, Installer},
    seconds::Seconds,
    update::{Checks, Code, Ended, Failure, Job, Progress, Retry, Scheme, redact, scheme_of},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often a stop is looked for while the network is silent.
const TICK: Duration = Duration::from_millis(100);

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
    (source, keys): (&Source, &Keys),
    job: &Job,
    installer: &mut dyn Installer,
    mut image: ImageInfo,
    stop: &Stop,
    on: &mut dyn FnMut(Progress),
) -> Ended {
    image.size = image.size.or(job.size);
    match attempt((source, keys), job, installer, image, stop, on) {
        Ok(checks) => Ended::Complete {
            bytes: checks.bytes(),
            digests: checks.finish(),
        },
        Err(Abort::Failed(failure, retry)) => Ended::Failed(failure, retry),
        Err(Abort::Stopped) => Ended::Stopped,
    }
}

fn attempt(
    (source, keys): (&Source, &Keys),
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
    let decryptor = keys.decryptor(job, &shown)?;
    let mut kept = usable(job, keys);
    if let Some(Kept { from, checks, .. }) = &kept {
        image.size = size_of(job, from.total);
        let begun = installer.begin(&image, checks.bytes())?;
        kept = kept.filter(|kept| kept.checks.bytes() == begun);
    }
    if let Some(kept) = (kept.as_ref()).filter(|kept| kept.from.total == Some(kept.from.offset)) {
        // Stopped between the last byte and its verification: nothing is left to be asked for.
        on(Progress::Started {
            offset: kept.checks.bytes(),
            total: size_of(job, kept.from.total),
        });
        return Ok(kept.checks.clone());
    }

    let from = kept.as_ref().map(|kept| &kept.from);
    let mut line = Line::open(source, job, stop, from, false)?;
    let answer = line.answer(from)?;

    let (checks, at, decryptor) = match kept {
        Some(kept) if answer.offset > 0 => (kept.checks, kept.at, kept.decryptor),
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
            (Checks::new(), 0, decryptor)
        }
    };
    on(Progress::Started {
        offset: checks.bytes(),
        total: size_of(job, answer.total),
    });
    let mut sink = Sink::new(
        job,
        installer,
        on,
        (answer, at),
        checks,
        (decryptor, unpacker),
    );
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
    Ok(sink.finish()?)
}

/// What is there already, and what goes on from it.
struct Kept {
    from: Resume,
    checks: Checks,
    /// The next byte of the file, decrypted.
    at: u64,
    decryptor: Option<Decryptor>,
}

/// The checkpoint, if it can be gone on from.
fn usable(job: &Job, keys: &Keys) -> Option<Kept> {
    let from = job.resume.as_ref().filter(|from| from.offset > 0)?;
    let checks = Checks::restore(&from.checks)?;
    let at = from.packed.unwrap_or(from.offset);
    let (offset, decryptor) = match (&from.sealed, job.encryption) {
        (None, None) => (at, None),
        (Some(sealed), Some(_)) => {
            let place = Decryptor::place(sealed, at, from.total);
            (place, Some(keys.resumed(sealed, at)?))
        }
        _ => return None,
    };
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
    let from = Resume {
        offset,
        validator: from.validator.clone(),
        total: from.total,
    };
    fits.then_some(Kept {
        from,
        checks,
        at,
        decryptor,
    })
}

/// The image's size, where the file's is known.
fn size_of(job: &Job, file: Option<u64>) -> Option<u64> {
    match job.is_installed_as_it_comes() {
        true => file.or(job.size),
        false => job.size,
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
            Some(_) => {}
            None => sink.tell(),
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

pub(super) fn passed_since(moment: Instant) -> Duration {
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
                Seconds(self.job.stall_time)
            );
            return Err((failure(Code::Stalled, &self.shown, &why), RESUME).into());
        }
        Ok(event)
    }
}
