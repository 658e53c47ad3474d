//! Where the devices are, in numbers.

use crate::screen::Tone;
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use twinflash::update::{Outcome, Phase};

/// How many devices are where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename = "fleet", rename_all = "camelCase")]
pub(super) struct Counts {
    pub(super) devices: usize,
    pub(super) connected: usize,
    /// Updates under way, by phase.
    #[serde(serialize_with = "by_name")]
    phases: BTreeMap<Phase, usize>,
    /// Devices whose last update succeeded, as the hub knows…
    pub(super) completed: usize,
    /// …and those where it did not: failed, rolled back or cancelled.
    pub(super) failed: usize,
}

fn by_name<S: serde::Serializer>(
    phases: &BTreeMap<Phase, usize>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(phases.iter().map(|(phase, count)| (phase.as_str(), count)))
}

impl Counts {
    pub(super) fn new(devices: usize) -> Self {
        Self {
            devices,
            ..Self::default()
        }
    }

    /// A device came into a phase, or left all of them.
    pub(super) fn moved(&mut self, from: Option<Phase>, to: Option<Phase>) {
        if let Some(from) = from
            && let Some(count) = self.phases.get_mut(&from)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.phases.remove(&from);
            }
        }
        if let Some(to) = to {
            *self.phases.entry(to).or_default() += 1;
        }
    }

    /// A device's last outcome became another one.
    pub(super) fn ended(&mut self, before: Option<&Outcome>, now: Option<&Outcome>) {
        for (outcome, by) in [(before, -1), (now, 1)] {
            let count = match outcome {
                None => continue,
                Some(outcome) if outcome.is_success() => &mut self.completed,
                Some(_) => &mut self.failed,
            };
            *count = count.saturating_add_signed(by);
        }
    }

    /// No update is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.phases.is_empty()
    }

    pub(super) fn line(&self) -> String {
        let mut parts = vec![format!("{} of {} connected", self.connected, self.devices)];
        parts.extend(
            self.phases
                .iter()
                .map(|(phase, count)| format!("{count} {phase}")),
        );
        for (count, name) in [(self.completed, "completed"), (self.failed, "failed")] {
            if count > 0 {
                parts.push(format!("{count} {name}"));
            }
        }
        parts.join(", ")
    }

    pub(super) fn tone(&self) -> Tone {
        match self.connected == self.devices {
            true if self.is_quiet() => Tone::Good,
            true => Tone::Running,
            false => Tone::Normal,
        }
    }
}

/// So many a second.
pub(super) fn rate(count: usize, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    match seconds > 0.0 {
        true => (count as f64 / seconds * 10.0).round() / 10.0,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_counted_where_they_are() {
        let mut counts = Counts::new(3);
        counts.connected = 2;
        counts.moved(None, Some(Phase::Waiting));
        counts.moved(None, Some(Phase::Waiting));
        counts.moved(Some(Phase::Waiting), Some(Phase::RollingBack));
        counts.ended(None, Some(&Outcome::Completed));
        counts.ended(None, Some(&Outcome::Completed));
        counts.ended(
            Some(&Outcome::Completed),
            Some(&Outcome::Cancelled(Phase::Waiting)),
        );
        assert_eq!(
            counts.line(),
            "2 of 3 connected, 1 waiting, 1 rolling-back, 1 completed, 1 failed"
        );
        let json = serde_json::to_value(&counts).unwrap();
        assert_eq!(json["phases"]["rolling-back"], 1);
        counts.moved(Some(Phase::Waiting), None);
        counts.moved(Some(Phase::RollingBack), None);
        assert!(counts.is_quiet());
        counts.ended(Some(&Outcome::Completed), None);
        assert_eq!(counts.completed, 0);
    }
}
