//! A device: its disk, what boots it, and the process that runs the updater.

use super::case::{At, Blow, Case, Course, Held, Kind, Left};
use super::disk::{Account, Disk, Stopped};
use super::note;
use super::outside::{self, Line, NEW, Outside, TURNS, here, named, trust, version_of};
use super::records::Records;
use crate::clock::virtual_clock;
use crate::command;
use crate::contract::Contract;
use crate::device::{
    Builder, Outbound, Updater,
    by_hand::{self, ByHand, Hands},
    guard,
};
use crate::disk::{cut, observe};
use crate::download::simulated;
use crate::engine::{APPROVE_METHOD, Input, Status, Wait};
use crate::journal::Journal;
use crate::update::{Confirm, Phase, Policy, Record, Stage};
use std::{
    cell::{Cell, RefCell},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::LazyLock,
    time::{Duration, Instant, UNIX_EPOCH},
};

mod environment;
mod judge;
mod machine;
mod programs;

use programs::Programs;

/// More of them are no way to an end.
const LIVES: usize = 200;
const STEPS: usize = 20_000;

pub(super) fn set_clocks(now: Duration) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let wall = UNIX_EPOCH + outside::wall(now);
    virtual_clock::set(Some((*START + now, wall)));
}

/// Performs one of the engine's outputs.
pub(super) fn perform(hands: &Hands) -> bool {
    let Some(output) = hands.next() else {
        return false;
    };
    note(|| format!("    {output:?}"));
    hands.perform(output);
    true
}

/// How a process's life ended.
#[derive(Debug)]
enum End {
    /// There is nothing more to do.
    Still,
    Stopped(Blow),
    /// It asked for a restart.
    Restart,
    /// It could not start, or the new version ended.
    Gone,
}

struct World {
    case: Case,
    root: tempfile::TempDir,
    disk: Rc<RefCell<Disk>>,
    outside: outside::Shared,
    records: Rc<RefCell<Records>>,
    boots: u32,
    starts: u32,
    /// The version of the program that runs, where it is what is updated.
    runs: &'static str,
    /// The slot that runs, where the whole system lies in one.
    slot: Rc<Cell<char>>,
    /// The next start of the system is the one that was asked for.
    asked: bool,
    last: Option<Status>,
    /// What was active before this update.
    before: Option<Vec<u8>>,
    /// What could be lost at the first power cut.
    units: usize,
}

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) outcome: String,
    /// Steps of the disk, messages of the hub and events of the network until the first update's end.
    pub(super) count: [usize; 3],
    /// As many in the second update.
    pub(super) second: [usize; 3],
    /// What could be lost at the first power cut.
    pub(super) units: usize,
    /// Steps of the disk that failed.
    pub(super) failed: usize,
}

/// Plays a case to its end, and another update after it.
pub(super) fn play(case: &Case) -> Played {
    let mut world = World::new(case);
    let status = world.run();
    let count = world.count();
    let outcome = world.judge(&status);
    world.turn(&case.then);
    let status = world.run();
    let all = world.count();
    let second = world.judge(&status);
    if !case.then.is_empty() {
        world.turn(&[]);
        let status = world.run();
        world.judge(&status);
    }
    let failed = world.disk.borrow().failed;
    Played {
        outcome: match case.then.is_empty() {
            true => outcome,
            false => format!("{outcome}, then {second}"),
        },
        count,
        second: [0, 1, 2].map(|n| all[n] - count[n]),
        units: world.units,
        failed,
    }
}

impl Drop for World {
    fn drop(&mut self) {
        observe::by(None);
        simulated::by(None);
        by_hand::performing_by(None);
        virtual_clock::set(None);
        cut::no_links(false);
        // Nobody reads here what it takes down, and a million runs take down much.
        cut::done();
        command::simulated::by(None);
        by_hand::watch(None);
        outside::set_here(None);
        outside::set_off(0);
    }
}

fn contract(name: &str) -> Contract {
    static CONTRACTS: LazyLock<[Contract; 2]> =
        LazyLock::new(|| ["iothub-dm", "configuration"].map(|n| Contract::built_in(n).unwrap()));
    let mut contracts = CONTRACTS.iter();
    contracts.find(|c| c.name() == name).unwrap().clone()
}

