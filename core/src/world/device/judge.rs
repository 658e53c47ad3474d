//! What must hold, at any moment and at the end.

use super::super::case::{Blow, Case, Course, Kind};
use super::super::disk::Disk;
use super::super::outside::{LAST, NEW, NEWER, NEXT, OLD, TURNS, named, version_of};
use super::World;
use super::machine::{MODE, startable};
use crate::contract::at_path;
use crate::disk::Step;
use crate::engine::Status;
use crate::update::{Code, Outcome};
use serde_json::Value;
use std::rc::Rc;

/// Tells the images that may be active from anything else.
pub(super) fn whole(case: &Case) -> impl Fn(&[u8]) -> bool + use<> {
    let wrong = case.course == Course::WrongImage;
    move |bytes| {
        let good = [&*OLD, &*NEWER, &*NEXT, &*LAST];
        good.into_iter().any(|image| image == bytes) || (bytes == *NEW && !wrong)
    }
}

impl World {
    /// What must hold at any moment.
    pub(super) fn watch(&mut self) {
        let (kind, slot) = (self.case.kind, Rc::clone(&self.slot));
        let root = self.root.path().to_owned();
        let [target, a, b] = ["app/app.bin", "slots/a", "slots/b"].map(|path| self.path(path));
        let whole = whole(&self.case);
        let check = move |disk: &Disk, step: Option<Step<'_>>| -> Result<(), String> {
            match kind {
                kind if kind.has_slots() => {
                    let Some(started) = startable(kind, disk, &root) else {
                        return Err("nothing says what is started".into());
                    };
                    for slot in &started {
                        let path = if *slot == 'a' { &a } else { &b };
                        let bytes = disk.content(path);
                        // Nothing is tried before there was an update.
                        let empty = bytes.is_none_or(<[u8]>::is_empty);
                        let never = kind == Kind::TryBoot && *slot != started[0] && empty;
                        if !never && !bytes.is_some_and(&whole) {
                            return Err(format!("slot {slot} may be started, and is not whole"));
                        }
                    }
                    let running = match kind {
                        Kind::Link => started[0],
                        _ => slot.get(),
                    };
                    let running = if running == 'a' { &a } else { &b };
                    match step {
                        Some(Step::Write { path, .. } | Step::SetLength { path, .. })
                            if path == running =>
                        {
                            Err("the slot that runs is written".into())
                        }
                        _ => Ok(()),
                    }
                }
                _ => {
                    let none = kind
                        == Kind::Program {
                            old: false,
                            links: true,
                        };
                    let mode = if none { 0o644 } else { MODE };
                    match disk.content(&target) {
                        None if none => Ok(()),
                        None => Err("there is no target".into()),
                        Some(bytes) if !whole(bytes) => Err("the target is not whole".into()),
                        Some(_) if disk.mode(&target) != Some(mode) => {
                            Err(format!("the target has mode {:?}", disk.mode(&target)))
                        }
                        Some(_) => Ok(()),
                    }
                }
            }
        };
        self.disk.borrow_mut().check = Some(Box::new(check));
    }

    pub(super) fn judge(&self, status: &Status) -> String {
        let record = self.load();
        let update = record.as_ref().and_then(|record| record.update.as_ref());
        let (case, records, outside) = (&self.case, self.records.borrow(), self.outside.borrow());
        if let Some(wrong) = outside.wrong.as_ref().or(records.wrong.as_ref()) {
            panic!("{wrong}");
        }
        assert_eq!(status.phase, None, "it does not go on");
        let (active, old) = (self.active(), self.before.as_ref());
        let course = self.course();
        let new = match course {
            Course::Superseded => &*NEWER,
            _ => named(TURNS[outside.turn]).0,
        };
        let errors = self.disk.borrow().failed > 0;
        if outside.turn == 0 && records.newer && update.is_none() {
            // All that an older version can know of it.
            let outcome = record.and_then(|record| record.core.last_outcome);
            assert_eq!(outcome.as_deref(), Some("rolled-back"));
            assert!(active.as_ref() == old, "rolled back, and not active");
            return "rolled-back".into();
        }
        if records.lost && errors {
            return "lost".into();
        }
        let Some(outcome) = &status.outcome else {
            panic!("no outcome");
        };
        let saved = update.and_then(|update| update.outcome.as_ref());
        assert_eq!(saved, Some(outcome), "what is saved");
        match outcome {
            Outcome::Completed => {
                assert!(active.as_deref() == Some(new), "completed, and not active");
                if !matches!(case.kind, Kind::Data | Kind::Service) {
                    assert!(self.running() == *new, "completed, and does not run");
                }
            }
            Outcome::Failed { failure, .. } if failure.code == Code::RollbackFailed => {
                assert!(errors, "{outcome}");
            }
            _ => {
                // The one that was to be superseded may have been too far for it.
                let first = course == Course::Superseded && active.as_ref() == Some(&*NEW);
                let is_old = active.as_ref() == old;
                assert!(
                    is_old || first,
                    "{outcome}, and the old image is not active"
                );
            }
        }
        let word = outcome.as_str();
        self.expect(word, errors);
        let (status, running) = match case.contract {
            "configuration" => ("firmware.fwUpdateStatus", "firmware.currentFwVersion"),
            _ => ("iothubDM.firmwareUpdate.status", "iothubDM.firmwareVersion"),
        };
        let told = |path| at_path(&outside.reported, path).and_then(Value::as_str);
        let (told, runs) = (
            told(status).unwrap_or_default(),
            told(running).unwrap_or_default(),
        );
        let is = active.as_deref().map_or("1.0.0", version_of);
        // Of what it came with nobody may know the version.
        let truly = runs == is || (runs.is_empty() && is == "1.0.0");
        assert!(truly || errors, "{is} is active, and the twin says {runs}");
        let fits = match (word, case.contract) {
            ("completed", "configuration") => told == "current",
            ("completed", _) => told == "applyComplete",
            ("rolled-back", "configuration") => told == "rolledback",
            ("rolled-back", _) => told == "applyFailed",
            (_, "configuration") => told == "error",
            _ => matches!(told, "downloadFailed" | "applyFailed"),
        };
        assert!(fits, "{outcome}, and the twin says {told}");
        // What is active was confirmed, and what was rolled back has raised nothing.
        if case.signed && !errors && !records.newer && !records.lost {
            let floor = record
                .as_ref()
                .and_then(|record| record.core.floor.as_deref());
            assert_eq!(floor.unwrap_or("1.0.0"), is, "the floor");
        }
        word.into()
    }

    /// What must have come of it, where no disk was broken.
    fn expect(&self, outcome: &str, errors: bool) {
        use super::super::case::NetworkFault::{
            Flipped, NewContent, NoValidator, OtherSize, Status, Whole,
        };
        let case = &self.case;
        if errors {
            return;
        }
        let network = case.has(|blow| {
            // What no further attempt would change, or what the check finds.
            matches!(
                blow,
                Blow::Network(Flipped | NewContent | Status(403) | OtherSize | NoValidator | Whole)
            )
        });
        let cut = case.has(|blow| matches!(blow, Blow::PowerCut(_)));
        let mut allowed = match self.course() {
            Course::Good => vec!["completed"],
            Course::Superseded => vec!["completed"],
            Course::WrongImage | Course::NotFound => vec!["failed"],
            Course::Mute | Course::Dead | Course::Newer => vec!["rolled-back"],
            // What was not yet saved of a cancel is gone.
            Course::Cancelled if case.blows.is_empty() => vec!["cancelled"],
            Course::Cancelled => vec!["cancelled", "completed"],
        };
        if network {
            allowed.push("failed");
        }
        // What is armed for one start only is lost with it.
        if cut && case.kind == Kind::TryBoot {
            allowed.push("rolled-back");
        }
        // It may have used up what starts it has.
        if case.stops() > 2 {
            allowed.extend(["rolled-back", "failed"]);
        }
        assert!(allowed.contains(&outcome), "{outcome}, not {allowed:?}");
    }

    /// What the update meets.
    fn course(&self) -> Course {
        match self.outside.borrow().turn {
            0 => self.case.course,
            _ => Course::Good,
        }
    }
}
