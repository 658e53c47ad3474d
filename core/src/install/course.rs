//! Takes an installer through whole updates as the engine does, and stops it at any step: as a crash of
//! the process does, and as a power cut.

use super::{ImageInfo, ImageState, Installer};
use crate::disk::cut;

/// What an installer works on: the device, with what boots it.
pub(super) trait World {
    /// The installer as a new process makes it.
    fn install(&self) -> Box<dyn Installer>;
    /// The system's boot id.
    fn boot(&self) -> String;
    /// What was installed starts; `asked` as the installer wants it, or after a power cut.
    fn restart(&mut self, asked: bool);
    /// Whether the new version is what runs.
    fn runs_new(&self) -> bool;
    /// Fails where something is wrong that must not be at any time.
    fn check(&self, context: &str);
}

/// What stops it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stop {
    /// The process ends and starts again.
    Crash,
    /// The device starts again.
    Power,
}

/// The new version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Version {
    Good,
    /// It finds out that it is not.
    Failing,
    /// It does not come to start the engine; the device restarts.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Completed,
    RolledBack,
    Cancelled,
}

#[derive(Debug, Clone, PartialEq)]
enum Phase {
    Downloading,
    Applying,
    Rebooting(String),
    Confirming,
    RollingBack(String),
    Discarding(Outcome),
    Ended(Outcome),
}

/// What the journal holds.
pub(super) struct Course<'a> {
    image: &'a [u8],
    version: Version,
    cancel: bool,
    phase: Phase,
    checkpoint: u64,
}

impl<'a> Course<'a> {
    pub(super) fn new(image: &'a [u8], version: Version) -> Self {
        Self {
            image,
            version,
            cancel: false,
            phase: Phase::Downloading,
            checkpoint: 0,
        }
    }

    /// Cancelled when half of the image is there.
    pub(super) fn cancelled(image: &'a [u8]) -> Self {
        Self {
            cancel: true,
            ..Self::new(image, Version::Good)
        }
    }

    /// Goes on until the end, but is stopped before the step of each number, counted from the last
    /// stop. `None` where the end came before the last stop.
    pub(super) fn run(
        mut self,
        world: &mut impl World,
        stops: &[(usize, Stop)],
        context: &str,
    ) -> Option<Outcome> {
        for (step, stop) in stops {
            cut::after(Some(*step));
            let ended = self.go(world);
            let happened = cut::happened();
            cut::after(None);
            if ended && !happened {
                return None;
            }
            world.check(&format!("{context} {stops:?} in {:?}", self.phase));
            if *stop == Stop::Power {
                self.restart(world, false);
            }
        }
        assert!(self.go(world));
        world.check(&format!("{context} {stops:?} at the end"));
        match self.phase {
            Phase::Ended(outcome) => Some(outcome),
            other => panic!("{context} {stops:?}: {other:?}"),
        }
    }

    fn restart(&self, world: &mut impl World, asked: bool) {
        world.restart(asked);
        for _ in 0..10 {
            if self.version != Version::Dead || !world.runs_new() {
                return;
            }
            world.restart(false);
        }
        panic!("a boot loop does not end");
    }

    /// A process: from its start until the update ends, or it is stopped.
    fn go(&mut self, world: &mut impl World) -> bool {
        loop {
            let mut it = world.install();
            match it.inspect() {
                Ok(image) => self.start(image, &world.boot()),
                Err(failure) => return stopped(failure),
            }
            loop {
                match self.step(&mut *it, &world.boot()) {
                    Err(failure) => return stopped(failure),
                    Ok(false) => {}
                    Ok(true) => break,
                }
                if matches!(self.phase, Phase::Ended(_)) {
                    return true;
                }
            }
            self.restart(world, true);
        }
    }

