//! Where an attempt's bytes go.

use super::{
    answer::{Answer, RESUME, failure, too_short},
    attempt::{Abort, passed_since},
    decrypt::{Decryptor, Wrong},
    unpack::Unpacker,
};
use crate::{
    clock,
    install::Installer,
    update::{Checkpoint, Checks, Code, Failure, Job, Progress, Retry, Sealed},
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// `Progress::Received` at most so often.
const PROGRESS: Duration = Duration::from_millis(100);
/// States kept for an installer whose `sync` answers less than was written.
const UNSYNCED: usize = 16;

/// Where the bytes go: they are decrypted, unpacked, checked and installed, as far as there is need.
pub(super) struct Sink<'a> {
    job: &'a Job,
    installer: &'a mut dyn Installer,
    on: &'a mut dyn FnMut(Progress),
    answer: Answer,
    decryptor: Option<Decryptor>,
    /// What a checkpoint needs of an encrypted file.
    sealed: Option<Sealed>,
    unpacker: Option<Unpacker>,
    /// The file's bytes that came, and those before them.
    file: u64,
    /// Of them, once decrypted, those that were unpacked or installed.
    at: u64,
    /// What is known where the last frame of a packed file ended, and where in the decrypted file that is.
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

impl<'a> Sink<'a> {
    /// `at` is where in the decrypted file the first byte belongs that comes out of it.
    pub(super) fn new(
        job: &'a Job,
        installer: &'a mut dyn Installer,
        on: &'a mut dyn FnMut(Progress),
        (answer, at): (Answer, u64),
        checks: Checks,
        (decryptor, unpacker): (Option<Decryptor>, Option<Unpacker>),
    ) -> Self {
        let now = clock::monotonic();
        Self {
            sealed: decryptor.as_ref().and_then(|d| d.sealed().cloned()),
            decryptor,
            unpacker,
            file: answer.offset,
            at,
            boundary: (checks.clone(), at),
            job,
            installer,
            on,
            durable: checks.bytes(),
            unsynced: VecDeque::new(),
            synced: now,
            told: checks.bytes(),
            told_at: now,
            checks,
            answer,
        }
    }

    /// Takes the next bytes of the file.
    pub(super) fn take(&mut self, mut bytes: &[u8], shown: &str) -> Result<(), Abort> {
        let announced = self.answer.total.or(self.job.announced());
        let limit = announced
            .unwrap_or(self.job.max_size)
            .min(self.job.max_size);
        if bytes.len() as u64 > limit - self.file.min(limit) {
            let why = format!("it has more than {limit} bytes");
            return Err(failure(Code::TooLarge, shown, &why).into());
        }
        self.file += bytes.len() as u64;
        let Some(mut decryptor) = self.decryptor.take() else {
            return self.unpack(bytes, shown);
        };
        while !bytes.is_empty() {
            let taken = decryptor
                .take(bytes)
                .map_err(|wrong| self.undecryptable(shown, &wrong))?;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.unpack(decryptor.output(), shown)?;
        }
        if self.sealed.is_none() {
            self.sealed = decryptor.sealed().cloned();
        }
        self.decryptor = Some(decryptor);
        Ok(())
    }

    fn unpack(&mut self, mut bytes: &[u8], shown: &str) -> Result<(), Abort> {
        let Some(mut unpacker) = self.unpacker.take() else {
            self.at += bytes.len() as u64;
            return self.install(bytes, shown);
        };
        loop {
            let step = unpacker
                .step(bytes, shown)
                .map_err(|failure| self.broken(failure))?;
            bytes = bytes.get(step.taken..).unwrap_or_default();
            self.at += step.taken as u64;
            self.install(unpacker.output(&step), shown)?;
            if step.boundary {
                self.boundary = (self.checks.clone(), self.at);
            }
            if bytes.is_empty() && step.given == 0 {
                self.unpacker = Some(unpacker);
                return Ok(());
            }
        }
    }

    /// A file that is not what it should be; where it goes on with an earlier one, that may be why.
    fn broken(&self, failure: Failure) -> Abort {
        let retry = match self.answer.offset {
            0 => Retry::Never,
            _ => Retry::FromZero,
        };
        Abort::Failed(failure, retry)
    }

    fn undecryptable(&self, shown: &str, wrong: &Wrong) -> Abort {
        self.broken(failure(Code::DecryptionFailed, shown, &wrong.to_string()))
    }

    /// What is done with the file, in a word.
    fn made(&self) -> &'static str {
        match self.job.compression {
            Some(_) => "unpacks",
            None => "decrypts",
        }
    }

    fn install(&mut self, bytes: &[u8], shown: &str) -> Result<(), Abort> {
        if bytes.is_empty() {
            return Ok(());
        }
        let limit = self.job.size.unwrap_or(self.job.max_size);
        let limit = limit.min(self.job.max_size);
        let over = bytes.len() as u64 > limit - self.checks.bytes().min(limit);
        if over && !self.job.is_installed_as_it_comes() {
            let why = format!("it {} to more than {limit} bytes", self.made());
            return Err(self.broken(failure(Code::TooLarge, shown, &why)));
        }
        let offset = self.checks.bytes();
        self.checks.update(bytes);
        self.installer.write(offset, bytes)?;
        if passed_since(self.told_at) >= PROGRESS {
            self.tell();
        }
        Ok(())
    }

    pub(super) fn tell(&mut self) {
        let received = self.checks.bytes();
        self.told_at = clock::monotonic();
        if std::mem::replace(&mut self.told, received) != received {
            (self.on)(Progress::Received(received));
        }
    }

    /// The body is at its end: is it the image's?
    pub(super) fn ended(&mut self, shown: &str) -> Result<(), Abort> {
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
            _ => {
                self.decrypt_last(shown)?;
                self.is_whole(shown)
            }
        }
    }

    /// All of the file is there: only now it is known which chunk is its last.
    fn decrypt_last(&mut self, shown: &str) -> Result<(), Abort> {
        let Some(mut decryptor) = self.decryptor.take() else {
            return Ok(());
        };
        match decryptor.finish() {
            Ok(()) => {}
            Err(Wrong::Chunk(_)) if self.answer.until_close => {
                let why = "the connection broke off within the encrypted file";
                return Err((failure(Code::Network, shown, why), RESUME).into());
            }
            Err(wrong) => return Err(self.undecryptable(shown, &wrong)),
        }
        self.unpack(decryptor.output(), shown)
    }

    /// Is what came a whole packed file, and of the image's size?
    fn is_whole(&self, shown: &str) -> Result<(), Abort> {
        if self.job.is_installed_as_it_comes() {
            return Ok(());
        }
        if self
            .unpacker
            .as_ref()
            .is_some_and(|unpacker| unpacker.within)
        {
            if self.answer.until_close && self.job.encryption.is_none() {
                let why = "the connection broke off within the packed file";
                return Err((failure(Code::Network, shown, why), RESUME).into());
            }
            let why = "it ends before all of it is unpacked";
            return Err(self.broken(failure(Code::SizeMismatch, shown, why)));
        }
        let bytes = self.checks.bytes();
        match self.job.size.filter(|size| *size != bytes) {
            Some(size)
                if bytes < size && self.answer.until_close && self.job.encryption.is_none() =>
            {
                Err(too_short(shown, bytes, size).into())
            }
            Some(size) => {
                let made = self.made();
                let why = format!("it {made} to {bytes} bytes, {size} were announced");
                Err(self.broken(failure(Code::SizeMismatch, shown, &why)))
            }
            None => Ok(()),
        }
    }

    /// Where a download can go on from what is here: what is known there, and the decrypted file's byte.
    fn resumable(&self) -> (Checks, u64) {
        match self.job.compression {
            Some(_) => self.boundary.clone(),
            None => (self.checks.clone(), self.at),
        }
    }

    pub(super) fn checkpoint_if_due(&mut self) -> Result<(), Failure> {
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
    pub(super) fn checkpoint(&mut self) -> Result<u64, Failure> {
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
        if let Some((checks, at)) = reached.filter(further) {
            self.durable = checks.bytes();
            (self.on)(Progress::Durable(Checkpoint {
                content: self.job.content.clone(),
                validator: self.answer.validator.clone(),
                total: self.answer.total,
                offset: checks.bytes(),
                packed: self.job.compression.map(|_| at),
                sealed: self.sealed.clone(),
                checks: checks.save(),
            }));
        }
        Ok(durable)
    }

    /// The last sync: nothing may be left over. Answers what the checks came to.
    pub(super) fn finish(mut self) -> Result<Checks, Failure> {
        let written = self.checks.bytes();
        self.unsynced.clear();
        let mut before = None;
        loop {
            let durable = self.checkpoint()?;
            if self.durable == written {
                return Ok(self.checks);
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
