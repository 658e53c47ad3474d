//! The library for boards, driven by programs in C.

use crate::test::{Outcome, Run, execute, twinflash};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) const MANIFEST: &str = "bindings/sansio/Cargo.toml";

/// Code and constants of the whole library on this machine (x86-64), in bytes: what was measured, and 5 %.
pub(crate) const BUDGET: u64 = 296_800;
/// As above, with [`SIGNED`].
pub(crate) const BUDGET_SIGNED: u64 = 435_800;

/// cargo's arguments for the library that verifies signatures.
pub(crate) const SIGNED: &[&str] = &["--features", "signed"];

const STRICT: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];

/// The static library.
///
/// # Errors
/// It does not build.
pub(crate) fn build(root: &Path, target: &Path, features: &[&str]) -> Result<PathBuf, String> {
    let target = target.join(place(features));
    cargo(root, &target, "build", features)?;
    Ok(target.join("release/libtwinflash_sansio.a"))
}

/// Each has a place of its own: the one does not replace the other.
fn place(features: &[&str]) -> &'static str {
    match features {
        [] => "sansio",
        _ => "sansio-signed",
    }
}

/// The library for a Cortex-M4, such as the MXChip DevKit's: what a firmware takes there that uses every function, and
/// the programs that need nothing but C's library, run on one that QEMU emulates. Takes `rustup target add
/// thumbv7em-none-eabihf`, and of Debian gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.
pub(crate) fn cortex_m4(run: &Run) -> Outcome {
    const TARGET: &str = "thumbv7em-none-eabihf";
    const COMPILE: &str = "-std=c99 -O1 -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -Iinclude \
         --specs=rdimon.specs -Wl,--gc-sections,-z,noexecstack -Wl,-T,bindings/sansio/test/cortex_m4.ld";
    const QEMU: &str = "-machine mps2-an386 -nographic -semihosting -kernel";
    for features in [&[], SIGNED] {
        let target = run.target.join(place(features));
        let arguments = [&["--target", TARGET], features].concat();
        cargo(&run.root, &target, "build", &arguments)?;
        let library = target.join(TARGET).join("release/libtwinflash_sansio.a");
        let link = |name: &str, more: &[String]| {
            let program = target.join(name).with_extension("elf");
            let mut link = run.command("arm-none-eabi-gcc", STRICT);
            link.args(COMPILE.split_whitespace()).args(more);
            link.arg("bindings/sansio/test/cortex_m4.c").arg(&library);
            execute(link.arg("-o").arg(&program)).map(|()| program)
        };
        let mut all = functions("arm-none-eabi-nm", &library)?;
        all.push("-Wl,--defsym=main=abort".into());
        let program = link("all", &all)?;
        execute(run.command("arm-none-eabi-size", &[]).arg(program))?;
        for name in ["checks", "arguments"] {
            let program = link(name, &[format!("bindings/sansio/test/{name}.c")])?;
            let qemu: Vec<_> = QEMU.split(' ').collect();
            execute(run.command("qemu-system-arm", &qemu).arg(program))?;
        }
    }
    Ok(())
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
    let library = build(&run.root, &run.target, &[])?;
    let signed = build(&run.root, &run.target, SIGNED)?;
    for (what, library, budget) in [
        ("the library for boards", &library, BUDGET),
        ("with signatures, it", &signed, BUDGET_SIGNED),
    ] {
        let size = measured(library)?;
        println!("{what} has {size} bytes of code and constants");
        if size > budget {
            return Err(format!("{size} bytes, and {budget} are allowed"));
        }
    }
    let program = |library: &Path, name: &str, compiler: &str, arguments: &[&str]| {
        let program = target.join(format!("{name}-{compiler}-{}", arguments.len()));
        let mut compile = run.command(compiler, STRICT);
        compile
            .args(arguments)
            .args(["-D_DEFAULT_SOURCE", "-Iinclude", "-Iexamples/c"])
            .arg(format!("bindings/sansio/test/{name}.c"))
            .args(["-x", "none"])
            .arg(library)
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
        execute(&mut run.command(program(&library, name, "clang", &sanitized)?, &[]))?;
        let plain = program(&library, name, "gcc", &["-std=c99"])?;
        let valgrind = [
            "--quiet",
            "--error-exitcode=9",
            "--leak-check=full",
            "--show-leak-kinds=all",
        ];
        let mut valgrind = run.command("valgrind", &valgrind);
        execute(valgrind.arg("--errors-for-leak-kinds=all").arg(plain))?;
        program(&library, name, "g++", &["-std=c++17", "-x", "c++"])?;
    }
    // Its flash is a file that is synced thousands of times: where there is one, in memory.
    let memory = Path::new("/dev/shm");
    let directory = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .map_err(|error| format!("cannot make a directory: {error}"))?;
    let directory = directory.path();
    let board = program(&library, "board", "gcc", &["-std=c11", "-O1"])?;
    execute(run.command(board, &[]).arg(directory))?;
    let board = program(&signed, "board", "gcc", &["-std=c11", "-O1", "-DSIGNED"])?;
    execute(run.command(&board, &["--image"]).arg(directory))?;
    sign(run, directory)?;
    execute(run.command(board, &[]).arg(directory))
}