    /// The table of what is gone on with: `engine/start.rs`.
    fn start(&mut self, image: ImageState, boot: &str) {
        let old = matches!(image, ImageState::Old | ImageState::Partial);
        self.phase = match self.phase.clone() {
            Phase::Applying if image == ImageState::New => Phase::Rebooting(boot.into()),
            Phase::Rebooting(of) if of != boot && old => Phase::Discarding(Outcome::RolledBack),
            Phase::Rebooting(of) if of != boot => Phase::Confirming,
            Phase::Confirming if old => Phase::Discarding(Outcome::RolledBack),
            Phase::RollingBack(of) if old && of != boot => Phase::Discarding(Outcome::RolledBack),
            Phase::RollingBack(_) if !old => Phase::RollingBack(String::new()),
            other => other,
        };
    }

    /// Does what comes next; `true` asks for a restart.
    fn step(&mut self, it: &mut dyn Installer, boot: &str) -> Result<bool, crate::update::Failure> {
        self.phase = match self.phase.clone() {
            Phase::Downloading => {
                let size = self.image.len() as u64;
                let image = ImageInfo {
                    size: Some(size),
                    version: Some("2.0".into()),
                };
                let mut at = it.begin(&image, self.checkpoint)?;
                assert!(at == 0 || at == self.checkpoint);
                self.checkpoint = at;
                while at < size {
                    let end = (at + size / 2 + 1).min(size);
                    it.write(at, &self.image[at as usize..end as usize])?;
                    at = it.sync()?;
                    assert_eq!(at, end);
                    self.checkpoint = at;
                    if self.cancel && at > size / 2 {
                        self.phase = Phase::Discarding(Outcome::Cancelled);
                        return Ok(false);
                    }
                }
                Phase::Applying
            }
            Phase::Applying => {
                it.finish()?;
                it.activate()?;
                Phase::Rebooting(boot.into())
            }
            Phase::Confirming if self.version == Version::Good => {
                it.confirm()?;
                Phase::Ended(Outcome::Completed)
            }
            Phase::Confirming => Phase::RollingBack(String::new()),
            Phase::RollingBack(of) if of != boot => {
                self.phase = Phase::RollingBack(boot.into());
                it.rollback()?;
                return Ok(true);
            }
            Phase::Rebooting(_) | Phase::RollingBack(_) => return Ok(true),
            Phase::Discarding(outcome) => {
                it.abort()?;
                Phase::Ended(outcome)
            }
            Phase::Ended(_) => return Ok(false),
        };
        Ok(false)
    }
}

fn stopped(failure: crate::update::Failure) -> bool {
    assert!(cut::happened(), "{failure}");
    false
}

/// Runs a course with no stop, with every one, and, if `two`, with every two; `judge` is given the
/// outcome and the stops. The answer is how many runs there were.
pub(super) fn everywhere<W: World>(
    course: impl Fn() -> Course<'static>,
    world: impl Fn() -> W,
    two: bool,
    context: &str,
    judge: impl Fn(&mut W, Outcome, &[(usize, Stop)]),
) -> usize {
    let mut runs = 0;
    let mut run = |stops: &[(usize, Stop)]| {
        let mut world = world();
        let outcome = course().run(&mut world, stops, context)?;
        judge(&mut world, outcome, stops);
        runs += 1;
        Some(())
    };
    run(&[]).unwrap();
    for first in [Stop::Crash, Stop::Power] {
        let mut at = 0;
        while run(&[(at, first)]).is_some() {
            for second in [Stop::Crash, Stop::Power].into_iter().filter(|_| two) {
                let mut then = 0;
                while run(&[(at, first), (then, second)]).is_some() {
                    then += 1;
                }
            }
            at += 1;
        }
        assert!(at >= 10, "{context}: only {at} steps");
    }
    runs
}

/// Makes a shell script that runs in its directory.
pub(super) fn script(path: &std::path::Path, body: &str) {
    let text = path.with_extension("text");
    let directory = path.parent().unwrap().display();
    std::fs::write(
        &text,
        format!("#!/bin/sh\nset -e\ncd {directory}\n{body}\n"),
    )
    .unwrap();
    // Not written by this process: one forked by another thread meanwhile would have it open to be
    // written, and then it cannot be run.
    let mut install = std::process::Command::new("install");
    let done = install.args(["-m", "755"]).args([&text, path]).status();
    assert!(done.unwrap().success());
}
