//! The Node package: built, packed as for the registry, installed elsewhere, and tested there.

use crate::test::{self, Outcome, Run, execute};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The platform that is packed here, and its native part's name in the package.
const PLATFORM: &str = "linux-x64-gnu";

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
    let packed = pack(run, &directory.join("packed"), "dev")?;
    let app = install(run, &directory.join("app"), &packed)?;
    test::scenarios(run, &["node".as_ref(), &app.join("subject.js")])?;
    let hub = test::hub(run)?;
    let mut node = test::own_network(run, "node");
    node.arg(app.join("run.js"))
        .env("TWINFLASH_HUB", hub)
        .env("TWINFLASH_ROOT", &run.root);
    if !run.quick {
        node.env("TWINFLASH_FULL", "1");
    }
    execute(&mut node)
}

/// `cargo xtask package-node DIRECTORY`: the tarballs as they are published, built for speed.
pub(crate) fn package(directory: &str) -> Outcome {
    let run = Run::new(false);
    let packed = pack(&run, &run.root.join(directory), "release")?;
    for tarball in packed {
        println!("{}", tarball.display());
    }
    Ok(())
}

/// Builds the native part and packs it and the package; returns the two tarballs.
fn pack(run: &Run, to: &Path, profile: &str) -> Result<Vec<PathBuf>, String> {
    let build = [
        "build",
        "--quiet",
        "-p",
        "twinflash-node",
        "--profile",
        profile,
    ];
    execute(&mut run.cargo(&build))?;
    let built = match profile {
        "dev" => "debug",
        other => other,
    };
    let library = run.target.join(built).join("libtwinflash_node.so");
    fresh(to)?;
    let platform = to.join(PLATFORM);
    copy_all(&run.root.join("node/npm").join(PLATFORM), &platform)?;
    copy(
        &library,
        &platform.join(format!("twinflash.{PLATFORM}.node")),
    )?;
    for package in [platform.as_path(), &run.root.join("node")] {
        let mut npm = run.command("npm", &["pack", "--silent", "--pack-destination"]);
        execute(npm.arg(to).current_dir(package))?;
    }
    let version = env!("CARGO_PKG_VERSION");
    Ok(vec![
        to.join(format!("twinflash-{PLATFORM}-{version}.tgz")),
        to.join(format!("twinflash-{version}.tgz")),
    ])
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
