//! Builds and tests all of twinflash.
//!
//! `cargo xtask test` is the one test command.
#![forbid(unsafe_code)]
// It is a program that talks to whoever started it.
#![allow(clippy::print_stdout)]

mod bench;
mod c;
mod deb;
mod header;
mod install;
mod node;
mod package;
mod python;
mod sansio;
mod soak;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
Builds and tests all of twinflash.

cargo xtask test [--quick]    run every check and test; --quick leaves the slow ones out
cargo xtask header [--check]  make include/twinflash.h, or only see whether it is up to date
cargo xtask c [--tsan]        only the C library's tests and examples; with --tsan its tests under
                              ThreadSanitizer, for which it takes a nightly toolchain with rust-src
cargo xtask sansio [--cortex-m4]
                              only those of the library for boards; with --cortex-m4 built for that processor,
                              and its programs run on one that QEMU emulates: takes a Rust target, a compiler
                              for ARM and QEMU (xtask/src/sansio.rs names them)
cargo xtask install --prefix DIR [--libdir lib] [--destdir DIR] [--profile P] [--features A,B]
                              install the C library: header, shared and static, for pkg-config and CMake; with
                              these features of bindings/Cargo.toml in place of its default ones
cargo xtask package-deb DIR [--profile P]
                              make Debian packages: library, -dev, and agent with its service; as root also
                              try them out, in a copy of this system that nothing is left of
cargo xtask test-node         the test step of the Node package alone
cargo xtask test-python       the test step of the Python package alone
cargo xtask package-python DIR
                              make what is published for Python: sdist and wheel of the package and of
                              the command, for glibc 2.17 and newer; and try them out
cargo xtask package-node DIR  make what is published for Node: the tarballs of the package and of the
                              command, for glibc 2.17 and newer
cargo xtask package DIR [--only WORD]
                              make all that is released, from what is committed: sources, bills of materials
                              (CycloneDX), crates, the command, Python's and Node's packages, SHA256SUMS; and
                              see to sizes and cargo cinstall. Takes cargo-cyclonedx and cargo-c
cargo xtask bench download [--mib N] [--runs N]
                              the pipeline against curl: time and memory
cargo xtask bench c [--sizes] the C library in profile `small` and the one for boards: sizes, idle memory, a
                              method call; fails above the budgets. --sizes measures only those
cargo xtask bench node [--mib N] [--runs N]
                              the Node package against fetch and createHash: time, memory, the event
                              loop's delay, a method, require
cargo xtask bench python [--runs N | --mib N]
                              the Python package against requests, urllib and curl: time, memory, calls
cargo xtask bench scale [--devices N,N,…] [--state memory|disk] [--program FILE]
                              a hub and a simulated fleet: devices a second, memory, queries
cargo xtask soak [--minutes N] [--seed N] [--only WORD]
                              what only chance and time find, for so long (10 minutes): the engine's
                              blows, the simulated world, a killed process, hub and agents through
                              update after update, the fuzz targets; figures at the end. --only runs
                              the parts with this word in their names
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let passed = match *arguments {
        ["test"] => test::run(false),
        ["test", "--quick"] => test::run(true),
        ["bench", "download", ref options @ ..] => bench::download(options),
        ["test-node"] => report(node::run(&test::Run::new(true))),
        ["test-python"] => report(test::python_package(&test::Run::new(true))),
        ["package", directory] => report(package::run(directory, "")),
        ["package", directory, "--only", word] => report(package::run(directory, word)),
        ["package-node", directory] => report(node::package(directory)),
        ["soak", ref options @ ..] => soak::run(options),
        ["bench", "python", ref options @ ..] => bench::python(options),
        ["package-python", directory] => report(python::package::package(directory)),
        ["bench", "scale", ref options @ ..] => bench::scale(options),
        ["bench", "c"] => report(bench::c(false)),
        ["bench", "c", "--sizes"] => report(bench::c(true)),
        ["bench", "node", ref options @ ..] => bench::node(options),
        ["header"] => report(header::run(&test::root(), false)),
        ["header", "--check"] => report(header::run(&test::root(), true)),
        ["install", ref options @ ..] => report(test::install(options)),
        ["c"] => report(test::c()),
        ["c", "--tsan"] => report(c::tsan::run(&test::Run::new(true))),
        ["sansio", "--cortex-m4"] => report(sansio::cortex_m4(&test::Run::new(true))),
        ["sansio"] => report(sansio::run(&test::Run::new(true))),
        ["package-deb", directory] => report(deb::package(directory, "release")),
        ["package-deb", directory, "--profile", profile] => {
            report(deb::package(directory, profile))
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn report(result: Result<(), String>) -> bool {
    if let Err(error) = &result {
        eprintln!("{error}");
    }
    result.is_ok()
}
