//! Everything that is released, made from what is committed, into one directory.
//!
//! The same commit gives the same bytes, with the same toolchain, wherever it lies: sources are taken out of git, paths
//! are cut out of what is compiled, and what has a time gets the commit's.

use crate::{
    c, python,
    test::{Outcome, Run, execute},
};
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The crates that are published, each after those it needs.
const CRATES: &[&str] = &["twinflash", "twinflash-hub", "twinflash-cli"];
/// What is shipped compiled: each has a bill of materials of its own.
const SHIPPED: &[(&str, &str)] = &[
    ("twinflash-cli", "cli"),
    ("twinflash-c", "bindings"),
    ("twinflash-python", "python"),
    ("twinflash-node", "node"),
];
/// What goes with the command.
const WITH_THE_COMMAND: &[&str] = &[
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs",
    "examples/agent",
];
const VERSION: &str = env!("CARGO_PKG_VERSION");

struct Release {
    /// What is committed, and nothing else.
    tree: PathBuf,
    /// Where it is built: kept from one time to the next.
    target: PathBuf,
    /// Where what is released goes.
    to: PathBuf,
    /// The commit's time, in seconds since 1970.
    time: String,
    rustflags: String,
}

type Part = fn(&Release) -> Outcome;

/// In the order in which they are made.
const PARTS: &[(&str, Part)] = &[
    ("bills", Release::bills),
    ("crates", Release::crates),
    ("command", Release::command),
    ("python", Release::python),
    ("node", Release::node),
    ("debian", Release::debian),
    ("sizes", Release::sizes),
    ("cinstall", Release::cinstall),
];

/// `cargo xtask package DIRECTORY [--only WORD]`
pub(crate) fn run(directory: &str, only: &str) -> Outcome {
    let run = Run::new(false);
    let known = run.cargo(&["cyclonedx", "--version"]).output();
    if !known.is_ok_and(|output| output.status.success()) {
        return Err("cargo-cyclonedx is missing: cargo install cargo-cyclonedx --locked".into());
    }
    let to = run.root.join(directory);
    if fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty", to.display()));
    }
    fs::create_dir_all(&to).map_err(|error| format!("{}: {error}", to.display()))?;
    let release = Release::of_the_commit(&run, to)?;
    for (_, part) in PARTS.iter().filter(|(name, _)| name.contains(only)) {
        part(&release)?;
    }
    release.sums()
}

impl Release {
    fn of_the_commit(run: &Run, to: PathBuf) -> Result<Self, String> {
        if !output(&mut run.command("git", &["status", "--porcelain"]))?.is_empty() {
            println!("there are changes that are not committed: they are not in what is released");
        }
        let time = output(&mut run.command("git", &["log", "-1", "--format=%ct"]))?;
        let place = run.target.join("package-release");
        let tree = place.join("tree");
        let _ = fs::remove_dir_all(&tree);
        let source = to.join(format!("twinflash-{VERSION}-source.tar.gz"));
        let prefix = format!("--prefix=twinflash-{VERSION}/");
        let archive = ["archive", "--format=tar.gz", &prefix, "-o"];
        execute(run.command("git", &archive).arg(&source).arg("HEAD"))?;
        fs::create_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
        let mut unpack = run.command("tar", &["--strip-components=1", "-xzf"]);
        execute(unpack.arg(&source).arg("-C").arg(&tree))?;
        let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
        let cargo = cargo.or(env::home_dir().map(|home| home.join(".cargo")));
        let cargo = cargo.ok_or("there is no home directory")?;
        let rustflags = format!(
            "--remap-path-prefix={}=/twinflash --remap-path-prefix={}=/cargo",
            tree.display(),
            cargo.display()
        );
        Ok(Self {
            tree,
            target: place.join("target"),
            to,
            time,
            rustflags,
        })
    }

    /// A command in what is committed.
    fn run(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_INCREMENTAL", "0")
            .env("RUSTFLAGS", &self.rustflags)
            .env("SOURCE_DATE_EPOCH", &self.time);
        command
    }

    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = self.run(env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(arguments);
        command
    }

    /// A part that has a command of its own.
    fn xtask(&self, part: &str) -> Outcome {
        let made = self.target.join("made").join(part);
        let _ = fs::remove_dir_all(&made);
        let mut cargo = self.cargo(&["run", "--quiet", "--locked", "-p", "xtask", "--", part]);
        execute(cargo.arg(&made))?;
        self.take(&made)
    }

    fn python(&self) -> Outcome {
        self.xtask("package-python")
    }

    fn node(&self) -> Outcome {
        self.xtask("package-node")
    }

    /// The C libraries keep to their budgets.
    fn sizes(&self) -> Outcome {
        let bench = [
            "run", "--quiet", "--locked", "-p", "xtask", "--", "bench", "c", "--sizes",
        ];
        execute(&mut self.cargo(&bench))
    }

    /// `cargo cinstall` installs what `cargo xtask install` does.
    fn cinstall(&self) -> Outcome {
        let place = self.target.join("cinstall");
        let _ = fs::remove_dir_all(&place);
        let mut install = self.cargo(&["cinstall", "--locked", "--release"]);
        install.args(["-p", "twinflash-c", "--prefix"]).arg(&place);
        execute(install.arg("--libdir").arg(place.join("lib")))
            .map_err(|why| format!("{why} (it takes cargo install cargo-c --locked)"))?;
        self.build_command()?;
        c::by_cargo_c(&self.tree, &place, &self.target.join("release/twinflash"))
    }