impl World {
    fn new(case: &Case) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let root = root.unwrap();
        let tracked = machine::lay_out(case.kind, root.path());
        let mut disk = Disk::of(&tracked);
        let outside = Outside::new(case);
        for (at, blow) in &case.blows {
            if let At::Disk(step) = at {
                disk.blows.push((*step, *blow));
            }
        }
        let disk = Rc::new(RefCell::new(disk));
        let records = Rc::new(RefCell::new(Records::new(Rc::clone(&disk))));
        let mut world = Self {
            case: case.clone(),
            root,
            disk,
            outside: Rc::new(RefCell::new(outside)),
            records,
            boots: 0,
            starts: 0,
            runs: "",
            slot: Rc::new(Cell::new('a')),
            asked: false,
            last: None,
            before: None,
            units: 0,
        };
        world.before = world.active();
        world.watch();
        let links = !matches!(case.kind, Kind::Program { links: false, .. });
        cut::no_links(!links);
        set_clocks(Duration::from_secs(1));
        let programs = Programs {
            root: world.root.path().to_owned(),
            slot: Rc::clone(&world.slot),
            whole: Box::new(judge::whole(case)),
        };
        let run = move |program: &str, arguments: &[&str]| programs.run(program, arguments);
        command::simulated::by(Some(Box::new(run)));
        let records = Rc::clone(&world.records);
        by_hand::watch(Some(Box::new(move |record| match record {
            Some(record) => records.borrow_mut().saves(record),
            None => records.borrow_mut().saved(),
        })));
        outside::set_here(Some(Rc::clone(&world.outside)));
        observe::by(Some(Box::new(Account(Rc::clone(&world.disk)))));
        world.boot_system();
        world
    }

    /// The record as the next start finds it.
    fn load(&self) -> Option<Record> {
        let loaded = Journal::peek(&self.path("state"));
        let mut names = fs::read_dir(self.path("state")).unwrap();
        if names.any(|name| {
            name.unwrap()
                .file_name()
                .to_string_lossy()
                .contains(".lost-")
        }) {
            self.records.borrow_mut().lost = true;
        }
        self.records.borrow_mut().found(&loaded)
    }

    fn builder(&self) -> Builder {
        let mut policy = Policy {
            checkpoint_bytes: 1000,
            ..Policy::default()
        };
        if self.case.course == Course::Mute {
            policy.confirm = Confirm::Call;
        }
        match self.case.held {
            Some(Held::Consent) => policy.consent = vec![Stage::Download, Stage::Apply],
            Some(Held::Delay) => policy.start_delay = Duration::from_secs(3600),
            _ => {}
        }
        let (kind, target) = (self.case.kind, self.path("app/app.bin"));
        let mut builder = Updater::builder(
            self.path("state"),
            contract(self.case.contract),
            self.installer(),
        )
        .policy(policy)
        .on_outbound(move |outbound| match outbound {
            Outbound::Report(report) => here().borrow_mut().report(&report),
            Outbound::ReadTwin => here().borrow_mut().read_twin(),
        })
        .on_restart(move |_| {
            match kind {
                Kind::Service => here().borrow_mut().service = fs::read(&target).unwrap(),
                _ => here().borrow_mut().restart = true,
            }
            Ok(())
        });
        if self.case.signed {
            builder = builder.trust(trust());
        }
        match self.case.held {
            Some(Held::Window) => builder = builder.windows(outside::windows()),
            Some(Held::Unready) => builder = builder.on_ready(|_| here().borrow_mut().is_ready()),
            _ => {}
        }
        // Where the program is what is updated, it knows its version.
        let version = version_of(&self.running());
        if !matches!(self.case.kind, Kind::Data | Kind::Service) {
            builder = builder.current_version(version);
        }
        builder
    }

    /// One life of the process.
    fn life(&mut self) -> End {
        self.starts += 1;
        self.runs = version_of(&self.running());
        if self.starts > 1 {
            self.load();
        }
        let live = AssertUnwindSafe(|| self.live());
        let end = match catch_unwind(live) {
            Ok(end) => end,
            Err(thrown) => match thrown.downcast::<Stopped>() {
                Ok(stopped) => End::Stopped(stopped.0),
                Err(panic) => resume_unwind(panic),
            },
        };
        simulated::by(None);
        by_hand::performing_by(None);
        self.outside.borrow_mut().cut_off();
        note(|| format!("--- {end:?}"));
        end
    }

    fn live(&mut self) -> End {
        note(|| format!("--- start {}, boot {}", self.starts, self.boots));
        let state = self.path("state");
        let bad = matches!(self.case.course, Course::Dead | Course::Newer);
        let dead = bad && self.running() == *NEW;
        if self.case.is_program() {
            self.records.borrow_mut().untold();
            // The supervisor starts nothing where this fails, and tries again.
            let guarded = guard(&state);
            note(|| format!("  guard {guarded:?}"));
            if guarded.is_err() {
                return End::Gone;
            }
            let found = self.load();
            self.records.borrow_mut().settle(found);
            // It may have brought the old one back.
            if bad && self.running() == *NEW {
                return End::Gone;
            }
        } else if dead {
            if self.case.course == Course::Newer {
                self.leave_a_newer_record();
            }
            return End::Gone;
        }
        let boot = match self.case.restarts_system() {
            true => format!("boot-{}", self.boots),
            false => format!("process-{}", self.starts),
        };
        let seed = self.case.order;
        let records = Rc::clone(&self.records);
        let failed = records.borrow().failed();
        let process = ByHand::start(self.builder(), seed, boot);
        let found = self.load();
        let mut process = match process {
            Ok(process) => process,
            Err(failure) => {
                note(|| format!("  {failure}"));
                return End::Gone;
            }
        };
        // What it has read it has synced, and what it saved first is saved.
        if records.borrow().failed() == failed {
            records.borrow_mut().settle(found);
        }
        let hands = process.hands.clone();
        let (outside, for_lines) = (Rc::clone(&self.outside), hands.clone());
        simulated::by(Some(Box::new(move |request| {
            Box::new(Line::open(&outside, &for_lines, request))
        })));
        let for_saves = hands.clone();
        by_hand::performing_by(Some(Box::new(move || perform(&for_saves))));
        let started = self.outside.borrow().clock;
        self.outside.borrow_mut().connected = true;
        hands.input(Input::Connected);
        for _ in 0..STEPS {
            if self.outside.borrow().restart {
                return End::Restart;
            }
            if self.in_some_order(&mut process, &hands) {
                continue;
            }
            self.last = Some(hands.status());
            if self.ask(&hands) {
                continue;
            }
            let Some(at) = hands.wake_at() else {
                return End::Still;
            };
            let mut outside = self.outside.borrow_mut();
            // A timer is never late by nothing.
            outside.clock = outside.clock.max(started + at) + Duration::from_millis(1);
            set_clocks(outside.clock);
            drop(outside);
            hands.input(Input::Tick);
        }
        panic!("the process comes to no rest");
    }

    /// One thing of what there is to do.
    fn in_some_order(&self, process: &mut ByHand, hands: &Hands) -> bool {
        let first = match self.case.order {
            0 => 0,
            _ => self.outside.borrow_mut().random.below(3),
        };
        (0..3).any(|n| match (first + n) % 3 {
            0 => perform(hands),
            1 => process.work(),
            _ => outside::deliver(&self.outside, hands),
        })
    }

    /// The back end, or the application, asks for something.
    fn ask(&mut self, hands: &Hands) -> bool {
        let status = hands.status();
        let bad = self.running() == *NEW;
        let mut outside = self.outside.borrow_mut();
        let idle = status.phase.is_none();
        let by_method = self.case.contract == "iothub-dm";
        let asks = match outside.turn {
            // It asks again while it has no answer.
            0 => status.outcome.is_none(),
            turn => status.version.as_deref() != Some(named(TURNS[turn]).1),
        };
        if by_method && idle && asks && !outside.answered {
            let payload = outside.members(TURNS[outside.turn]).to_string();
            note(|| format!("  method {payload}"));
            drop(outside);
            hands.method("firmwareUpdate", payload.as_bytes(), |answer| {
                let outside = here();
                let mut outside = outside.borrow_mut();
                note(|| format!("    answered {}", answer.status));
                outside.answered |= answer.status == 200;
                if answer.status != 200 && answer.status != 500 {
                    outside.complain(format!("the method was answered with {}", answer.status));
                }
            });
            return true;
        }
        if let Some(waiting) = status.waiting.filter(|waiting| waiting.on == Wait::Consent) {
            let defers = outside.consents(waiting.before, status.version);
            drop(outside);
            note(|| format!("  the user answers: {defers:?}"));
            match defers {
                Some(time) => hands.input(Input::Defer(time)),
                None if by_method => hands.method(APPROVE_METHOD, b"null", |_| {}),
                None => hands.input(Input::Approve),
            }
            return true;
        }
        let good = outside.turn > 0 && !bad;
        let confirms = status.phase == Some(Phase::Confirming) && good;
        if !confirms || std::mem::replace(&mut outside.confirmed, true) {
            return false;
        }
        drop(outside);
        hands.input(Input::Confirm);
        true
    }

    /// The new version has a layout of its own; that is all it came to do.
    fn leave_a_newer_record(&mut self) {
        let Some(record) = self.load() else { return };
        let mut json = serde_json::to_value(&record).unwrap();
        json["format"] = 2.into();
        json["updates"] = json["update"].take();
        json["update"] = "elsewhere".into();
        json["core"]["floor"] = "1.0.0".into();
        self.records.borrow_mut().newer = true;
        self.records.borrow_mut().untold();
        let Ok((mut journal, _)) = Journal::open(&self.path("state")) else {
            return;
        };
        let _ = journal.save(json.to_string().as_bytes());
    }

    /// Until nothing moves any more. Then the power is cut, and what was not synced is lost: what is
    /// done is done for good.
    fn run(&mut self) -> Status {
        for _ in 0..LIVES {
            match self.life() {
                // It is started again one day, and is the program then that is there.
                End::Still
                    if self.case.kind == Kind::Script
                        && self.runs != version_of(&self.running()) =>
                {
                    self.process_ends();
                }
                End::Still if self.knows_less_than_its_record() => self.process_ends(),
                End::Still => {
                    self.power_cut(Left::Units(0));
                    return self.last.take().unwrap();
                }
                End::Stopped(Blow::PowerCut(left)) => {
                    if self.units == 0 {
                        self.units = self.disk.borrow().units();
                    }
                    self.power_cut(left);
                }
                End::Stopped(_) => self.process_ends(),
                End::Restart if self.case.restarts_system() => {
                    self.asked = true;
                    self.disk.borrow_mut().flush();
                    self.boot_system();
                }
                End::Restart => self.process_ends(),
                // Its watchdog.
                End::Gone if self.case.kind.has_boot_loader() => self.power_cut(Left::Torn(1)),
                End::Gone => self.process_ends(),
            }
        }
        panic!("no end after {LIVES} starts");
    }

    /// This start could not read the record, and had nothing to save: the next one goes on with it.
    fn knows_less_than_its_record(&self) -> bool {
        let unread = self.disk.borrow().unread;
        let idle = self.last.as_ref().is_some_and(|it| it.phase.is_none());
        unread && idle && self.load().is_some_and(|it| it.running().is_some())
    }

    /// Steps of the disk, messages of the hub and events of the network so far.
    fn count(&self) -> [usize; 3] {
        let outside = self.outside.borrow();
        [self.disk.borrow().steps, outside.messages, outside.events]
    }

    /// The next update is asked for, in which this goes wrong: what has ended does not stand in its way.
    fn turn(&mut self, blows: &[(At, Blow)]) {
        let [steps, messages, events] = self.count();
        let blows: Vec<_> = blows
            .iter()
            .map(|(at, blow)| match at {
                At::Disk(n) => (At::Disk(steps + n), *blow),
                At::Hub(n) => (At::Hub(messages + n), *blow),
                At::Network(n) => (At::Network(events + n), *blow),
            })
            .collect();
        self.before = self.active();
        self.case.blows.clone_from(&blows);
        let mut disk = self.disk.borrow_mut();
        disk.blows = blows
            .iter()
            .filter_map(|(at, blow)| match at {
                At::Disk(step) => Some((*step, *blow)),
                _ => None,
            })
            .collect();
        drop(disk);
        let mut outside = self.outside.borrow_mut();
        outside.turn += 1;
        note(|| format!("--- the update {}", TURNS[outside.turn]));
        outside.calm();
        outside.case.blows = blows;
        outside.answered = false;
        if self.case.contract == "configuration" {
            let name = TURNS[outside.turn];
            outside.desire(name);
        }
        drop(outside);
        self.records.borrow_mut().turn();
    }

    fn process_ends(&mut self) {
        let mut outside = self.outside.borrow_mut();
        outside.clock += Duration::from_secs(1);
        set_clocks(outside.clock);
    }

    fn power_cut(&mut self, left: Left) {
        self.disk.borrow_mut().cut(left);
        self.asked = false;
        self.process_ends();
        self.boot_system();
    }
}
