//! A simulated world around the real device: driver, pipeline, downloader, journal and installers, on a
//! disk whose power can be cut, in a network and with a hub that break.

#![allow(clippy::print_stdout)]

mod case;
mod device;
mod disk;
mod old;
mod outside;
mod records;

use case::{At, Blow, Case, Course, ERRORS, HUB_FAULTS, Left, NETWORK_FAULTS};
use device::Played;
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

thread_local!(static TRACE: RefCell<Option<Vec<String>>> = const { RefCell::new(None) });

/// Takes a line down, where somebody wants to know what happens.
fn note(line: impl FnOnce() -> String) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.push(line().chars().take(300).collect());
        }
    });
}

/// Plays a case to its end; where something is wrong, it is played again and told.
fn prove(case: &Case) -> Played {
    prove_as(case, "")
}

/// As [`prove`], with a name for the case.
fn prove_as(case: &Case, name: &str) -> Played {
    let wrong = match catch_unwind(AssertUnwindSafe(|| device::play(case))) {
        Ok(world) => return world,
        Err(wrong) => wrong,
    };
    TRACE.set(Some(Vec::new()));
    let _ = catch_unwind(AssertUnwindSafe(|| device::play(case)));
    for line in TRACE.take().unwrap_or_default() {
        println!("{line}");
    }
    println!("{case:?} {name}");
    resume_unwind(wrong)
}

/// How many cases there were of each.
#[derive(Debug, Default)]
struct Count {
    undisturbed: usize,
    killed: usize,
    power_cuts: usize,
    disk_errors: usize,
    hub_faults: usize,
    network_faults: usize,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.undisturbed += other.undisturbed;
        self.killed += other.killed;
        self.power_cuts += other.power_cuts;
        self.disk_errors += other.disk_errors;
        self.hub_faults += other.hub_faults;
        self.network_faults += other.network_faults;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} devices and courses; {} kills, {} power cuts, {} disk errors, {} faults of the hub, {} of the network",
            self.undisturbed,
            self.killed,
            self.power_cuts,
            self.disk_errors,
            self.hub_faults,
            self.network_faults
        )
    }
}

/// The states a disk may be found in, of so many units that may be lost: each of a few, else each lost
/// alone and each kept alone; and some with torn sectors.
fn lefts(units: usize, torn: u64) -> Vec<Left> {
    let all = (1 << units.min(63)) - 1_u64;
    let mut lefts: Vec<_> = match units {
        0..=3 => (0..=all).map(Left::Units).collect(),
        _ => {
            let each = (0..units).flat_map(|unit| [1 << unit, all ^ 1 << unit]);
            each.chain([0, all]).map(Left::Units).collect()
        }
    };
    if units > 0 {
        lefts.extend((1..=torn).map(Left::Torn));
    }
    lefts
}

/// One fault, at every place of the first update where there can be one, or of the second.
fn single_faults(case: &Case, second: bool, every: usize, offset: usize, count: &mut Count) {
    let world = prove(case);
    count.undisturbed += usize::from(!second);
    let [steps, messages, events] = if second { world.second } else { world.count };
    let with = |at, blow| match second {
        true => case.then(&[(at, blow)]),
        false => case.with(&[(at, blow)]),
    };
    let mine = |at: &usize| at % every == offset % every;
    // Of these there are few enough for all.
    let always = case.course == Course::Good && !second;
    for step in (0..steps).filter(|step| always || mine(step)) {
        prove(&with(At::Disk(step), Blow::Kill));
        count.killed += 1;
    }
    for step in (0..steps).filter(mine) {
        let at = At::Disk(step);
        let all = Left::Units(u64::MAX);
        let units = prove(&with(at, Blow::PowerCut(all))).units;
        for left in lefts(units, 2) {
            prove(&with(at, Blow::PowerCut(left)));
            count.power_cuts += 1;
        }
        for error in ERRORS {
            for times in [1, 8] {
                let world = prove(&with(at, Blow::Error(error, times)));
                count.disk_errors += usize::from(world.failed > 0);
            }
        }
    }
    for message in (0..messages).filter(mine) {
        for fault in HUB_FAULTS {
            prove(&with(At::Hub(message), Blow::Hub(fault)));
            count.hub_faults += 1;
        }
        prove(&with(At::Hub(message), Blow::Kill));
        prove(&with(At::Hub(message), Blow::PowerCut(Left::Units(0))));
        count.killed += 1;
        count.power_cuts += 1;
    }
    for event in (0..events).filter(mine) {
        for fault in NETWORK_FAULTS {
            prove(&with(At::Network(event), Blow::Network(fault)));
            count.network_faults += 1;
        }
        prove(&with(At::Network(event), Blow::Kill));
        prove(&with(At::Network(event), Blow::PowerCut(Left::Units(0))));
        count.killed += 1;
        count.power_cuts += 1;
    }
}

