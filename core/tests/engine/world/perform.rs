//! What the world does with an output: server, disk, installer and hub.

use super::*;

impl World {
    pub(super) fn perform(&mut self, output: Output) {
        let number = self.performed;
        self.performed += 1;
        self.note(|| format!("    {number} {output:?}"));
        let blow = self.case.blows.iter().find(|(at, _)| *at == number);
        match (blow.map(|(_, blow)| *blow), &output) {
            (None, _) => {}
            (Some(Blow::Crash), _) => return self.crash(false),
            (Some(Blow::PowerCut), _) => return self.crash(true),
            (
                Some(Blow::SaveFails),
                Output::Save {
                    checkpoint: false, ..
                },
            ) => {
                // As the driver does.
                self.outputs
                    .retain(|output| matches!(output, Output::Event(_)));
                return self.inputs.push_front(Owned::SaveFailed);
            }
            (Some(Blow::SaveFails), _) => return,
        }
        self.check_write_ahead(&output);
        match output {
            Output::Save { record, .. } => {
                self.saves.push(number);
                self.record = Some(*record);
            }
            Output::Answer { id, status, .. } => {
                assert_eq!(status, 200, "{}", self.told());
                match id {
                    CANCEL => self.cancelled = true,
                    _ => self.answered = true,
                }
            }
            Output::Report(report) => {
                twin::merge(
                    &mut self.reported,
                    &serde_json::from_str(&report.patch).unwrap(),
                );
                if self.case.contract == "iothub-dm" && self.status() == "applyComplete" {
                    let update = self.record.as_ref().and_then(|r| r.update.as_ref());
                    let saved = update.and_then(|update| update.outcome.as_ref());
                    assert_eq!(saved, Some(&Outcome::Completed), "{}", self.told());
                }
                self.inputs.push_back(Owned::ReportDone(report.id));
            }
            Output::ReadTwin => self.inputs.push_back(Owned::Twin),
            Output::Download(job, _) => self.download(&job),
            Output::FetchManifest(_) => unreachable!("no keys are configured"),
            Output::StopDownload => {
                self.inputs
                    .retain(|input| !matches!(input, Owned::Transfer(_) | Owned::Ended(_)));
                self.inputs.push_back(Owned::Ended(Ended::Stopped));
            }
            Output::Ask(ask) => self.inputs.push_back(Owned::Reply(ask)),
            Output::Install(step) => {
                let result = self.install(step);
                self.inputs.push_back(Owned::Done(step, result));
            }
            Output::Restart => match self.case.restart {
                Restart::Command(_) => {
                    self.running = self.target;
                    self.inputs.push_back(Owned::Restarting);
                    self.inputs.push_back(Owned::Restarted);
                }
                _ => self.crash(true),
            },
            Output::Event(_) => {}
        }
    }

    fn download(&mut self, job: &Job) {
        if self.case.course == Course::NotFound {
            let failure = Failure::new(Code::HttpStatus, "404");
            let ended = Ended::Failed(failure, Retry::Never);
            return self.inputs.push_back(Owned::Ended(ended));
        }
        let resume = job.resume.as_ref().filter(|r| {
            self.part
                .is_some_and(|part| part >= r.offset as usize && !self.staged)
        });
        let mut checks = resume.map_or_else(Checks::new, |r| Checks::restore(&r.checks).unwrap());
        let from = checks.bytes() as usize;
        self.part = Some(from);
        self.staged = false;
        self.old_kept = false;
        let total = Some(IMAGE.len() as u64);
        self.inputs.push_back(Owned::Transfer(Progress::Started {
            offset: from as u64,
            total,
        }));
        for at in [10, 20, IMAGE.len()] {
            if at <= from {
                continue;
            }
            checks.update(&IMAGE[checks.bytes() as usize..at]);
            self.part = Some(at);
            let received = Progress::Received(at as u64);
            self.inputs.push_back(Owned::Transfer(received));
            let checkpoint = Checkpoint {
                packed: None,
                sealed: None,
                content: job.content.clone(),
                validator: Some("\"1\"".into()),
                total,
                offset: at as u64,
                checks: checks.save(),
            };
            self.inputs
                .push_back(Owned::Transfer(Progress::Durable(checkpoint)));
            match self.case.course {
                Course::Cut if self.cuts < 2 => {
                    self.cuts += 1;
                    let failure = Failure::new(Code::Network, "broken off");
                    let ended = Ended::Failed(failure, Retry::Resume(None));
                    return self.inputs.push_back(Owned::Ended(ended));
                }
                Course::Cancelled if at == 20 => return self.inputs.push_back(Owned::Cancel),
                _ => {}
            }
        }
        self.inputs.push_back(Owned::Ended(Ended::Complete {
            bytes: checks.bytes(),
            digests: checks.finish(),
        }));
    }

