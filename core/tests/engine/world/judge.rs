//! What must have come of an update.

use super::{Course, Image, Owned, World};
use serde_json::{Value, json};
use twinflash::{
    contract::at_path,
    engine::Input,
    update::{Confirm, Outcome, Restart},
};

impl World {
    pub(super) fn status(&self) -> &str {
        let path = match self.case.contract {
            "configuration" => "firmware.fwUpdateStatus",
            _ => "iothubDM.firmwareUpdate.status",
        };
        at_path(&self.reported, path)
            .and_then(Value::as_str)
            .unwrap()
    }

    /// Runs to the end and checks what it came to.
    pub(in super::super) fn prove(&mut self) -> Outcome {
        let outcome = self.run();
        let told = || self.told();
        let save_failed = self.save_has_failed();
        let expected: &[&str] = match self.case.course {
            // One that was not answered may be gone.
            Course::Cancelled if self.cancelled => &["cancelled"],
            _ if save_failed => &["completed", "failed", "rolled-back", "cancelled"],
            Course::Good | Course::Cut | Course::Held | Course::Asked => &["completed"],
            Course::Declined => &["cancelled"],
            Course::DryRun
            | Course::WrongImage
            | Course::NotFound
            | Course::FinishFails
            | Course::ActivateFails => &["failed"],
            Course::NeverConfirmed => &["rolled-back"],
            Course::RollbackFails => &["failed"],
            Course::Cancelled => &["cancelled", "completed"],
        };
        assert!(
            expected.contains(&outcome.as_str()),
            "{outcome}\n{}",
            told()
        );
        let (done, failed, rolled_back) = match self.case.contract {
            "configuration" => ("current", ["error", "error"], "rolledback"),
            _ => (
                "applyComplete",
                ["downloadFailed", "applyFailed"],
                "applyFailed",
            ),
        };
        match &outcome {
            Outcome::Completed => {
                assert_eq!(self.target, Image::New, "{}", told());
                if self.case.restart != Restart::None {
                    assert_eq!(
                        self.running,
                        Image::New,
                        "the old one still runs\n{}",
                        told()
                    );
                }
                assert_eq!(self.status(), done, "{}", told());
            }
            Outcome::RolledBack(_) => {
                assert_eq!(self.target, Image::Old, "{}", told());
                if self.case.restart != Restart::None {
                    assert_eq!(
                        self.running,
                        Image::Old,
                        "the new one still runs\n{}",
                        told()
                    );
                }
                assert_eq!(self.status(), rolled_back, "{}", told());
            }
            Outcome::Failed { .. } | Outcome::Cancelled(_) => {
                if self.case.course != Course::RollbackFails {
                    assert_eq!(self.target, Image::Old, "{}", told());
                }
                assert!(failed.contains(&self.status()), "{}", told());
            }
            other => panic!("{other}\n{}", told()),
        }
        if self.case.course != Course::RollbackFails {
            assert_eq!((self.part, self.staged), (None, false), "{}", told());
        }
        let update = self
            .record
            .as_ref()
            .and_then(|record| record.update.as_ref());
        assert_eq!(
            update.and_then(|update| update.outcome.as_ref()),
            Some(&outcome),
            "what is saved\n{}",
            told()
        );
        outcome
    }

    /// What ended does not block the next one.
    pub(in super::super) fn prove_the_next_one(&mut self) {
        self.case.blows.clear();
        self.case.course = Course::Good;
        self.case.confirm = Confirm::Connected;
        self.answered = false;
        self.version += 1;
        let contract = self.case.contract;
        let next = json!({
            "fwPackageUri": "https://host/next", "fwPackageURI": "https://host/next",
            "fwVersion": "1.0.2", "fwPackageCheckValue": Self::check(Course::Good),
        });
        // Whatever it replaces is the old one now.
        (self.target, self.running) = (Image::Old, Image::Old);
        if contract == "configuration" {
            self.desired = json!({ "firmware": next });
            self.take(Owned::Twin);
        } else {
            let payload = next.to_string();
            self.give(Input::Method {
                id: 2,
                name: "firmwareUpdate",
                payload: payload.as_bytes(),
            });
        }
        let before = self.engine.status().version;
        assert_eq!(before.as_deref(), Some("1.0.2"), "{}", self.told());
        assert!(self.engine.status().phase.is_some(), "{}", self.told());
    }
}
