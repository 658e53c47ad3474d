//! Debian packages: the library, what is needed to build with it, and the agent.

use crate::{
    install,
    test::{Outcome, Run, execute},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const MAINTAINER: &str = "The twinflash maintainers <maintainers@twinflash.invalid>";

struct Package {
    name: String,
    section: &'static str,
    depends: String,
    description: &'static str,
    /// Files of its own, below the root; each from a file that is there.
    files: Vec<(PathBuf, String, u32)>,
    /// Links, and what they lead to.
    links: Vec<(String, String)>,
    /// Files of the `DEBIAN` directory.
    control: Vec<(&'static str, &'static str, u32)>,
}

/// systemd learns of the unit; the service is not started: its configuration is the owner's to write first.
const AFTER: &str =
    "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
const BEFORE: &str = "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then\n\
                      \tsystemctl --no-reload disable --now twinflash.service || true\nfi\n";

/// Makes them in `directory`, for this machine's architecture. `profile` is cargo's.
pub(crate) fn package(directory: &str, profile: &str) -> Outcome {
    let run = &Run::new(false);
    let directory = Path::new(directory);
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let built = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
    let options = install::Options {
        prefix: Path::new("/usr"),
        destination: built.path(),
        profile,
    };
    install::run(&run.root, &run.target, &options)?;
    execute(&mut run.cargo(&[
        "build",
        "--quiet",
        "-p",
        "twinflash-cli",
        "--profile",
        profile,
    ]))?;
    let agent = run
        .target
        .join(install::directory(profile))
        .join("twinflash");
    let architecture = Command::new("dpkg").arg("--print-architecture").output();
    let architecture = architecture.map_err(|error| format!("cannot run dpkg: {error}"))?;
    let architecture = String::from_utf8_lossy(&architecture.stdout)
        .trim()
        .to_owned();
    for package in packages(run, built.path(), agent) {
        build(run, &package, &architecture, directory)?;
    }
    Ok(())
}

fn packages(run: &Run, built: &Path, agent: PathBuf) -> [Package; 3] {
    let version = env!("CARGO_PKG_VERSION");
    let abi = install::abi(version);
    let of = |names: &[&str]| {
        let names = names.iter();
        names
            .map(|name| (built.join(name), (*name).to_owned(), 0o644))
            .collect::<Vec<_>>()
    };
    let shared = format!("usr/lib/libtwinflash.so.{version}");
    let example = |name: &str| run.root.join("examples/agent").join(name);
    [
        Package {
            name: format!("libtwinflash{abi}"),
            section: "libs",
            depends: "libc6 (>= 2.34), libgcc-s1".into(),
            description: "firmware updates for devices on Azure IoT Hub, the library\n \
                          Downloads, verifies and installs an image, through power cuts and bad networks,\n \
                          and reports every step in the device's twin.",
            files: of(&[&shared]),
            links: vec![(
                format!("usr/lib/libtwinflash.so.{abi}"),
                format!("libtwinflash.so.{version}"),
            )],
            control: vec![("triggers", "activate-noawait ldconfig\n", 0o644)],
        },
        Package {
            name: "libtwinflash-dev".into(),
            section: "libdevel",
            depends: format!("libtwinflash{abi} (= {version})"),
            description: "firmware updates for devices on Azure IoT Hub, to build with\n \
                          Headers, static libraries, pkg-config and CMake files of twinflash; also the\n \
                          library for boards without an operating system.",
            files: of(&[
                "usr/include/twinflash.h",
                "usr/include/twinflash_sansio.h",
                "usr/lib/libtwinflash.a",
                "usr/lib/libtwinflash_sansio.a",
                "usr/lib/pkgconfig/twinflash.pc",
                "usr/lib/pkgconfig/twinflash-sansio.pc",
                "usr/lib/cmake/twinflash/twinflash-config.cmake",
                "usr/lib/cmake/twinflash/twinflash-config-version.cmake",
            ]),
            links: vec![(
                "usr/lib/libtwinflash.so".into(),
                format!("libtwinflash.so.{version}"),
            )],
            control: Vec::new(),
        },
        Package {
            name: "twinflash".into(),
            section: "net",
            depends: "libc6 (>= 2.34), libgcc-s1".into(),
            description: "firmware updates for devices on Azure IoT Hub, the agent\n \
                          The command twinflash, and the device agent as a service: write\n \
                          /etc/twinflash/twinflash.toml, then enable twinflash.service.",
            files: vec![
                (agent, "usr/bin/twinflash".into(), 0o755),
                (
                    example("twinflash.service"),
                    "lib/systemd/system/twinflash.service".into(),
                    0o644,
                ),
                (
                    example("twinflash.toml"),
                    "etc/twinflash/twinflash.toml".into(),
                    0o600,
                ),
            ],
            links: Vec::new(),
            control: vec![
                ("conffiles", "/etc/twinflash/twinflash.toml\n", 0o644),
                ("postinst", AFTER, 0o755),
                ("prerm", BEFORE, 0o755),
                ("postrm", AFTER, 0o755),
            ],
        },
    ]
}

fn build(run: &Run, package: &Package, architecture: &str, directory: &Path) -> Outcome {
    let root = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
    let root = root.path();
    let put = |to: &str, mode: u32, write: &dyn Fn(&Path) -> std::io::Result<()>| {
        let to = root.join(to);
        to.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| write(&to))
            .and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(mode)))
            .map_err(|error| format!("{}: {error}", to.display()))
    };
    for (from, to, mode) in &package.files {
        put(to, *mode, &|to| fs::copy(from, to).map(drop))?;
        // What debuggers want is no part of a package; a static library keeps what it is linked by.
        let strip = match to.rsplit('.').next() {
            Some("a") => "--strip-debug",
            _ if to.contains(".so") || to.contains("/bin/") => "--strip-unneeded",
            _ => continue,
        };
        execute(run.command("strip", &[strip]).arg(root.join(to)))?;
    }
    for (link, to) in &package.links {
        std::os::unix::fs::symlink(to, root.join(link))
            .map_err(|error| format!("{link}: {error}"))?;
    }
    let documents = format!("usr/share/doc/{}/copyright", package.name);
    let licences =
        ["LICENSE-MIT", "LICENSE-APACHE"].map(|name| fs::read_to_string(run.root.join(name)));
    let [Ok(mit), Ok(apache)] = licences else {
        return Err("the licences cannot be read".into());
    };
    let copyright = format!(
        "twinflash is licensed under either of these, at your choice.\n\n{mit}\n\n{apache}"
    );
    put(&documents, 0o644, &|to| fs::write(to, &copyright))?;
    for (name, text, mode) in &package.control {
        put(&format!("DEBIAN/{name}"), *mode, &|to| fs::write(to, text))?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let control = format!(
        "Package: {}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
         Section: {}\nPriority: optional\nDepends: {}\nDescription: {}\n",
        package.name, package.section, package.depends, package.description
    );
    put("DEBIAN/control", 0o644, &|to| fs::write(to, &control))?;
    // A temporary directory is its owner's alone.
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
        .map_err(|error| format!("{}: {error}", root.display()))?;
    let mut deb = run.command("dpkg-deb", &["--root-owner-group", "--build"]);
    execute(deb.arg(root).arg(directory))
}
