//! The C library, driven by programs in C and C++.

mod examples;
mod servers;
pub(crate) mod tsan;

use crate::{header, install, test};
use servers::Servers;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

type Outcome = Result<(), String>;

/// What warns, stops: our header must not warn in anybody's program.
const STRICT: &[&str] = &[
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Werror",
    "-g",
    "-D_POSIX_C_SOURCE=200809L",
    "-pthread",
];

/// How the programs are made and run.
struct Way {
    compiler: &'static str,
    arguments: &'static [&'static str],
    /// Whether the library is linked statically.
    linked_in: bool,
    /// What runs the program.
    under: &'static [&'static str],
    /// The programs that are run; all are where this is `None`.
    only: Option<&'static [&'static str]>,
}

const WAYS: &[Way] = &[
    Way {
        compiler: "gcc",
        arguments: &["-std=c99"],
        linked_in: false,
        under: &[
            "valgrind",
            "--quiet",
            "--error-exitcode=9",
            "--num-callers=40",
            "--leak-check=full",
            "--suppressions=tests/c/valgrind.supp",
            "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite",
        ],
        only: None,
    },
    Way {
        compiler: "clang",
        arguments: &[
            "-std=c11",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
        ],
        linked_in: true,
        under: &[],
        only: None,
    },
    Way {
        compiler: "g++",
        arguments: &["-std=c++17", "-x", "c++"],
        linked_in: true,
        under: &[],
        only: Some(&["arguments", "policy"]),
    },
];

/// Every program of `tests/c`, in every way.
pub(crate) fn run(run: &test::Run) -> Outcome {
    let (root, target, execute) = (run.root.as_path(), run.target.as_path(), &test::execute);
    header::run(root, true)?;
    let in_root = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(root);
        command
    };
    let twinflash = test::twinflash(run)?;
    let programs = target.join("c");
    // The tests take what a user would have, and so prove the installation.
    let options = install::Options {
        prefix: &programs,
        destination: Path::new("/"),
        libraries: "lib",
        profile: "dev",
        features: None,
    };
    install::run(root, target, &options)?;
    let built = programs.join("lib");
    installed(root, &programs)?;
    let servers = Servers::start(&twinflash)?;
    examples::run(root, &programs, &servers, execute)?;
    drop(servers);
    for way in WAYS {
        // A hub that has seen nothing yet.
        let servers = Servers::start(&twinflash)?;
        for source in sources(root)? {
            let name = source.file_stem().unwrap_or_default().to_string_lossy();
            let program = programs.join(format!("{name}-{}", way.compiler));
            let mut compile = in_root(way.compiler.as_ref());
            compile.args(STRICT).args(way.arguments);
            compile.arg("-I").arg(programs.join("include"));
            compile.arg(&source).args(["-x", "none"]);
            if way.linked_in {
                compile.arg(built.join("libtwinflash.a"));
                compile.args(["-lpthread", "-ldl", "-lm"]);
            } else {
                compile.arg("-L").arg(&built).arg("-ltwinflash");
                compile.arg(format!("-Wl,-rpath,{}", built.display()));
            }
            execute(compile.arg("-o").arg(&program))?;
            if way.only.is_some_and(|only| !only.contains(&&*name)) {
                continue;
            }
            let report = program.with_extension("report");
            let mut run = match way.under {
                [] => in_root(&program),
                [runner, options @ ..] => {
                    let mut run = in_root(runner.as_ref());
                    run.arg(format!("--log-file={}", report.display()));
                    run.args(options).arg(&program);
                    run
                }
            };
            run.envs(servers.environment());
            run.arg(servers.directory(&name)?);
            execute(&mut run).map_err(|why| match (way.under, fs::read_to_string(&report)) {
                ([_, ..], Ok(found)) => format!("{why}\n{found}"),
                _ => why,
            })?;
        }
    }
    scenarios(run, &programs)
}

/// The scenarios of every language, by a program on the C library.
fn scenarios(run: &test::Run, programs: &Path) -> Outcome {
    let subject = programs.join("subject");
    let mut compile = run.command("gcc", STRICT);
    compile
        .args([
            "-std=c99",
            "tests/c/scenarios/subject.c",
            "-ltwinflash",
            "-lcjson",
        ])
        .arg(format!("-I{}", programs.join("include").display()))
        .arg(format!("-L{0}", programs.join("lib").display()))
        .arg(format!("-Wl,-rpath,{}", programs.join("lib").display()))
        .arg("-o")
        .arg(&subject);
    test::execute(&mut compile)?;
    test::scenarios(run, &[&subject], "compression")
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

/// What an installation must be, whoever made it: the shared library has its soname and shows no symbol but ours, the
/// header and the configuration's keys are the committed ones, and pkg-config says the version and what the static library needs.
fn installed(root: &Path, prefix: &Path) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let library = prefix.join("lib/libtwinflash.so");
    only_ours(&library)?;
    let dynamic = said(Command::new("readelf").arg("-d").arg(&library))?;
    let soname = format!(
        "Library soname: [libtwinflash.so.{}]",
        install::abi(version)
    );
    has(&dynamic, &soname, &library)?;
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    for (file, source) in [
        ("include/twinflash.h", "include/twinflash.h"),
        (install::KEYS, "examples/agent/twinflash.toml"),
    ] {
        if read(&prefix.join(file))? != read(&root.join(source))? {
            return Err(format!("{file} is not {source}"));
        }
    }
    let pc = prefix.join("lib/pkgconfig/twinflash.pc");
    let ask = |what: &[&str]| said(Command::new("pkg-config").args(what).arg(&pc));
    has(&ask(&["--modversion"])?, version, &pc)?;
    has(&ask(&["--static", "--libs"])?, install::PRIVATE, &pc)
}

fn has(text: &str, wanted: &str, of: &Path) -> Outcome {
    match text.contains(wanted) {
        true => Ok(()),
        false => Err(format!("{}: no {wanted} in {text}", of.display())),
    }
}

/// As `cargo cinstall` has installed it; `twinflash` is the command, for the hub.
pub(crate) fn by_cargo_c(root: &Path, prefix: &Path, twinflash: &Path) -> Outcome {
    installed(root, prefix)?;
    examples::by_pkg_config(root, prefix, &Servers::start(twinflash)?, &test::execute)
}

/// The shared library shows no symbol but `twinflash_…`.
pub(crate) fn only_ours(library: &Path) -> Outcome {
    let text = said(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(library),
    )?;
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

/// What a program prints.
fn said(command: &mut Command) -> Result<String, String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {shown}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
