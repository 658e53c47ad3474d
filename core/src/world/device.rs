//! A device: its disk, what boots it, and the process that runs the updater.

use super::case::{Blow, Case, Course, Kind, Left};
use super::disk::{Account, Disk, Stopped};
use super::note;
use super::outside::{self, Line, NEW, NEWER, NEXT, OLD, Outside, here};
use super::records::Records;
use crate::clock::virtual_clock;
use crate::contract::Contract;
use crate::device::{
    Builder, Outbound, Updater,
    by_hand::{self, ByHand, Hands},
    guard,
};
use crate::disk::{cut, observe};
use crate::download::simulated;
use crate::engine::{Input, Status};
use crate::install::{
    FileInstall, Installer, Restart, Slot, SlotsInstall, SlotsOptions, Switch, TryBoot,
};
use crate::journal::Journal;
use crate::update::{Confirm, Phase, Policy, Record};
use std::{
    cell::{Cell, RefCell},
    fs,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    rc::Rc,
    sync::LazyLock,
    time::{Duration, Instant, UNIX_EPOCH},
};

mod judge;

const MODE: u32 = 0o750;
/// More of them are no way to an end.
const LIVES: usize = 200;
const STEPS: usize = 20_000;

pub(super) fn set_clocks(now: Duration) {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + now;
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
    /// The slot that runs, where the whole system lies in one.
    slot: Rc<Cell<char>>,
    /// The next start of the system is the one that was asked for.
    asked: bool,
    last: Option<Status>,
    /// What could be lost at the first power cut.
    units: usize,
}

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) outcome: String,
    /// Steps of the disk, messages of the hub and events of the network until the first update's end.
    pub(super) count: [usize; 3],
    /// What could be lost at the first power cut.
    pub(super) units: usize,
    /// Steps of the disk that failed.
    pub(super) failed: usize,
}