/// Whether every place is to be tried: long, and longer where nothing is optimised.
fn full() -> bool {
    std::env::var_os("TWINFLASH_WORLD_FULL").is_some()
}

/// Does something with each number, on all processors.
fn each(numbers: Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(numbers.start);
    let threads = thread::available_parallelism().map_or(1, Into::into);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

#[test]
fn one_fault_everywhere() {
    let every = if full() { 1 } else { 23 };
    let all = Case::all();
    let total = Mutex::new(Count::default());
    each(0..all.len() as u64, |n| {
        let mut count = Count::default();
        let case = &all[n as usize];
        single_faults(case, false, every, n as usize, &mut count);
        // What another one before it has left over is in nobody's way.
        if matches!(case.course, Course::Good | Course::Mute) {
            single_faults(case, true, 2 * every - 1, n as usize, &mut count);
        }
        total.lock().unwrap().add(&count);
    });
    println!("{}", total.into_inner().unwrap());
}

/// The power is cut, and while the device goes on it is cut again.
#[test]
fn two_cuts() {
    let (every, second) = if full() { (3, 5) } else { (37, 31) };
    let all = Case::all();
    let runs = AtomicU64::new(0);
    each(0..all.len() as u64, |n| {
        let case = &all[n as usize];
        let steps = prove(case).count[0];
        for first in (n as usize % every..steps).step_by(every) {
            for torn in [
                Blow::Kill,
                Blow::PowerCut(Left::Units(0)),
                Blow::PowerCut(Left::Torn(n)),
            ] {
                let one = case.with(&[(At::Disk(first), torn)]);
                let after = prove(&one).count[0];
                for then in (first + 1 + n as usize % second..after).step_by(second) {
                    let left = Left::Torn((first * after + then) as u64);
                    let cut = (At::Disk(then), Blow::PowerCut(left));
                    prove(&case.with(&[one.blows[0], cut]));
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    println!("{} pairs of cuts", runs.into_inner());
}

/// Cases that once failed.
#[test]
fn cases_of_old() {
    for case in old::cases() {
        prove(&case);
    }
}

/// Several faults at random. One that fails is played again by its seed alone:
/// `TWINFLASH_WORLD_SEED=… TWINFLASH_WORLD_RUNS=1`.
#[test]
fn seeded_runs() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let runs = number("TWINFLASH_WORLD_RUNS").unwrap_or(if full() { 20_000 } else { 2_000 });
    let first = number("TWINFLASH_WORLD_SEED").unwrap_or(1);
    let outcomes = Mutex::new(BTreeMap::<String, u64>::new());
    let done = AtomicU64::new(0);
    each(first..first + runs, |seed| {
        let case = Case::random(seed);
        let world = prove_as(&case, &format!("TWINFLASH_WORLD_SEED={seed}"));
        *outcomes.lock().unwrap().entry(world.outcome).or_default() += 1;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(50_000) {
            println!("{done} of {runs} runs");
        }
    });
    println!(
        "{runs} seeded runs from {first} on: {:?}",
        outcomes.into_inner().unwrap()
    );
}
