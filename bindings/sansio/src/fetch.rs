//! One attempt at a download: takes the server's answer and its bytes, checks and writes them.

use crate::board::Board;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::time::Duration;
use twinflash::update::answer::{self, Head, RESUME, Resume, judge, too_short};
use twinflash::update::{
    Checkpoint, Checks, Code, Ended, Failure, ImageInfo, Job, Progress, Retry, redact,
};

/// `Progress::Received` at most so often.
const PROGRESS: Duration = Duration::from_millis(100);
/// States kept for a board whose `sync` answers less than was written.
const UNSYNCED: usize = 4;

/// Why an attempt ends before its last byte.
pub(crate) type Abort = (Failure, Retry);

fn never(failure: Failure) -> Abort {
    (failure, Retry::Never)
}

/// A running attempt.
pub(crate) struct Fetch {
    job: Box<Job>,
    image: ImageInfo,
    /// What the board still has of an attempt before.
    resume: Option<(Resume, Checks)>,
    /// Once the body has begun.
    body: Option<Body>,
    /// Where the window begins in which so many bytes must come, and how many have.
    window: (Duration, u64),
}

struct Body {
    checks: Checks,
    total: Option<u64>,
    validator: Option<String>,
    durable: u64,
    unsynced: VecDeque<Checks>,
    synced_at: Duration,
    told: u64,
    told_at: Duration,
}

/// What is said of an attempt: the engine is to be told in this order.
pub(crate) type Said = VecDeque<Progress>;

impl Fetch {
    /// Looks what is there already. Answers what is to be asked for: from which byte, and with which
    /// validator; or the end, where nothing is left to be asked for.
    pub(crate) fn start(
        job: Box<Job>,
        mut image: ImageInfo,
        board: &Board,
        now: Duration,
        said: &mut Said,
    ) -> Result<(Self, Option<Ended>), Abort> {
        if !job.is_installed_as_it_comes() {
            let why =
                "this library unpacks and decrypts nothing: serve the image as it is installed";
            return Err(never(failure(&job, Code::ManifestInvalid, why)));
        }
        image.size = image.size.or(job.size);
        if let Some(size) = job.size.filter(|size| *size > job.max_size) {
            let why = alloc::format!("{size} bytes were announced, {} are allowed", job.max_size);
            return Err(never(failure(&job, Code::TooLarge, &why)));
        }
        let mut resume = usable(&job);
        if let Some((from, _)) = &resume {
            image.size = image.size.or(from.total);
            let begun = board.begin(&image, from.offset).map_err(never)?;
            resume = resume.filter(|(from, _)| from.offset == begun);
        }
        let mut ended = None;
        if let Some((from, checks)) = resume.as_ref().filter(|(r, _)| r.total == Some(r.offset)) {
            let (offset, total) = (from.offset, from.total);
            said.push_back(Progress::Started { offset, total });
            ended = Some(complete(checks));
        }
        let fetch = Self {
            job,
            image,
            resume,
            body: None,
            window: (now, 0),
        };
        Ok((fetch, ended))
    }

    pub(crate) fn uri(&self) -> &str {
        &self.job.uri
    }

    /// The first byte wanted, and the validator the rest must have.
    pub(crate) fn range(&self) -> (u64, Option<&str>) {
        self.resume.as_ref().map_or((0, None), |(from, _)| {
            (from.offset, from.validator.as_deref())
        })
    }

    pub(crate) fn https_only(&self) -> bool {
        self.job.https_only
    }

    pub(crate) fn stalls_at(&self) -> Duration {
        self.window.0.saturating_add(self.job.stall_time)
    }

    pub(crate) fn stalled(&self) -> Abort {
        let why = alloc::format!("the server sent only {} bytes in time", self.window.1);
        (failure(&self.job, Code::Stalled, &why), RESUME)
    }

    /// The server has answered. `true` where the bytes of the checkpoint are given up, which is to be
    /// durable before [`begin`](Self::begin) is called.
    pub(crate) fn answered(&mut self, head: &Head<'_>, now: Duration) -> Result<bool, Abort> {
        let resume = self.resume.as_ref().map(|(from, _)| from);
        let answer = judge(&redact(&self.job.uri), head, resume, &self.job)?;
        let (checks, over) = match self.resume.take().filter(|_| answer.offset > 0) {
            Some((_, checks)) => (checks, false),
            None => (Checks::new(), self.job.resume.is_some()),
        };
        self.body = Some(Body {
            total: answer.total,
            validator: answer.validator,
            durable: checks.bytes(),
            unsynced: VecDeque::new(),
            synced_at: now,
            told: checks.bytes(),
            told_at: now,
            checks,
        });
        self.window = (now, 0);
        Ok(over)
    }

    /// The body begins: from zero, the board erases what it needs.
    pub(crate) fn begin(&mut self, board: &Board, said: &mut Said) -> Result<(), Abort> {
        let Some(body) = &self.body else {
            return Ok(());
        };
        let offset = body.checks.bytes();
        if offset == 0 {
            self.image.size = body.total.or(self.job.size);
            board.begin(&self.image, 0).map_err(never)?;
        }
        said.push_back(Progress::Started {
            offset,
            total: body.total,
        });
        Ok(())
    }

