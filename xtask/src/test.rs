//! The one test command: a list of steps. All are run, whatever fails; the last line counts them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

pub(crate) type Outcome = Result<(), String>;

struct Step {
    name: &'static str,
    /// Left out by `--quick`.
    slow: bool,
    run: fn(&Run) -> Outcome,
}

const STEPS: &[Step] = &[
    step("format", format),
    step("clippy", clippy),
    step("each feature by itself", features),
    step("tests", tests),
    step("the library for boards, driven from C", crate::sansio::run),
    step("C library, driven from C and C++", c_library),
    slow("documentation", documentation),
    slow("dependencies", dependencies),
    slow("the unmodified Azure SDKs for Python", sdk_python),
    slow("the unmodified Azure SDKs for Node", sdk_node),
    slow("the tutorials' back ends", tutorials),
    slow("the Python package", python_package),
    slow("the Node package", crate::node::run),
];

const fn step(name: &'static str, run: fn(&Run) -> Outcome) -> Step {
    Step {
        name,
        slow: false,
        run,
    }
}

const fn slow(name: &'static str, run: fn(&Run) -> Outcome) -> Step {
    Step {
        name,
        slow: true,
        run,
    }
}

/// What every step needs to know.
pub(crate) struct Run {
    /// The workspace.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    pub(crate) quick: bool,
}

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// Installs the C library.
pub(crate) fn install(options: &[&str]) -> Outcome {
    let run = Run::new(false);
    let options = crate::install::Options::parse(options)?;
    crate::install::run(&run.root, &run.target, &options)
}

/// The step of the C library alone.
pub(crate) fn c() -> Outcome {
    c_library(&Run::new(false))
}

/// Runs the steps; says whether all passed.
pub(crate) fn run(quick: bool) -> bool {
    let run = Run::new(quick);
    let steps: Vec<_> = STEPS.iter().filter(|step| !(quick && step.slow)).collect();
    let mut done = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        println!("\n==== {}/{} {}", index + 1, steps.len(), step.name);
        let start = Instant::now();
        let outcome = (step.run)(&run);
        let time = start.elapsed();
        println!("==== {}", line(step.name, &outcome, time));
        done.push((step.name, outcome, time));
    }
    println!();
    for (name, outcome, time) in &done {
        println!("{}", line(name, outcome, *time));
    }
    let failed = done
        .iter()
        .filter(|(_, outcome, _)| outcome.is_err())
        .count();
    println!("{} passed, {failed} failed", done.len() - failed);
    failed == 0
}

fn line(name: &str, outcome: &Outcome, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match outcome {
        Ok(()) => format!("ok     {seconds:6.1} s  {name}"),
        Err(why) => format!("FAILED {seconds:6.1} s  {name}: {why}"),
    }
}

impl Run {
    pub(crate) fn new(quick: bool) -> Self {
        let root = root();
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
        Self {
            target: root.join(target),
            root,
            quick,
        }
    }

    /// A command, run in the workspace.
    pub(crate) fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).current_dir(&self.root);
        command
    }

    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        self.command(
            env::var_os("CARGO").unwrap_or("cargo".into()).as_ref() as &Path,
            arguments,
        )
    }
}

/// Runs a command, its output going where ours goes.
pub(crate) fn execute(command: &mut Command) -> Outcome {
    let shown = shown(command);
    println!("$ {shown}");
    ended(&shown, command.status())
}

/// Runs a command beside others: its output is shown whole when it has ended.
fn execute_quietly(command: &mut Command) -> Outcome {
    let shown = shown(command);
    let output = command.output();
    if let Ok(output) = &output {
        let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
        println!("$ {shown}\n{out}{err}");
    }
    ended(&shown, output.map(|output| output.status))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let mut shown = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown = format!("{shown} {}", argument.to_string_lossy());
    }
    shown
}

fn ended(shown: &str, status: std::io::Result<ExitStatus>) -> Outcome {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("cannot run {shown}: {error}")),
    }
}

use crate::sansio::MANIFEST as SANSIO;
const LIBFUZZER: &str = "fuzz/libfuzzer/Cargo.toml";

