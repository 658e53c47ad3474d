//! What must hold, at any moment and at the end.

use super::super::case::{Blow, Course, Kind};
use super::super::disk::Disk;
use super::super::note;
use super::super::outside::{NEW, NEWER, NEXT, OLD};
use super::{MODE, World, boot_loader};
use crate::contract::at_path;
use crate::disk::Step;
use crate::engine::Status;
use crate::update::{Code, Outcome};
use serde_json::Value;
use std::rc::Rc;

impl World {
    /// What must hold at any moment.
    pub(super) fn watch(&mut self) {
        let (kind, slot) = (self.case.kind, Rc::clone(&self.slot));
        let (target, a, b) = (
            self.path("app/app.bin"),
            self.path("slots/a"),
            self.path("slots/b"),
        );
        let (link, autoboot) = (self.path("boot/current"), self.path("boot/autoboot.txt"));
        let wrong = self.case.course == Course::WrongImage;
        let whole = move |bytes: &[u8]| {
            bytes == *OLD || (bytes == *NEW && !wrong) || bytes == *NEWER || bytes == *NEXT
        };
        let check = move |disk: &Disk, step: Option<Step<'_>>| -> Result<(), String> {
            match kind {
                Kind::Link | Kind::TryBoot => {
                    let started: Vec<char> = match kind {
                        Kind::Link => vec![match disk.link(&link) {
                            Some(to) if to == a => 'a',
                            Some(to) if to == b => 'b',
                            to => return Err(format!("the link points to {to:?}")),
                        }],
                        _ => {
                            let text = disk.content(&autoboot).unwrap_or_default();
                            boot_loader(text).into()
                        }
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
        let active = self.active();
        let old = match case.kind {
            Kind::Program { old: false, .. } => None,
            _ => Some(&*OLD),
        };
        let new = match case.course {
            Course::Superseded => &*NEWER,
            _ => &*NEW,
        };
        let errors = self.disk.borrow().failed > 0;
        if records.newer && update.is_none() {
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
                assert!(active.as_ref() == Some(new), "completed, and not active");
                if !matches!(case.kind, Kind::Data | Kind::Service) {
                    assert!(self.running() == *new, "completed, and does not run");
                }
            }
            Outcome::Failed { failure, .. } if failure.code == Code::RollbackFailed => {
                assert!(errors, "{outcome}");
            }
            _ => {
                // The one that was to be superseded may have been too far for it.
                let first = case.course == Course::Superseded && active.as_ref() == Some(&*NEW);
                let is_old = active.as_ref() == old;
                assert!(
                    is_old || first,
                    "{outcome}, and the old image is not active"
                );
            }
        }
        let word = outcome.as_str();
        self.expect(word, errors);
        let path = match case.contract {
            "configuration" => "firmware.fwUpdateStatus",
            _ => "iothubDM.firmwareUpdate.status",
        };
        let told = at_path(&outside.reported, path).and_then(Value::as_str);
        let told = told.unwrap_or_default();
        let fits = match (word, case.contract) {
            ("completed", "configuration") => told == "current",
            ("completed", _) => told == "applyComplete",
            ("rolled-back", "configuration") => told == "rolledback",
            ("rolled-back", _) => told == "applyFailed",
            (_, "configuration") => told == "error",
            _ => matches!(told, "downloadFailed" | "applyFailed"),
        };
        assert!(fits, "{outcome}, and the twin says {told}");
        word.into()
    }

    /// What must have come of it, where no disk was broken.
    fn expect(&self, outcome: &str, errors: bool) {
        use super::super::case::NetworkFault::{Flipped, NoValidator, OtherSize, Status, Whole};
        let case = &self.case;
        if errors {
            return;
        }
        let network = case.has(|blow| {
            // What no further attempt would change, or what the check finds.
            matches!(
                blow,
                Blow::Network(Flipped | Status(403) | OtherSize | NoValidator | Whole)
            )
        });
        let cut = case.has(|blow| matches!(blow, Blow::PowerCut(_)));
        let mut allowed = match case.course {
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

    /// What ended does not stand in the way of the next.
    pub(super) fn next(&mut self) {
        let mut outside = self.outside.borrow_mut();
        outside.next = true;
        outside.answered = false;
        if self.case.contract == "configuration" {
            outside.desire("next");
        }
        drop(outside);
        // Nothing goes wrong any more.
        self.case.blows.clear();
        self.disk.borrow_mut().blows.clear();
        self.outside.borrow_mut().calm();
        note(|| "--- the next update".into());
        self.records.borrow_mut().next();
        let status = self.run();
        let wrong = self.outside.borrow().wrong.clone();
        assert_eq!(wrong, None);
        assert_eq!(status.outcome, Some(Outcome::Completed), "the next update");
        assert_eq!(self.active().as_ref(), Some(&*NEXT), "the next update");
    }
}
