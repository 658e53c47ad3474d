//! What the journal was given, what it holds after a crash, and what must be true of it.

use super::disk::Disk;
use super::note;
use super::outside::here;
use crate::journal::Loaded;
use crate::update::{Key, Outcome, Phase, Record, Stage};
use std::{cell::RefCell, rc::Rc};

pub(super) struct Records {
    disk: Rc<RefCell<Disk>>,
    /// What was saved last, for certain.
    saved: Option<Record>,
    /// What was tried to be saved since.
    tried: Vec<Record>,
    /// What was tried before that and not saved. What is left of it in a torn copy can be made whole by
    /// a later try that has the same bytes where it was torn, and is torn itself.
    abandoned: Vec<Record>,
    /// Who writes it now does not tell.
    untold: bool,
    /// Both copies could not be read.
    pub(super) lost: bool,
    /// A version was here whose layout is newer.
    pub(super) newer: bool,
    ended: Option<(Key, Outcome)>,
    /// The update that has not ended.
    running: Option<Key>,
    /// The update whose image was last being applied.
    applying: Option<Key>,
    floor: Option<String>,
    pub(super) wrong: Option<String>,
}

impl Records {
    pub(super) fn new(disk: Rc<RefCell<Disk>>) -> Self {
        Self {
            disk,
            saved: None,
            tried: Vec::new(),
            abandoned: Vec::new(),
            untold: false,
            lost: false,
            newer: false,
            ended: None,
            running: None,
            applying: None,
            floor: None,
            wrong: None,
        }
    }

    /// Steps of the disk that have failed so far.
    pub(super) fn failed(&self) -> usize {
        self.disk.borrow().failed
    }

    fn complain(&mut self, why: String) {
        note(|| why.clone());
        self.wrong.get_or_insert(why);
    }

    pub(super) fn saves(&mut self, record: &Record) {
        if let Some(update) = record.update.as_ref().filter(|u| u.outcome.is_none())
            && (update.phase, update.apply_attempts) == (Phase::Applying, 1)
            && self.applying.replace(update.request.key) != Some(update.request.key)
        {
            let version = update.request.version.as_deref().unwrap_or_default();
            here().borrow_mut().begins(Stage::Apply, version);
        }
        self.tried.push(record.clone());
    }

    /// The last one tried is saved.
    pub(super) fn saved(&mut self) {
        if let Some(record) = self.tried.pop() {
            self.abandoned.append(&mut self.tried);
            self.look_at(&record);
            self.saved = Some(record);
        }
    }

    /// From here on somebody writes who does not tell.
    pub(super) fn untold(&mut self) {
        self.untold = true;
    }

    /// What was found is durable now.
    pub(super) fn settle(&mut self, found: Option<Record>) {
        self.untold = false;
        self.abandoned.append(&mut self.tried);
        if let Some(record) = &found {
            self.look_at(record);
        }
        self.saved = found;
    }

    /// A start finds this: what was saved last, or what was being saved.
    pub(super) fn found(&mut self, loaded: &Loaded) -> Option<Record> {
        let errors = self.failed() > 0;
        let found = match loaded {
            Loaded::Empty => None,
            Loaded::Lost { .. } => {
                self.lost = true;
                if !errors {
                    self.complain("the journal is lost".into());
                }
                return None;
            }
            Loaded::Record(json) => {
                let record = Record::from_json(json);
                if record.is_none() {
                    self.complain("what the journal holds is no record".into());
                }
                record
            }
        };
        let mut tried = self.tried.iter().chain(&self.abandoned);
        let fits = self.saved == found || tried.any(|record| Some(record) == found.as_ref());
        if !fits && !self.untold && !errors && !self.lost {
            self.complain(
                "the journal holds neither what was saved last nor what was tried".into(),
            );
        }
        found
    }

    /// What must hold of all that is saved, one after the other.
    fn look_at(&mut self, record: &Record) {
        let errors = self.failed() > 0;
        let update = record.update.as_ref();
        let now = update.and_then(|u| Some((u.request.key, u.outcome.clone()?)));
        if let Some((key, outcome)) = &self.ended
            && update.is_some_and(|u| u.request.key == *key)
            && now.as_ref().map(|(_, outcome)| outcome) != Some(outcome)
            && !errors
        {
            let why = format!("{outcome} was the end, and now it is {now:?}");
            self.complain(why);
        }
        if now.is_some() {
            self.ended = now;
        }
        let key = update.map(|u| u.request.key);
        let newer = update.is_some_and(|u| u.request.uri.ends_with("/newer"));
        if self.running.is_some_and(|before| Some(before) != key)
            && !newer
            && !errors
            && !self.newer
        {
            self.complain("an update is gone, and has not ended".into());
        }
        self.running = update
            .filter(|u| u.outcome.is_none())
            .map(|u| u.request.key);
        // What is the lowest version never becomes a lower one, but where the newest copy of the record
        // cannot be read back.
        let unread = self.disk.borrow().unread;
        if self.floor > record.core.floor && !self.lost && !unread {
            let why = format!(
                "the floor falls from {:?} to {:?}",
                self.floor, record.core.floor
            );
            self.complain(why);
        }
        self.floor.clone_from(&record.core.floor);
        here().borrow_mut().checkpoint = update.filter(|u| u.outcome.is_none()).and_then(|u| {
            let checkpoint = u.checkpoint.as_ref()?;
            let at = checkpoint.packed.unwrap_or(checkpoint.offset);
            Some((u.request.uri.clone(), at))
        });
    }

    /// The next update begins.
    pub(super) fn turn(&mut self) {
        self.ended = None;
    }
}