fn format(run: &Run) -> Outcome {
    execute(&mut run.cargo(&["fmt", "--all", "--check"]))?;
    execute(&mut run.cargo(&["fmt", "--manifest-path", SANSIO, "--check"]))?;
    execute(&mut run.cargo(&["fmt", "--manifest-path", LIBFUZZER, "--check"]))
}

fn clippy(run: &Run) -> Outcome {
    execute(&mut run.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The core builds with no std, and with each feature alone.
fn features(run: &Run) -> Outcome {
    for features in [
        &[][..],
        &["--features=std"],
        &["--features=http"],
        &["--features=mqtt"],
        &["--features=compression"],
        &["--features=encryption"],
        &["--features=windows"],
        &["--features=rustcrypto"],
        &["--features=std,rustcrypto"],
    ] {
        let mut command = run.cargo(&["clippy", "-p", "twinflash", "--no-default-features"]);
        execute(
            command
                .args(features)
                .args(["--quiet", "--", "-D", "warnings"]),
        )?;
    }
    for features in [
        &[][..],
        &["--features=http"],
        &["--features=mqtt"],
        &["--features=signed"],
    ] {
        let mut command = run.cargo(&["clippy", "-p", "twinflash-c", "--no-default-features"]);
        execute(
            command
                .args(features)
                .args(["--quiet", "--", "-D", "warnings"]),
        )?;
    }
    // A whole update where there is no HTTP client, without and with signatures.
    for features in ["--features=std", "--features=std,rustcrypto"] {
        let mut command = run.cargo(&["test", "-p", "twinflash", "--no-default-features"]);
        execute(command.args([features, "--test=offered", "--quiet"]))?;
    }
    Ok(())
}

/// All tests and the examples in the documentation. Where tests can do more or less of the same, the
/// full run asks for more by `TWINFLASH_FULL=1`. Most of them wait more than they compute: once they are
/// built, groups of them run beside each other.
fn tests(run: &Run) -> Outcome {
    const GROUPS: [&[&str]; 3] = [&["--lib", "--bins"], &["--test=[a-i]*"], &["--test=[j-z]*"]];
    let cargo = |arguments: &[&str]| {
        let mut command = run.cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
        command.arg("--quiet").args(arguments);
        if !run.quick {
            command.env("TWINFLASH_FULL", "1");
        }
        command
    };
    execute(&mut cargo(&["--no-run"]))?;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = GROUPS
            .iter()
            .map(|group| scope.spawn(|| execute_quietly(&mut cargo(group))))
            .collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .map(|outcome| outcome.unwrap_or_else(|_| Err("a thread has panicked".into())))
            .collect()
    });
    let documented = execute(&mut cargo(&["--doc"]));
    outcomes.into_iter().chain([documented]).collect()
}

fn c_library(run: &Run) -> Outcome {
    crate::c::run(run)
}

