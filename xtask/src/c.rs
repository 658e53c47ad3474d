//! The C library, driven by programs in C and C++.

use crate::header;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

type Outcome = Result<(), String>;

/// What warns, stops: our header must not warn in anybody's program.
const STRICT: &[&str] = &["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];

/// A compiler, the languages it is asked for, and whether the library is linked statically.
const COMPILERS: &[(&str, &[&str], bool)] = &[
    ("gcc", &["-std=c99", "-D_POSIX_C_SOURCE=200809L"], false),
    ("clang", &["-std=c11", "-D_POSIX_C_SOURCE=200809L"], true),
    ("g++", &["-std=c++17", "-x", "c++"], true),
];

/// Every program of `tests/c`, by every compiler, under valgrind with the first.
pub(crate) fn run(
    root: &Path,
    target: &Path,
    execute: &dyn Fn(&mut Command) -> Outcome,
) -> Outcome {
    header::run(root, true)?;
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let in_root = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(root);
        command
    };
    execute(in_root(cargo.as_ref()).args(["build", "--quiet", "-p", "twinflash-c"]))?;
    let built = target.join("debug");
    only_ours(&built.join("libtwinflash.so"))?;
    for (place, (compiler, language, linked_in)) in COMPILERS.iter().enumerate() {
        for source in sources(root)? {
            let name = source.file_stem().unwrap_or_default().to_string_lossy();
            let program = target.join(format!("c/{name}-{compiler}"));
            let made = fs::create_dir_all(target.join("c"));
            made.map_err(|error| format!("cannot make a directory for programs: {error}"))?;
            let mut compile = in_root(compiler.as_ref());
            compile.args(STRICT).args(*language).arg("-Iinclude");
            compile.arg(&source).args(["-x", "none"]);
            if *linked_in {
                compile.arg(built.join("libtwinflash.a"));
                compile.args(["-lpthread", "-ldl", "-lm"]);
            } else {
                compile.arg("-L").arg(&built).arg("-ltwinflash");
                compile.arg(format!("-Wl,-rpath,{}", built.display()));
            }
            execute(compile.arg("-o").arg(&program))?;
            let directory = tempfile::tempdir()
                .map_err(|error| format!("cannot make a directory for {name}: {error}"))?;
            let mut run = match place {
                0 => {
                    let mut valgrind = in_root("valgrind".as_ref());
                    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
                    valgrind
                        .arg("--errors-for-leak-kinds=definite")
                        .arg(&program);
                    valgrind
                }
                _ => in_root(&program),
            };
            execute(run.arg(directory.path()))?;
        }
    }
    Ok(())
}

fn sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(root.join("tests/c"))
        .map_err(|error| format!("cannot read tests/c: {error}"))?;
    let mut sources: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    Ok(sources)
}

/// The shared library shows no symbol but `twinflash_…`.
fn only_ours(library: &Path) -> Outcome {
    let output = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(library)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run nm: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    let foreign: Vec<_> = names
        .iter()
        .filter(|name| !name.starts_with("twinflash_"))
        .collect();
    match (names.is_empty(), foreign.is_empty()) {
        (false, true) => Ok(()),
        (true, _) => Err(format!("{} shows no symbols", library.display())),
        _ => Err(format!("{} shows {foreign:?}", library.display())),
    }
}
