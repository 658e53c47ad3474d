//! What the hub is told, and the answers that wait for it.

use super::{Engine, Output};
use crate::contract::{Moment, View};
use crate::update::Outcome;
use alloc::vec::Vec;

impl Engine {
    /// Whether the hub has everything there is to report, or cannot be told now.
    pub fn is_reported(&self) -> bool {
        !self.link.connected || self.reporter.is_idle()
    }

    /// Queues the state as it is now to be reported. The answer is its place in the reporter.
    pub(super) fn report(&mut self, moment: Moment) -> u64 {
        let percent = self.percent();
        let view = View {
            running: self.running_version.as_deref(),
            update: self.record.update.as_ref(),
            percent,
            started: self.started,
        };
        let wanted = self.config.contract.render(moment, view);
        let tag = (moment == Moment::Progress).then_some(0);
        self.reporter.push(wanted, tag)
    }

    pub(super) fn report_state(&mut self) -> u64 {
        self.report(Moment::of(self.record.update.as_ref()))
    }

    pub(super) fn percent(&self) -> Option<u8> {
        let total = self.transfer.total.filter(|total| *total > 0)?;
        let percent = u128::from(self.transfer.received) * 100 / u128::from(total);
        u8::try_from(percent.min(100)).ok()
    }

    /// An update has succeeded and that could not be saved. It is not reported before it is: nobody
    /// looks again at a success, which a crash would take back. A failure is reported at once: it may
    /// be the last thing to be heard from a device whose disk can no longer be written, and a
    /// restart that goes on from an older record reports what comes of that.
    pub(super) fn is_unsaved_success(&self) -> bool {
        let outcome = self.record.update.as_ref().and_then(|u| u.outcome.as_ref());
        self.save_again.is_some() && outcome.is_some_and(Outcome::is_success)
    }

    /// Hands over the next report, and the answers that waited for one.
    pub(super) fn flush(&mut self) {
        while !self.is_unsaved_success()
            && let contract = &self.config.contract
            && let Some(report) = self
                .reporter
                .poll(self.now.monotonic, |wanted| contract.whole_patch(wanted))
        {
            self.output(Output::Report(report));
        }
        let (reporter, now) = (&self.reporter, self.now.monotonic);
        let handing_over = self.config.policy.answer_wait.is_zero();
        let connected = self.link.connected;
        let mut ready = Vec::new();
        self.answers.retain_mut(|answer| {
            // Nothing is acknowledged over a connection that is gone.
            let done = reporter.settled(answer.place)
                || !connected
                || (handing_over && reporter.handed_over(answer.place))
                || now >= answer.by;
            if done {
                ready.push((answer.id, core::mem::take(&mut answer.payload)));
            }
            !done
        });
        for (id, payload) in ready {
            self.output(Output::Answer {
                id,
                status: 200,
                payload,
            });
        }
    }
}
