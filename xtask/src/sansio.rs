//! The library for boards, driven by programs in C.

use crate::test::{Outcome, Run, execute};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) const MANIFEST: &str = "bindings/sansio/Cargo.toml";

/// Code and constants of the whole library on this machine (x86-64), in bytes: what was measured, and 5 %.
const BUDGET: u64 = 448_000;

const STRICT: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];

/// The static library.
///
/// # Errors
/// It does not build.
pub(crate) fn build(root: &Path, target: &Path) -> Result<PathBuf, String> {
    let target = target.join("sansio");
    cargo(root, &target, "build", &[])?;
    Ok(target.join("release/libtwinflash_sansio.a"))
}

fn cargo(root: &Path, target: &Path, command: &str, arguments: &[&str]) -> Outcome {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo
        .current_dir(root)
        .args([command, "--release", "--quiet", "--manifest-path", MANIFEST])
        .arg("--target-dir")
        .arg(target)
        .args(arguments);
    execute(&mut cargo)
}

/// Builds it, measures it, and runs every program of `bindings/sansio/test`.
pub(crate) fn run(run: &Run) -> Outcome {
    let target = run.target.join("sansio");
    cargo(&run.root, &target, "clippy", &["--", "-D", "warnings"])?;
    let library = build(&run.root, &run.target)?;
    let size = size(&library)?;
    println!("the library for boards has {size} bytes of code and constants");
    if size > BUDGET {
        return Err(format!("{size} bytes, and {BUDGET} are allowed"));
    }
    let program = |name: &str, compiler: &str, arguments: &[&str]| {
        let program = target.join(format!("{name}-{compiler}"));
        let mut compile = run.command(compiler, STRICT);
        compile
            .args(arguments)
            .args(["-D_DEFAULT_SOURCE", "-Iinclude", "-Iexamples/c"])
            .arg(format!("bindings/sansio/test/{name}.c"))
            .args(["-x", "none"])
            .arg(&library)
            .arg("-o")
            .arg(&program);
        execute(&mut compile).map(|()| program)
    };
    let sanitized = [
        "-std=c11",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ];
    for name in ["checks", "arguments"] {
        execute(&mut run.command(program(name, "clang", &sanitized)?, &[]))?;
        let plain = program(name, "gcc", &["-std=c99"])?;
        let valgrind = [
            "--quiet",
            "--error-exitcode=9",
            "--leak-check=full",
            "--show-leak-kinds=all",
        ];
        let mut valgrind = run.command("valgrind", &valgrind);
        execute(valgrind.arg("--errors-for-leak-kinds=all").arg(plain))?;
        program(name, "g++", &["-std=c++17", "-x", "c++"])?;
    }
    // Its flash is a file that is synced thousands of times: where there is one, in memory.
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .map_err(|error| format!("cannot make a directory: {error}"))?;
    let board = program("board", "gcc", &["-std=c11", "-O1"])?;
    execute(run.command(board, &[]).arg(directory.path()))
}

/// Bytes of code and constants that a firmware gets by using every function of the library.
pub(crate) fn size(library: &Path) -> Result<u64, String> {
    let output = |program: &str, arguments: &[&str], file: &Path| {
        let output = Command::new(program).args(arguments).arg(file).output();
        match output {
            Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Err(error) => Err(format!("cannot run {program}: {error}")),
        }
    };
    let directory = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
    let (map, linked) = (
        directory.path().join("map"),
        directory.path().join("linked.so"),
    );
    fs::write(&map, "{ global: twinflash_sansio_*; local: *; };")
        .map_err(|error| format!("cannot write {}: {error}", map.display()))?;
    let symbols = output("nm", &["--defined-only", "--extern-only"], library)?;
    let functions = symbols.lines().filter_map(|line| {
        let name = line.split_whitespace().last()?;
        name.starts_with("twinflash_sansio_")
            .then(|| format!("-Wl,-u,{name}"))
    });
    let mut link = Command::new("gcc");
    link.args(["-shared", "-nostdlib", "-Wl,--gc-sections"])
        .arg(format!("-Wl,--version-script={}", map.display()))
        .args(functions)
        .arg(library)
        .arg("-o")
        .arg(&linked);
    execute(&mut link)?;
    let sections = output("size", &["-A"], &linked)?;
    let of = |wanted: &str| {
        let line = sections
            .lines()
            .find(|line| line.split_whitespace().next() == Some(wanted));
        let size = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        size.ok_or_else(|| format!("no section {wanted} in {}", linked.display()))
    };
    Ok(of(".text")? + of(".rodata")? + of(".data.rel.ro")?)
}
