//! `cargo xtask package-python DIRECTORY`: what is published for Python.

use super::environment;
use crate::test::{Outcome, Run, execute};
use std::{env, fs, path::Path};
/// The platform's name with the oldest glibc the wheels are for: 2.17, the oldest that Rust itself is for.
const COMPATIBILITY: &str = "manylinux2014";

/// The package and the command: of each the source distribution, and a wheel for old and new systems; made sure of, installed in a fresh
/// environment each.
pub(crate) fn package(directory: &str) -> Outcome {
    let run = Run::new(false);
    let out = run.root.join(directory);
    let requirements = run.root.join("python/packaging.txt");
    let python = environment(&run.target.join("package-python"), &requirements)?;
    let mut built = Vec::new();
    for (name, crate_of) in [("twinflash", "python"), ("twinflash_cli", "cli")] {
        let manifest = format!("{crate_of}/Cargo.toml");
        let maturin = |command: &str| {
            let mut maturin = run.command(&python, &["-m", "maturin", command]);
            maturin.args(["--manifest-path", &manifest]);
            maturin.arg("--out").arg(&out);
            maturin
        };
        execute(&mut maturin("sdist"))?;
        let mut wheel = maturin("build");
        wheel.args([
            "--release",
            "--locked",
            "--zig",
            "--compatibility",
            COMPATIBILITY,
        ]);
        // It asks this one for `python -m ziglang`.
        wheel.env("CARGO_ZIGBUILD_PYTHON_PATH", &python);
        // Apart: zig compiles C code for the old glibc, and cargo would not tell the two by their flags.
        execute(
            wheel
                .arg("--target-dir")
                .arg(run.target.join("package-python/target")),
        )?;
        let version = env!("CARGO_PKG_VERSION");
        let files = fs::read_dir(&out).map_err(|error| format!("{}: {error}", out.display()))?;
        let wheel = files
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.starts_with(&format!("{name}-{version}-")) && file.ends_with(".whl")
            })
            .ok_or_else(|| format!("maturin built no wheel of {name}"))?;
        execute(
            run.command(&python, &["-m", "auditwheel", "show"])
                .arg(&wheel),
        )?;
        built.push(wheel);
        built.push(out.join(format!("{name}-{version}.tar.gz")));
    }
    try_out(&run, &out)?;
    for file in built {
        println!("{}", file.display());
    }
    Ok(())
}

/// Both wheels as somebody who has nothing else installs them.
fn try_out(run: &Run, wheels: &Path) -> Outcome {
    let place = run.target.join("package-python/fresh");
    let system = env::var_os("PYTHON").unwrap_or("python3".into());
    execute(run.command(&system, &["-m", "venv", "--clear"]).arg(&place))?;
    let fresh = place.join("bin/python");
    let mut pip = run.command(&fresh, &["-m", "pip", "install", "--quiet"]);
    pip.args(["--disable-pip-version-check", "--no-index", "--find-links"]);
    execute(pip.arg(wheels).arg("twinflash[cli]"))?;
    let code = "import twinflash; print(twinflash.__version__, twinflash.guard('/nowhere'))";
    execute(&mut run.command(&fresh, &["-c", code]))?;
    execute(&mut run.command(place.join("bin/twinflash"), &["demo"]))
}
