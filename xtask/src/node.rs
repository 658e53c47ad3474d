//! The Node package: built, packed as for the registry, installed elsewhere, and tested there.

use crate::{
    python::environment,
    test::{self, Outcome, Run, execute},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The platform that is packed here, and its native parts' name in the packages.
const PLATFORM: &str = "linux-x64-gnu";

/// A package, and the one that has its native part for this platform.
struct Package {
    name: &'static str,
    directory: &'static str,
    /// The crate the native part is made of, what cargo calls it, and what the package does.
    made_of: &'static str,
    built: &'static str,
    file: &'static str,
}

const LIBRARY: Package = Package {
    name: "twinflash",
    directory: "node",
    made_of: "twinflash-node",
    built: "libtwinflash_node.so",
    file: "twinflash.linux-x64-gnu.node",
};

const COMMAND: Package = Package {
    name: "twinflash-cli",
    directory: "node/cli",
    made_of: "twinflash-cli",
    built: "twinflash",
    file: "twinflash",
};

/// The oldest glibc that what is published is for: the oldest that Rust itself is for.
const GLIBC: &str = "2.17";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Microsoft's SDKs, as the tests of the hub have them installed.
const SDKS: &[&str] = &[
    "azure-iot-common",
    "azure-iot-device",
    "azure-iot-device-mqtt",
    "azure-iothub",
    "mqtt",
];

/// Every test of `node/test` and every example, against the packed tarballs and a hub.
pub(crate) fn run(run: &Run) -> Outcome {
    let directory = run.target.join("node");
    let hub = test::hub(run)?;
    let built = build(run, "dev", &[LIBRARY])?;
    let mut packed = LIBRARY.pack(run, &directory.join("packed"), &built)?;
    packed.extend(COMMAND.pack(run, &directory.join("packed-cli"), &built)?);
    let app = install(run, &directory.join("app"), &packed)?;
    test::scenarios(run, &["node".as_ref(), &app.join("subject.js")], "")?;
    let mut node = test::own_network(run, "node");
    node.arg(app.join("run.js"))
        .env("TWINFLASH_HUB", hub)
        .env("TWINFLASH_ROOT", &run.root);
    if !run.quick {
        node.env("TWINFLASH_FULL", "1");
    }
    execute(&mut node)
}

/// As the tests have it installed, but built for speed.
pub(crate) fn install_for_speed(run: &Run, directory: &Path) -> Result<PathBuf, String> {
    let built = build(run, "release", &[LIBRARY])?;
    let packed = LIBRARY.pack(run, &directory.join("packed"), &built)?;
    install(run, &directory.join("app"), &packed)
}

/// `cargo xtask package-node DIRECTORY`: the tarballs as they are published, built for speed and for old systems.
pub(crate) fn package(directory: &str) -> Outcome {
    let run = Run::new(false);
    let to = run.root.join(directory);
    let requirements = run.root.join("node/packaging.txt");
    let python = environment(&run.target.join("package-node"), &requirements)?;
    let mut zigbuild = run.command(python.with_file_name("cargo-zigbuild"), &["zigbuild"]);
    zigbuild.args(["--release", "--locked", "--quiet", "--target"]);
    zigbuild.arg(format!("{TARGET}.{GLIBC}"));
    zigbuild.args(["-p", LIBRARY.made_of, "-p", COMMAND.made_of]);
    // Apart: zig compiles C code for the old glibc, and cargo would not tell the two by their flags.
    let target = run.target.join("package-node/target");
    zigbuild.env("CARGO_TARGET_DIR", &target);
    execute(zigbuild.env("CARGO_ZIGBUILD_PYTHON_PATH", &python))?;
    let built = target.join(TARGET).join("release");
    for package in [LIBRARY, COMMAND] {
        let packed = package.pack(&run, &to.join(package.name), &built)?;
        for tarball in packed {
            let moved = to.join(tarball.file_name().unwrap_or_default());
            fs::rename(&tarball, &moved)
                .map_err(|error| format!("{}: {error}", tarball.display()))?;
            println!("{}", moved.display());
        }
        let _ = fs::remove_dir_all(to.join(package.name));
        let needs = glibc(&run, &built.join(package.built))?;
        println!("{} needs glibc {}.{}", package.name, needs.0, needs.1);
        if needs > parse(GLIBC) {
            return Err(format!("{} is not for glibc {GLIBC}", package.built));
        }
    }
    Ok(())
}

/// "2.17" as numbers, to be compared.
fn parse(version: &str) -> (u32, u32) {
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let minor = minor.split('.').next().unwrap_or("0");
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// The newest version of glibc that a program or library asks for.
fn glibc(run: &Run, file: &Path) -> Result<(u32, u32), String> {
    let mut objdump = run.command("objdump", &["-T"]);
    let output = objdump.arg(file).output();
    let output = output.map_err(|error| format!("cannot run objdump: {error}"))?;
    let symbols = String::from_utf8_lossy(&output.stdout);
    let versions = symbols.split("GLIBC_").skip(1);
    let versions = versions.map(|rest| parse(rest.split(')').next().unwrap_or("").trim()));
    (versions.max()).ok_or_else(|| format!("{} names no glibc", file.display()))
}

/// Builds packages' native parts; the directory they are in.
fn build(run: &Run, profile: &str, packages: &[Package]) -> Result<PathBuf, String> {
    let mut build = run.cargo(&["build", "--quiet", "--profile", profile]);
    for package in packages {
        build.args(["-p", package.made_of]);
    }
    execute(&mut build)?;
    Ok(run.target.join(match profile {
        "dev" => "debug",
        other => other,
    }))
}

impl Package {
    /// Packs it and its native part, which is in `built`; the two tarballs.
    fn pack(&self, run: &Run, to: &Path, built: &Path) -> Result<Vec<PathBuf>, String> {
        fresh(to)?;
        let source = run.root.join(self.directory);
        let (platform, package) = (to.join(PLATFORM), to.join("package"));
        copy_all(&source.join("npm").join(PLATFORM), &platform)?;
        copy(&built.join(self.built), &platform.join(self.file))?;
        copy_all(&source, &package)?;
        if source.join("lib").is_dir() {
            copy_all(&source.join("lib"), &package.join("lib"))?;
        }
        // They build a clone's native part, and npm warns who installs a package that has some.
        let mut npm = run.command("npm", &["pkg", "delete", "scripts"]);
        execute(npm.current_dir(&package))?;
        for package in [&platform, &package] {
            for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
                copy(&run.root.join(licence), &package.join(licence))?;
            }
            let mut npm = run.command("npm", &["pack", "--silent", "--ignore-scripts"]);
            npm.arg("--pack-destination");
            execute(npm.arg(to).current_dir(package))?;
        }
        let (name, version) = (self.name, env!("CARGO_PKG_VERSION"));
        Ok(vec![
            to.join(format!("{name}-{PLATFORM}-{version}.tgz")),
            to.join(format!("{name}-{version}.tgz")),
        ])
    }
}

/// A project outside of ours, with the tarballs, the tests and the examples in it.
fn install(run: &Run, app: &Path, tarballs: &[PathBuf]) -> Result<PathBuf, String> {
    fresh(app)?;
    copy_all(&run.root.join("node/test"), app)?;
    copy_all(&run.root.join("examples/node"), &app.join("examples"))?;
    let quietly = ["--no-audit", "--no-fund", "--loglevel=error"];
    let npm = |arguments: &[&str], more: &[PathBuf]| {
        let mut npm: Command = run.command("npm", arguments);
        execute(npm.args(quietly).args(more).current_dir(app))
    };
    npm(&["ci", "--prefer-offline"], &[])?;
    npm(&["install", "--no-save", "--prefer-offline"], tarballs)?;
    let sdks = test::node_modules(run)?.join("node_modules");
    for sdk in SDKS {
        let link = app.join("node_modules").join(sdk);
        std::os::unix::fs::symlink(sdks.join(sdk), &link)
            .map_err(|error| format!("{}: {error}", link.display()))?;
    }
    Ok(app.to_path_buf())
}

fn fresh(directory: &Path) -> Outcome {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))
}

fn copy(from: &Path, to: &Path) -> Outcome {
    fs::copy(from, to).map(drop).map_err(|error| {
        let (from, to) = (from.display(), to.display());
        format!("cannot copy {from} to {to}: {error}")
    })
}

/// The files of a directory, without those in directories below it.
fn copy_all(from: &Path, to: &Path) -> Outcome {
    let wrong = |error| format!("{}: {error}", from.display());
    fs::create_dir_all(to).map_err(wrong)?;
    for entry in fs::read_dir(from).map_err(wrong)? {
        let entry = entry.map_err(wrong)?;
        if entry.file_type().map_err(wrong)?.is_file() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
