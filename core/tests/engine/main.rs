//! The engine against a simulated world, with a virtual clock: an update is cut short at every
//! single output, by a crash of the process, by a power cut, or by a save that fails, and must end
//! all the same.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod control;
mod corners;
mod waits;
mod world;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use twinflash::update::{Confirm, Restart};
use world::{Blow, COURSES, Case, Course, World};

fn contracts_and_restarts() -> impl Iterator<Item = (&'static str, Restart, Confirm)> {
    let restarts = [
        Restart::None,
        Restart::Exit,
        Restart::System,
        Restart::Command(vec!["restart".into()]),
    ];
    ["iothub-dm", "configuration"]
        .into_iter()
        .flat_map(move |contract| {
            restarts.clone().into_iter().flat_map(move |restart| {
                [Confirm::Connected, Confirm::Call]
                    .into_iter()
                    .map(move |confirm| (contract, restart.clone(), confirm))
            })
        })
}

fn cases() -> impl Iterator<Item = Case> {
    contracts_and_restarts().flat_map(|(contract, restart, confirm)| {
        COURSES.into_iter().filter_map(move |course| {
            let fits = match course {
                Course::Good => true,
                // Reaching the hub confirms; only a call can be missing.
                Course::NeverConfirmed | Course::RollbackFails => confirm == Confirm::Call,
                // The others never come to be confirmed, or as the good one.
                _ => confirm == Confirm::Connected,
            };
            fits.then(|| Case {
                contract,
                restart: restart.clone(),
                confirm: confirm.clone(),
                course,
                blows: Vec::new(),
            })
        })
    })
}

/// Where no boot of the system is waited for, a power cut is a crash like any other.
fn kinds(case: &Case) -> Vec<Blow> {
    match case.restart {
        Restart::None | Restart::Exit => vec![Blow::Crash],
        _ => vec![Blow::Crash, Blow::PowerCut],
    }
}

fn with(case: &Case, blows: &[(usize, Blow)]) -> World {
    World::new(Case {
        blows: blows.to_vec(),
        ..case.clone()
    })
}

#[test]
fn one_blow_at_every_output() {
    let (mut courses, mut blows) = (0, 0);
    for case in cases() {
        let mut undisturbed = with(&case, &[]);
        undisturbed.prove();
        undisturbed.prove_the_next_one();
        courses += 1;
        for at in 0..undisturbed.performed {
            for blow in kinds(&case) {
                let mut world = with(&case, &[(at, blow)]);
                world.prove();
                world.prove_the_next_one();
                blows += 1;
            }
        }
    }
    println!("{courses} courses, {blows} crashes and power cuts");
}

#[test]
fn every_save_fails_once() {
    let mut failures = 0;
    for case in cases() {
        let mut undisturbed = with(&case, &[]);
        undisturbed.prove();
        for at in undisturbed.saves.clone() {
            let mut world = with(&case, &[(at, Blow::SaveFails)]);
            world.prove();
            failures += 1;
        }
    }
    println!("{failures} saves that failed");
}

/// A second blow at every output after the first one.
#[test]
fn two_blows() {
    let full = std::env::var_os("TWINFLASH_FULL").is_some();
    let blows = AtomicUsize::new(0);
    let cases = Mutex::new(cases());
    let next = || cases.lock().unwrap().next();
    let prove = || {
        while let Some(case) = next() {
            blows.fetch_add(two_blows_in(&case, full), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(prove);
        }
    });
    println!("{} pairs of blows", blows.into_inner());
}

fn two_blows_in(case: &Case, full: bool) -> usize {
    let mut blows = 0;
    let outputs = {
        let mut undisturbed = with(case, &[]);
        undisturbed.prove();
        undisturbed.performed
    };
    for first in (0..outputs).step_by(if full { 1 } else { 7 }) {
        for kind in kinds(case) {
            let after = {
                let mut world = with(case, &[(first, kind)]);
                world.prove();
                world.performed
            };
            for second in (first + 1..after).step_by(if full { 1 } else { 5 }) {
                with(case, &[(first, kind), (second, Blow::Crash)]).prove();
                blows += 1;
            }
        }
    }
    blows
}