    /// Bytes of the body have come. Before the answer they are refused.
    pub(crate) fn bytes(
        &mut self,
        bytes: &[u8],
        board: &Board,
        now: Duration,
        said: &mut Said,
    ) -> Result<(), Abort> {
        let (job, Some(body)) = (&self.job, &mut self.body) else {
            let why = "bytes came before the server's answer";
            return Err(never(failure(&self.job, Code::HttpProtocol, why)));
        };
        let offset = body.checks.bytes();
        let limit = body.total.or(job.size).unwrap_or(job.max_size);
        let limit = limit.min(job.max_size);
        if bytes.len() as u64 > limit.saturating_sub(offset) {
            let why = alloc::format!("it has more than {limit} bytes");
            return Err(never(failure(job, Code::TooLarge, &why)));
        }
        body.checks.update(bytes);
        board.write(offset, bytes).map_err(never)?;
        self.window.1 = self.window.1.saturating_add(bytes.len() as u64);
        if self.window.1 >= job.stall_bytes.max(1) {
            self.window = (now, 0);
        }
        if now.saturating_sub(body.told_at) >= PROGRESS {
            body.tell(now, said);
        }
        let written = body.checks.bytes();
        let since = body.unsynced.back().map_or(body.durable, Checks::bytes);
        if written - since >= job.checkpoint_bytes
            || (written > body.durable
                && now.saturating_sub(body.synced_at) >= job.checkpoint_interval)
        {
            body.checkpoint(job, board, now, said).map_err(never)?;
        }
        Ok(())
    }

    /// The attempt ends before its last byte: what is here need not be fetched again.
    pub(crate) fn keep(&mut self, board: &Board, now: Duration, said: &mut Said) {
        if let Some(body) = &mut self.body {
            body.tell(now, said);
            // A failing sync changes nothing about the end.
            let _ = body.checkpoint(&self.job, board, now, said);
        }
    }

    /// The body is at its end: is it the image's?
    pub(crate) fn ended(
        &mut self,
        board: &Board,
        now: Duration,
        said: &mut Said,
    ) -> Result<Ended, Abort> {
        let (job, Some(body)) = (&self.job, &mut self.body) else {
            let why = "the connection broke off before the server's answer";
            return Err((failure(&self.job, Code::Network, why), RESUME));
        };
        body.tell(now, said);
        let received = body.checks.bytes();
        let size = body.total.or(job.size).unwrap_or(received);
        if received == 0 {
            return Err(never(failure(job, Code::SizeMismatch, "it is empty")));
        }
        if received < size {
            return Err(too_short(&redact(&job.uri), received, size));
        }
        body.unsynced.clear();
        let mut before = None;
        loop {
            let durable = body.checkpoint(job, board, now, said).map_err(never)?;
            if body.durable == received {
                return Ok(complete(&body.checks));
            }
            // A board may sync behind its writes; one that gets no further has failed.
            if before.is_some_and(|before| durable <= before) {
                let why =
                    alloc::format!("only {durable} of {received} bytes could be made durable");
                return Err(never(Failure::new(Code::Storage, why)));
            }
            before = Some(durable);
        }
    }

    /// The transport's own failure, which is tried again.
    pub(crate) fn broken(&self, code: Code, why: &str) -> Abort {
        (failure(&self.job, code, why), RESUME)
    }
}

impl Body {
    fn tell(&mut self, now: Duration, said: &mut Said) {
        let received = self.checks.bytes();
        self.told_at = now;
        if core::mem::replace(&mut self.told, received) != received {
            said.push_back(Progress::Received(received));
        }
    }

    /// Makes durable what was written, and says so; the board's answer.
    fn checkpoint(
        &mut self,
        job: &Job,
        board: &Board,
        now: Duration,
        said: &mut Said,
    ) -> Result<u64, Failure> {
        let written = self.checks.bytes();
        if written == self.durable {
            return Ok(written);
        }
        let noted = self.unsynced.back().map(Checks::bytes) == Some(written);
        if !noted && self.unsynced.len() < UNSYNCED {
            self.unsynced.push_back(self.checks.clone());
        }
        let durable = board.sync()?;
        self.synced_at = now;
        let mut reached = None;
        while (self.unsynced.front()).is_some_and(|checks| checks.bytes() <= durable) {
            reached = self.unsynced.pop_front();
        }
        if let Some(checks) = reached.filter(|checks| checks.bytes() > self.durable) {
            self.durable = checks.bytes();
            said.push_back(Progress::Durable(Checkpoint {
                packed: None,
                sealed: None,
                content: job.content.clone(),
                validator: self.validator.clone(),
                total: self.total,
                offset: checks.bytes(),
                checks: checks.save(),
            }));
        }
        Ok(durable)
    }
}

/// The checkpoint, if it can be gone on from.
fn usable(job: &Job) -> Option<(Resume, Checks)> {
    let from = job.resume.as_ref().filter(|from| from.offset > 0)?;
    let checks = Checks::restore(&from.checks)?;
    let total = from.total.or(job.size);
    let fits = from.content == job.content
        && checks.bytes() == from.offset
        && total.is_none_or(|total| from.offset <= total)
        && (job.size).is_none_or(|size| total == Some(size))
        && (from.validator.is_some() || job.hash_judges);
    let from = Resume {
        offset: from.offset,
        validator: from.validator.clone(),
        total: from.total,
    };
    fits.then_some((from, checks))
}

fn complete(checks: &Checks) -> Ended {
    Ended::Complete {
        bytes: checks.bytes(),
        digests: checks.finish(),
    }
}

fn failure(job: &Job, code: Code, why: &str) -> Failure {
    answer::failure(code, &redact(&job.uri), why)
}
