//! `cargo xtask bench node`: the Node package against what Node does by itself, on this machine, in one run.

use super::{Error, Server, make_image};
use crate::{node, test::Run};
use std::{fs, process::Command};

/// Measures, and prints what came out; whether it could be measured.
pub(crate) fn node(arguments: &[&str]) -> bool {
    let (mebibytes, runs) = match *arguments {
        [] => (Some(256), "7"),
        ["--mib", mebibytes] => (mebibytes.parse().ok(), "7"),
        ["--mib", mebibytes, "--runs", runs] => (mebibytes.parse().ok(), runs),
        _ => (None, ""),
    };
    let Some(mebibytes) = mebibytes else {
        eprintln!("bench node: the options are --mib N and then --runs N");
        return false;
    };
    match measure(mebibytes, runs) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("bench node: {error}");
            false
        }
    }
}

fn measure(mebibytes: u64, runs: &str) -> Result<(), Error> {
    let run = Run::new(false);
    // On the disk the build is on: a directory in memory would have nothing to sync.
    let directory = run.target.join("node-bench");
    let app = node::install_for_speed(&run, &directory)?;
    let image = directory.join("image.bin");
    let sha256 = make_image(&image, mebibytes)?;
    let server = Server::start(&directory)?;
    let url = format!("{}/image.bin", server.http);
    println!("{mebibytes} MiB from {}", server.name);
    let status = Command::new("node")
        .args(["bench.js", "all", &url, &sha256, runs])
        .current_dir(&app)
        .status()?;
    fs::remove_file(image)?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("bench.js: {status}").into())
    }
}