/// Plays a case to its end, and another update after it.
pub(super) fn play(case: &Case) -> Played {
    let mut world = World::new(case);
    let status = world.run();
    let count = {
        let outside = world.outside.borrow();
        [world.disk.borrow().steps, outside.messages, outside.events]
    };
    let outcome = world.judge(&status);
    world.next();
    let failed = world.disk.borrow().failed;
    Played {
        outcome,
        count,
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
        by_hand::watch(None);
        outside::set_here(None);
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
        let at = |path: &str| root.path().join(path);
        let tracked: Vec<_> = ["state", "app", "slots", "boot"].map(at).into();
        for path in &tracked {
            fs::create_dir(path).unwrap();
        }
        fs::create_dir_all(at("proc/sys/kernel/random")).unwrap();
        let put = |path: &str, bytes: &[u8]| {
            fs::write(at(path), bytes).unwrap();
            fs::set_permissions(at(path), fs::Permissions::from_mode(MODE)).unwrap();
        };
        match case.kind {
            Kind::Program { old: false, .. } => {}
            Kind::Link | Kind::TryBoot => put("slots/a", &OLD),
            _ => put("app/app.bin", &OLD),
        }
        match case.kind {
            Kind::Link => std::os::unix::fs::symlink(at("slots/a"), at("boot/current")).unwrap(),
            Kind::TryBoot => {
                let text = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";
                put("boot/autoboot.txt", text.as_bytes());
            }
            _ => {}
        }
        let mut disk = Disk::of(&tracked);
        let outside = Outside::new(case);
        for (at, blow) in &case.blows {
            if let super::case::At::Disk(step) = at {
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
            slot: Rc::new(Cell::new('a')),
            asked: false,
            last: None,
            units: 0,
        };
        world.watch();
        let links = !matches!(case.kind, Kind::Program { links: false, .. });
        cut::no_links(!links);
        set_clocks(Duration::from_secs(1));
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

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn installer(&self) -> Box<dyn Installer> {
        let file = |restart| {
            Box::new(FileInstall::new(self.path("app/app.bin")).restart(restart))
                as Box<dyn Installer>
        };
        let slots = |switch| {
            let slots = [
                Slot::new("A", self.path("slots/a")),
                Slot::new("B", self.path("slots/b")),
            ];
            SlotsOptions::new(slots, switch)
        };
        match self.case.kind {
            Kind::Program { .. } => file(Restart::Exit),
            Kind::Data => file(Restart::None),
            Kind::Service => file(Restart::Command(vec!["restart".into()])),
            Kind::System => file(Restart::System),
            Kind::Link => {
                let mut options = slots(Switch::Link(self.path("boot/current")));
                options.restart = Restart::Exit;
                Box::new(SlotsInstall::new(self.path("state"), options).unwrap())
            }
            Kind::TryBoot => {
                let options = slots(Switch::TryBoot(TryBoot {
                    autoboot: self.path("boot/autoboot.txt"),
                    partitions: [2, 3],
                }));
                let it = SlotsInstall::new(self.path("state"), options).unwrap();
                Box::new(it.with_root(self.root.path()))
            }
        }
    }

    /// What is active: what the next start runs, or who opens the file gets.
    fn active(&self) -> Option<Vec<u8>> {
        let disk = self.disk.borrow();
        let path = match self.case.kind {
            Kind::Link => disk.link(&self.path("boot/current"))?.to_owned(),
            Kind::TryBoot => {
                let text = disk.content(&self.path("boot/autoboot.txt"))?;
                let [slot, _] = boot_loader(text);
                self.path(&format!("slots/{slot}"))
            }
            _ => self.path("app/app.bin"),
        };
        disk.content(&path).map(<[u8]>::to_vec)
    }

    /// What runs.
    fn running(&self) -> Vec<u8> {
        let old = || OLD.clone();
        match self.case.kind {
            Kind::TryBoot => {
                let path = self.path(&format!("slots/{}", self.slot.get()));
                let disk = self.disk.borrow();
                disk.content(&path).map_or_else(old, <[u8]>::to_vec)
            }
            Kind::Service | Kind::System => self.outside.borrow().service.clone(),
            Kind::Data => old(),
            // A process of it starts each time.
            _ => self.active().unwrap_or_else(old),
        }
    }

    fn boot_system(&mut self) {
        self.boots += 1;
        let asked = std::mem::take(&mut self.asked);
        let id = format!("boot-{}", self.boots);
        fs::write(self.path("proc/sys/kernel/random/boot_id"), id).unwrap();
        if self.case.kind == Kind::TryBoot {
            let slots = {
                let disk = self.disk.borrow();
                boot_loader(disk.content(&self.path("boot/autoboot.txt")).unwrap())
            };
            self.slot.set(slots[usize::from(asked)]);
            let line = format!(
                "root={}",
                self.path(&format!("slots/{}", self.slot.get())).display()
            );
            fs::write(self.path("proc/cmdline"), line).unwrap();
        }
        if let Some(active) = self.active() {
            self.outside.borrow_mut().service = active;
        }
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
        // Where the program is what is updated, it knows its version.
        let version = match self.running() {
            running if running == *NEW => "1.0.1",
            running if running == *NEWER => "1.0.2",
            running if running == *NEXT => "1.0.3",
            _ => "1.0.0",
        };
        if !matches!(self.case.kind, Kind::Data | Kind::Service) {
            builder = builder.current_version(version);
        }
        builder
    }

    /// One life of the process.
    fn life(&mut self) -> End {
        self.starts += 1;
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
        let asks = match outside.next {
            // It asks again while it has no answer.
            false => status.outcome.is_none(),
            true => status.version.as_deref() != Some("1.0.3"),
        };
        if by_method && idle && asks && !outside.answered {
            let name = if outside.next { "next" } else { "new" };
            let payload = outside.members(name).to_string();
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
        let good = outside.next && !bad;
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
                End::Gone if self.case.kind == Kind::TryBoot => self.power_cut(Left::Torn(1)),
                End::Gone => self.process_ends(),
            }
        }
        panic!("no end after {LIVES} starts");
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

/// What the boot loader starts: normally, and once.
fn boot_loader(text: &[u8]) -> [char; 2] {
    let text = String::from_utf8_lossy(text);
    let mut slots = text.lines().filter_map(|line| {
        let number = line.strip_prefix("boot_partition=")?;
        Some(if number == "2" { 'a' } else { 'b' })
    });
    [slots.next(), slots.next()].map(|slot| slot.unwrap_or('?'))
}