    fn install(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Finish if self.case.course == Course::FinishFails => return Err(broken()),
            Step::Finish => {
                assert!(self.part.take().is_some() || self.staged, "{}", self.told());
                self.staged = true;
            }
            Step::Activate if self.case.course == Course::ActivateFails => return Err(broken()),
            Step::Activate => {
                assert!(
                    self.staged || self.inspect() == ImageState::New,
                    "{}",
                    self.told()
                );
                self.old_kept = true;
                self.staged = false;
                self.target = Image::New;
            }
            Step::Rollback if self.case.course == Course::RollbackFails => return Err(broken()),
            Step::Rollback => {
                if !self.staged && self.part.is_none() && self.old_kept {
                    self.target = Image::Old;
                }
                (self.part, self.staged, self.old_kept) = (None, false, false);
            }
            Step::Abort => (self.part, self.staged, self.old_kept) = (None, false, false),
            Step::Compare if self.target != Image::New => return Err(broken()),
            Step::Confirm | Step::CheckHealth | Step::Compare => {}
        }
        Ok(())
    }

    fn check_write_ahead(&self, output: &Output) {
        let update = self
            .record
            .as_ref()
            .and_then(|record| record.update.as_ref());
        let running = update.filter(|u| u.outcome.is_none()).map(|u| u.phase);
        let fits = match output {
            Output::Download(..) => running == Some(Phase::Downloading),
            Output::Install(Step::Finish | Step::Activate) => {
                running == Some(Phase::Applying) && self.case.course != Course::DryRun
            }
            Output::Ask(Ask { stage, .. }) => match stage {
                Stage::Download => running.is_some_and(|phase| phase < Phase::Verifying),
                Stage::Apply => running == Some(Phase::Verifying),
            },
            Output::Install(Step::Confirm | Step::CheckHealth) => {
                running == Some(Phase::Confirming)
            }
            Output::Install(Step::Rollback) => {
                matches!(running, Some(Phase::Applying | Phase::RollingBack))
            }
            Output::Install(Step::Compare) => running == Some(Phase::Waiting),
            Output::Install(Step::Abort) => running.is_none() || self.save_has_failed(),
            Output::Restart => matches!(running, Some(Phase::Rebooting | Phase::RollingBack)),
            Output::Answer { status: 200, .. } => update.is_some(),
            _ => true,
        };
        assert!(fits, "{output:?} with {running:?} saved\n{}", self.told());
        let stage = match output {
            Output::Download(..) => Stage::Download,
            Output::Install(Step::Finish) => Stage::Apply,
            _ => return,
        };
        let asks = matches!(
            self.case.course,
            Course::Held | Course::Asked | Course::Declined
        );
        if asks {
            assert!(self.approved >= Some(stage), "{output:?}\n{}", self.told());
        }
        if self.case.course == Course::Held && stage == Stage::Download {
            let open = EvenHours.at(stage, self.now().wall);
            assert!(matches!(open, Opening::Open { .. }), "{}", self.told());
        }
    }
}
