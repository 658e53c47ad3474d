//! Stopped before every single step, by a crash and by a power cut, and again before every step of
//! going on.

use super::*;
use crate::install::course::{Course, Outcome, Stop, Version, World, everywhere};

impl World for Device {
    fn install(&self) -> Box<dyn Installer> {
        Box::new(Device::install(self))
    }

    fn boot(&self) -> String {
        fs::read_to_string(self.path("proc/sys/kernel/random/boot_id")).unwrap()
    }

    fn restart(&mut self, asked: bool) {
        self.reboot(asked);
    }

    fn runs_new(&self) -> bool {
        self.running() == "B"
    }

    fn check(&self, context: &str) {
        assert_eq!(self.slot("A"), OLD, "{context}");
        for once in [false, true] {
            let once = Device::next_of(self, once);
            // What may be started is whole, and verified.
            assert!(once == "A" || self.slot("B") == NEW, "{context}");
        }
        if self.running() == "B" {
            assert_eq!(self.slot("B"), NEW, "{context}");
        }
    }
}

impl Device {
    fn next_of(&self, once: bool) -> String {
        match (self.switch, once) {
            ("tryboot", true) => {
                let text = fs::read_to_string(self.path("autoboot.txt")).unwrap();
                let Some((_, once)) = text.split_once("[tryboot]") else {
                    return "A".into();
                };
                let number = once.split_once("boot_partition=").unwrap().1;
                if number.starts_with('3') { "B" } else { "A" }.into()
            }
            _ => self.next(false),
        }
    }
}

fn judge(device: &mut Device, outcome: Outcome, stops: &[(usize, Stop)], wanted: Outcome) {
    let context = format!("{} {stops:?}", device.switch);
    // What is armed for one start only is lost with it.
    let once = matches!(device.switch, "tryboot" | "commands");
    let lost = once && stops.iter().any(|(_, stop)| *stop == Stop::Power);
    assert!(
        outcome == wanted || (lost && outcome == Outcome::RolledBack),
        "{context}: {outcome:?}"
    );
    let (runs, state) = match outcome {
        Outcome::Completed => ("B", ImageState::New),
        _ => ("A", ImageState::Old),
    };
    for _ in 0..5 {
        assert_eq!(device.running(), runs, "{context}");
        assert_eq!(
            Device::install(device).inspect().unwrap(),
            state,
            "{context}"
        );
        device.reboot(false);
    }
    assert_eq!(device.path("slots.json").exists(), runs == "B", "{context}");
}

/// A name, an update, and how it ends.
type One = (&'static str, fn() -> Course<'static>, Outcome);

/// With every stop; if `two`, one course with every two stops.
fn every_course(switch: &'static str, two: bool) {
    let courses: [One; 4] = [
        (
            "good",
            || Course::new(NEW, Version::Good),
            Outcome::Completed,
        ),
        (
            "failing",
            || Course::new(NEW, Version::Failing),
            Outcome::RolledBack,
        ),
        (
            "dead",
            || Course::new(NEW, Version::Dead),
            Outcome::RolledBack,
        ),
        ("cancelled", || Course::cancelled(NEW), Outcome::Cancelled),
    ];
    let mut runs = 0;
    for (name, course, wanted) in courses {
        // A link knows no trial.
        if (switch, name) == ("link", "dead") {
            continue;
        }
        let judge =
            |device: &mut Device, outcome, stops: &[_]| judge(device, outcome, stops, wanted);
        // These two have every step between them.
        let two = two && name == if switch == "link" { "good" } else { "failing" };
        runs += everywhere(course, || Device::new(switch), two, name, judge);
    }
    eprintln!("{switch}: {runs} runs");
}

#[test]
fn a_link() {
    every_course("link", true);
}

#[test]
fn uboot_variables() {
    every_course("uboot", false);
}

#[test]
fn uboot_variables_that_tell_what_runs() {
    every_course("variable", false);
}

#[test]
fn tryboot() {
    every_course("tryboot", true);
}

#[test]
fn commands() {
    every_course("commands", false);
}