    fn debian(&self) -> Outcome {
        self.xtask("package-deb")
    }

    /// Takes the files out of a directory.
    fn take(&self, from: &Path) -> Outcome {
        let failed = |error| format!("{}: {error}", from.display());
        for entry in fs::read_dir(from).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default();
                fs::copy(&path, self.to.join(name)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// As crates.io takes them, and built from what it would have.
    fn crates(&self) -> Outcome {
        let made = self.target.join("package");
        let _ = fs::remove_dir_all(&made);
        let mut package = self.cargo(&["package", "--quiet", "--locked"]);
        execute(package.args(CRATES.iter().flat_map(|name| ["-p", name])))?;
        self.take(&made)
    }

    fn build_command(&self) -> Outcome {
        let build = ["build", "--quiet", "--locked", "--release", "-p"];
        execute(self.cargo(&build).arg("twinflash-cli"))
    }

    fn command(&self) -> Outcome {
        self.build_command()?;
        let host = output(self.run("rustc").args(["--print", "host-tuple"]))?;
        let name = format!("twinflash-{VERSION}-{host}");
        let place = self.target.join(&name);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(place.join("examples"))
            .map_err(|error| format!("{}: {error}", place.display()))?;
        for file in WITH_THE_COMMAND {
            let mut copy = self.run("cp");
            execute(copy.arg("-r").arg(file).arg(place.join(file)))?;
        }
        let mut strip = self.run("strip");
        strip.arg("-o").arg(place.join("twinflash"));
        execute(strip.arg(self.target.join("release/twinflash")))?;
        let mut pack = self.run("tar");
        pack.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
            .args(["--mode=u+rw,go=rX,go-w", &format!("--mtime=@{}", self.time)])
            .args(["--use-compress-program=gzip -n9", "-cf"])
            .arg(self.to.join(format!("{name}.tar.gz")))
            .arg("-C")
            .arg(&self.target)
            .arg(&name);
        execute(&mut pack)
    }

    fn tools(&self) -> Result<PathBuf, String> {
        let wanted = self.tree.join("xtask/requirements.txt");
        python::environment(&self.target.join("tools"), &wanted)
    }

    /// What each thing is made of, as CycloneDX has it; that it is all there is looked at twice.
    fn bills(&self) -> Outcome {
        let tools = self.tools()?;
        for (package, directory) in SHIPPED {
            let manifest = format!("{directory}/Cargo.toml");
            let made = self
                .tree
                .join(directory)
                .join(format!("{package}.cdx.json"));
            let mut cyclonedx = self.cargo(&["cyclonedx", "--quiet", "--manifest-path"]);
            cyclonedx.args([&manifest, "--format", "json", "--spec-version", "1.5"]);
            execute(&mut cyclonedx)?;
            let failed = |error| format!("{}: {error}", made.display());
            let bill = fs::read_to_string(&made).map_err(failed)?;
            let bill = bill.replace(&*self.tree.to_string_lossy(), "/twinflash");
            self.is_complete(package, &bill)?;
            let bill_of = self.to.join(format!("{package}-{VERSION}.cdx.json"));
            fs::write(&bill_of, bill).map_err(failed)?;
            let mut check = self.run(&tools);
            execute(check.args(["-c", CHECK]).arg(&bill_of))?;
        }
        Ok(())
    }

    /// Whether a bill of materials has all that cargo would link into a package or run to build it.
    fn is_complete(&self, package: &str, bill: &str) -> Outcome {
        let bill: Value = serde_json::from_str(bill).map_err(|error| error.to_string())?;
        let listed = |name: &str, version: &str| {
            let components = bill.pointer("/components").and_then(Value::as_array);
            let mut components = components.into_iter().flatten();
            components.any(|it| it["name"] == name && it["version"] == version)
        };
        let tree = [
            "tree",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "-p",
        ];
        let tree = output(self.cargo(&tree).arg(package))?;
        for line in tree.lines().skip(1) {
            let mut words = line.split(' ');
            if let (Some(name), Some(version)) = (words.next(), words.next())
                && !listed(name, version.trim_start_matches('v'))
            {
                return Err(format!("{name} {version} is not in the bill of {package}"));
            }
        }
        Ok(())
    }

    fn sums(&self) -> Outcome {
        let script = "LC_ALL=C; export LC_ALL; sha256sum -- * > ../sums && mv ../sums SHA256SUMS && cat SHA256SUMS";
        let script = script.replace("../sums", &self.target.join("sums").to_string_lossy());
        execute(self.run("sh").args(["-c", &script]).current_dir(&self.to))
    }
}

/// Checks a bill of materials against CycloneDX's own schema.
const CHECK: &str = "\
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(wrong and f'{sys.argv[1]}: {wrong}')
";

/// What a command prints, without the end of its last line.
fn output(command: &mut Command) -> Result<String, String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {shown}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{shown}: {}: {errors}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned())
}