/// Manifests for the image in a directory, one by the key that a board trusts, and one by another.
fn sign(run: &Run, directory: &Path) -> Outcome {
    let built = twinflash(run)?;
    let twinflash = || run.command(&built, &[]);
    let at = |name: &str| directory.join(name);
    for name in ["owner", "other"] {
        let key = at(&format!("{name}.pem"));
        execute(twinflash().args(["key", "new"]).arg(&key))?;
        let mut sign = twinflash();
        sign.args(["image", "sign", "--version", "2.0.0", "--key"])
            .arg(&key);
        execute(
            sign.arg("--output")
                .arg(at(&format!("{name}.jws")))
                .arg(at("image")),
        )?;
    }
    let public = at("owner.pub.pem");
    let failed = |error| format!("{}: {error}", public.display());
    let pem = fs::read_to_string(&public).map_err(failed)?;
    let key: String = pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .collect();
    let trust = format!(r#"{{"version":1,"threshold":1,"keys":["{key}"]}}"#);
    fs::write(at("trust"), trust).map_err(failed)
}

/// What a program prints of a file.
fn said(program: &str, arguments: &[&str], file: &Path) -> Result<String, String> {
    let output = Command::new(program).args(arguments).arg(file).output();
    match output {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}

/// What a linker is told to take every function of the library.
fn functions(nm: &str, library: &Path) -> Result<Vec<String>, String> {
    let symbols = said(nm, &["--defined-only", "--extern-only"], library)?;
    let names = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    Ok(names
        .filter(|name| name.starts_with("twinflash_sansio_"))
        .map(|name| format!("-Wl,-u,{name}"))
        .collect())
}

/// Bytes of code and constants that a firmware gets by using every function of the library.
pub(crate) fn measured(library: &Path) -> Result<u64, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
    let (map, linked) = (
        directory.path().join("map"),
        directory.path().join("linked.so"),
    );
    fs::write(&map, "{ global: twinflash_sansio_*; local: *; };")
        .map_err(|error| format!("cannot write {}: {error}", map.display()))?;
    let mut link = Command::new("gcc");
    link.args(["-shared", "-nostdlib", "-Wl,--gc-sections"])
        .arg(format!("-Wl,--version-script={}", map.display()))
        .args(functions("nm", library)?)
        .arg(library)
        .arg("-o")
        .arg(&linked);
    execute(&mut link)?;
    let sections = said("size", &["-A"], &linked)?;
    let of = |wanted: &str| {
        let line = sections
            .lines()
            .find(|line| line.split_whitespace().next() == Some(wanted));
        let size = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        size.ok_or_else(|| format!("no section {wanted} in {}", linked.display()))
    };
    Ok(of(".text")? + of(".rodata")? + of(".data.rel.ro")?)
}
