//! `cargo xtask bench c`: what the C library costs a device, in flash, memory and time.

use crate::{
    c, install,
    sansio::{self, measured},
    test::{Outcome, Run, execute},
};
use std::{fs, path::Path, process::Command};

/// A size in bytes: what was measured, and 5 %; and what is aimed at. On x86-64.
struct Size {
    what: &'static str,
    budget: u64,
    aim: u64,
}

const FULL: Size = Size {
    what: "shared library, whole",
    budget: 2_555_100,
    aim: 2_200_000,
};
/// Their features: the authorities are the system's then.
const NETWORK: (Size, &str) = (
    Size {
        what: "HTTP, TLS and MQTT alone",
        budget: 2_255_800,
        aim: 2_200_000,
    },
    "http,mqtt",
);
const NO_NETWORK: (Size, &str) = (
    Size {
        what: "no network",
        budget: 782_900,
        aim: 700_000,
    },
    "",
);
const BOARD: Size = Size {
    what: "library for boards",
    budget: sansio::BUDGET,
    aim: 200_000,
};
const BOARD_SIGNED: Size = Size {
    what: "library for boards, signed",
    budget: sansio::BUDGET_SIGNED,
    aim: 300_000,
};

/// A method call that starts nothing, in nanoseconds.
const LONGEST_CALL: f64 = 25_000.0;
/// What an idle updater takes, in KiB: of its own, and with the pages of the library's code, which the system
/// can take back and which processes share. The first is aimed at, the second was measured, and 5 %.
const MOST_OWN: f64 = 2048.0;
const MOST_RESIDENT: f64 = 2188.0;

/// Measures, prints a table, and fails where something is above its budget. With `sizes` only the sizes.
pub(crate) fn run(sizes: bool) -> Outcome {
    let run = Run::new(false);
    let place = run.target.join("bench-c");
    let options = install::Options {
        prefix: &place,
        destination: Path::new("/"),
        libraries: "lib",
        profile: "small",
        features: None,
    };
    install::run(&run.root, &run.target, &options)?;
    let library = |name: &str| place.join("lib").join(name);
    let length = |file: &Path| {
        let data = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()));
        data.map(|data| data.len())
    };
    println!(
        "{:<28} {:>12} {:>12} {:>12}",
        "profile small", "bytes", "budget", "aim"
    );
    let mut over = Vec::new();
    let mut row = |size: &Size, bytes: u64| {
        let Size { what, budget, aim } = size;
        println!("{what:<28} {bytes:>12} {budget:>12} {aim:>12}");
        if bytes > *budget {
            over.push(format!("{what}: {bytes} bytes, and {budget} are allowed"));
        }
    };
    let full = library(&format!("libtwinflash.so.{}", env!("CARGO_PKG_VERSION")));
    c::only_ours(&full)?;
    row(&FULL, length(&full)?);
    let abi = install::abi(env!("CARGO_PKG_VERSION"));
    for (size, features) in [NETWORK, NO_NETWORK] {
        install::build(&run.root, &run.target, "small", &abi, Some(features))?;
        row(&size, length(&run.target.join("small/libtwinflash.so"))?);
    }
    row(&BOARD, measured(&library("libtwinflash_sansio.a"))?);
    let signed = sansio::build(&run.root, &run.target, sansio::SIGNED)?;
    row(&BOARD_SIGNED, measured(&signed)?);
    if !sizes {
        cost(&run, &place, &mut over)?;
    }
    match over.is_empty() {
        true => Ok(()),
        false => Err(over.join("\n")),
    }
}

fn cost(run: &Run, place: &Path, over: &mut Vec<String>) -> Outcome {
    let program = place.join("cost");
    let mut compile = run.command("gcc", &["-O2", "-std=c99", "-D_POSIX_C_SOURCE=200809L"]);
    compile
        .arg("tests/c/bench/cost.c")
        .arg(format!("-I{}", place.join("include").display()))
        .arg(format!("-L{0}", place.join("lib").display()))
        .arg(format!("-Wl,-rpath,{0}", place.join("lib").display()))
        .args(["-ltwinflash", "-o"])
        .arg(&program);
    execute(&mut compile)?;
    let said = |what: &str| {
        let directory = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let output = Command::new(&program)
            .arg(what)
            .arg(directory.path())
            .output();
        let output =
            output.map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{} {what}: {why}", program.display()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .map(|number| {
                number
                    .parse::<f64>()
                    .map_err(|error| format!("{number}: {error}"))
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let (none, updater, calls) = (said("none")?, said("updater")?, said("calls")?);
    let ([none, own_none], [updater, own], [refused, asked]) =
        (&none[..], &updater[..], &calls[..])
    else {
        return Err("the program says something else than it should".into());
    };
    println!();
    for (what, memory, most) in [
        ("of its own", own - own_none, MOST_OWN),
        ("resident", updater - none, MOST_RESIDENT),
    ] {
        println!("an idle updater over none, {what}: {memory} KiB; at most {most}");
        if memory > most {
            over.push(format!("an idle updater takes {memory} KiB {what}"));
        }
    }
    for (what, took) in [("refused", refused), ("asked how it stands", asked)] {
        println!(
            "a method call, {what}: {:.2} µs; at most {:.0}",
            took / 1e3,
            LONGEST_CALL / 1e3
        );
        if *took > LONGEST_CALL {
            over.push(format!("a method call ({what}) takes {took} ns"));
        }
    }
    Ok(())
}