fn documentation(run: &Run) -> Outcome {
    let mut command = run.cargo(&[
        "doc",
        "--workspace",
        "--all-features",
        "--no-deps",
        "--quiet",
    ]);
    execute(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// What `deny.toml` says of dependencies. Advisories are left out: their database is on GitHub,
/// which a build may not reach.
fn dependencies(run: &Run) -> Outcome {
    if !run
        .cargo(&["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return Err("cargo-deny is missing: cargo install cargo-deny --locked".into());
    }
    let check = ["check", "bans", "licenses", "sources"];
    execute(run.cargo(&["deny"]).args(check))?;
    // Fewer dependencies, under the same rules: not every rule has something to say.
    let allow = [
        "-A",
        "unmatched-skip",
        "-A",
        "unnecessary-skip",
        "-A",
        "license-not-encountered",
    ];
    execute(
        run.cargo(&["deny", "--manifest-path", SANSIO])
            .args(check)
            .args(allow),
    )
}

/// Microsoft's SDKs, device's and service's, against `twinflash hub`.
fn sdk_python(run: &Run) -> Outcome {
    pytest(run, "tests/sdk/python")
}

/// Runs the tests in Python of a directory.
fn pytest(run: &Run, tests: &str) -> Outcome {
    let python = python(run)?;
    let hub = hub(run)?;
    execute(
        own_network(run, &python.to_string_lossy())
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", tests])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("TWINFLASH_HUB", hub),
    )
}

/// A Python that has what the tests in Python need.
fn python(run: &Run) -> Result<PathBuf, String> {
    let wanted = run.root.join("tests/sdk/python/requirements.txt");
    crate::python::environment(&run.target.join("sdk-python"), &wanted)
}

/// The Python package as a wheel, installed where nothing else of ours is.
pub(crate) fn python_package(run: &Run) -> Outcome {
    let hub = hub(run)?;
    let package = crate::python::Package {
        root: &run.root,
        target: &run.target,
    };
    let python = package.install()?;
    let subject = run.root.join("python/tests/subject.py");
    scenarios(run, &[&python, &subject], "")?;
    package.types(&python)?;
    let python = python.to_string_lossy();
    let apart = may_have_network(run);
    let command = || {
        let mut python = own_network(run, &python);
        python.env("TWINFLASH_HUB", &hub);
        if !run.quick {
            python.env("TWINFLASH_FULL", "1");
        }
        python
    };
    package.test(&command, apart)
}

/// Every scenario of `tests/scenarios`, played with a program in place of the Rust updater, but for those of which it was
/// built `without` the part; no part of the command may have a space in it.
pub(crate) fn scenarios(run: &Run, subject: &[&Path], without: &str) -> Outcome {
    let subject: Vec<_> = subject.iter().map(|part| part.to_string_lossy()).collect();
    // As the step that runs all tests builds them.
    let mut command = run.cargo(&["test", "--workspace", "--all-features", "--quiet"]);
    command.args(["--test", "scenarios", "--", "--nocapture"]);
    command.env("TWINFLASH_SUBJECT", subject.join(" "));
    execute(command.env("TWINFLASH_SUBJECT_WITHOUT", without))
}

/// The same for Node, whose service SDK knows no port but 443.
fn sdk_node(run: &Run) -> Outcome {
    let tests = node_modules(run)?;
    let hub = hub(run)?;
    let mut node = own_network(run, "node");
    node.arg(tests.join("run.js")).env("TWINFLASH_HUB", hub);
    execute(&mut node)
}

/// The tutorials' back ends against the hub and the agent.
fn tutorials(run: &Run) -> Outcome {
    node_modules(run)?;
    pytest(run, "tests/tutorials")
}

/// Installs the SDKs for Node; returns the directory they are installed in.
pub(crate) fn node_modules(run: &Run) -> Result<PathBuf, String> {
    let tests = run.root.join("tests/sdk/node");
    let lock = tests.join("package-lock.json");
    let wanted = fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    let installed = tests.join("node_modules/installed.json");
    if fs::read(&installed).ok().as_ref() != Some(&wanted) {
        let npm = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        execute(run.command("npm", &npm).current_dir(&tests))?;
        fs::write(&installed, &wanted)
            .map_err(|error| format!("{}: {error}", installed.display()))?;
    }
    Ok(tests)
}

/// The command, as the step that runs all tests builds it: what it depends on is not built for it once more.
pub(crate) fn twinflash(run: &Run) -> Result<PathBuf, String> {
    // cargo builds a package's programs for its tests.
    let mut build = run.cargo(&["test", "--workspace", "--all-features", "--quiet"]);
    execute(build.args(["--no-run", "--test", "simulate"]))?;
    Ok(run.target.join("debug/twinflash"))
}

/// The command that starts a hub.
pub(crate) fn hub(run: &Run) -> Result<String, String> {
    Ok(format!("{} hub --json", twinflash(run)?.display()))
}

/// A program in a network of its own, where every port is free and may be used; where the system does not allow one, in ours.
pub(crate) fn own_network(run: &Run, program: &str) -> Command {
    if !may_have_network(run) {
        return run.command(program, &[]);
    }
    let mut command = run.command("unshare", ENTER);
    command.args([&format!("{UP} && exec \"$@\""), "sh", program]);
    command
}

const ENTER: &[&str] = &["--map-root-user", "--net", "sh", "-c"];
const UP: &str = "ip link set lo up";

/// Whether the system allows a network of one's own.
fn may_have_network(run: &Run) -> bool {
    let entered = run.command("unshare", ENTER).arg(UP).output();
    entered.is_ok_and(|output| output.status.success())
}
