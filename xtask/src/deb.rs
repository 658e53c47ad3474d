//! Debian packages: the library, what is needed to build with it, and the agent.

use crate::{
    install,
    test::{Outcome, Run, execute},
};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const MAINTAINER: &str = "The twinflash maintainers <maintainers@twinflash.invalid>";

struct Package {
    name: String,
    section: &'static str,
    /// Besides what `dpkg-shlibdeps` finds.
    depends: Option<String>,
    multi_arch: bool,
    description: &'static str,
    /// Files of its own, below the root; each from a file that is there.
    files: Vec<(PathBuf, String, u32)>,
    /// Links, and what they lead to.
    links: Vec<(String, String)>,
    /// Files of the `DEBIAN` directory.
    control: Vec<(&'static str, String, u32)>,
    /// What lintian says of it, and is meant to be so.
    overrides: &'static str,
}

// What debhelper would put in. systemd learns of the unit; the service is not enabled: its configuration is the
// owner's to write first. One that runs goes on in the new version after an upgrade.
const AFTER: &str = r#"#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
	if [ "$1" = configure ] && [ -n "$2" ]; then
		deb-systemd-invoke try-restart twinflash.service >/dev/null || true
	fi
fi
"#;
const BEFORE_REMOVAL: &str = r#"#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop twinflash.service >/dev/null || true
fi
"#;
const AFTER_REMOVAL: &str = r#"#!/bin/sh
set -e
if [ "$1" = purge ]; then
	rm -rf /var/lib/twinflash
	deb-systemd-helper purge twinflash.service >/dev/null || true
fi
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
"#;

/// Makes them in `directory`, for this machine's architecture, and tries them. `profile` is cargo's.
pub(crate) fn package(directory: &str, profile: &str) -> Outcome {
    let run = &Run::new(false);
    fs::create_dir_all(directory).map_err(|error| format!("{directory}: {error}"))?;
    let directory = fs::canonicalize(directory).map_err(|error| format!("{directory}: {error}"))?;
    let built = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
    let architecture = |of: &str| said(Command::new("dpkg-architecture").arg(format!("-q{of}")));
    let libraries = format!("lib/{}", architecture("DEB_HOST_MULTIARCH")?);
    let options = install::Options {
        prefix: Path::new("/usr"),
        destination: built.path(),
        libraries: &libraries,
        profile,
        features: None,
    };
    install::run(&run.root, &run.target, &options)?;
    let agent = ["build", "--quiet", "-p", "twinflash-cli", "--profile"];
    execute(run.cargo(&agent).arg(profile))?;
    let agent = run
        .target
        .join(install::directory(profile))
        .join("twinflash");
    let maker = Maker {
        run,
        architecture: architecture("DEB_HOST_ARCH")?,
        changelog: changelog(run)?,
        directory: &directory,
    };
    let packages = packages(run, built.path(), &format!("usr/{libraries}"), agent);
    let made: Result<Vec<_>, _> = packages.iter().map(|it| maker.build(it)).collect();
    try_out(run, &made?)
}

fn packages(run: &Run, built: &Path, libraries: &str, agent: PathBuf) -> [Package; 3] {
    let abi = install::abi(VERSION);
    let of = |names: &[String]| {
        let names = names.iter();
        names
            .map(|name| (built.join(name), name.clone(), 0o644))
            .collect::<Vec<_>>()
    };
    let shared = format!("libtwinflash.so.{VERSION}");
    let example = |name: &str| run.root.join("examples/agent").join(name);
    let library = format!("libtwinflash{abi}");
    [
        Package {
            section: "libs",
            depends: None,
            multi_arch: true,
            description: "firmware updates for devices on Azure IoT Hub, the library\n \
                          Downloads, verifies and installs an image, through power cuts and bad networks,\n \
                          and reports every step in the device's twin.",
            files: of(&[format!("{libraries}/{shared}")]),
            links: vec![(format!("{libraries}/libtwinflash.so.{abi}"), shared.clone())],
            control: vec![
                ("triggers", "activate-noawait ldconfig\n".into(), 0o644),
                (
                    "shlibs",
                    format!("libtwinflash {abi} {library} (>= {VERSION})\n"),
                    0o644,
                ),
            ],
            overrides: "",
            name: library.clone(),
        },
        Package {
            name: "libtwinflash-dev".into(),
            section: "libdevel",
            depends: Some(format!("{library} (= {VERSION})")),
            multi_arch: true,
            description: "firmware updates for devices on Azure IoT Hub, to build with\n \
                          Headers, static libraries, pkg-config and CMake files of twinflash; also the\n \
                          library for boards without an operating system.",
            files: of(&[
                "usr/include/twinflash.h".into(),
                "usr/include/twinflash_sansio.h".into(),
                format!("usr/{}", install::KEYS),
                format!("{libraries}/libtwinflash.a"),
                format!("{libraries}/libtwinflash_sansio.a"),
                format!("{libraries}/pkgconfig/twinflash.pc"),
                format!("{libraries}/pkgconfig/twinflash-sansio.pc"),
                format!("{libraries}/cmake/twinflash/twinflash-config.cmake"),
                format!("{libraries}/cmake/twinflash/twinflash-config-version.cmake"),
            ]),
            links: vec![(format!("{libraries}/libtwinflash.so"), shared)],
            control: Vec::new(),
            overrides: "",
        },
        Package {
            name: "twinflash".into(),
            section: "net",
            depends: None,
            multi_arch: false,
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
                ("conffiles", "/etc/twinflash/twinflash.toml\n".into(), 0o644),
                ("postinst", AFTER.into(), 0o755),
                ("prerm", BEFORE_REMOVAL.into(), 0o755),
                ("postrm", AFTER_REMOVAL.into(), 0o755),
            ],
            overrides: "# It may hold the device's connection string.\n\
                        twinflash: non-standard-file-perm 0600 != 0644 [etc/twinflash/twinflash.toml]\n\
                        # The command explains itself: twinflash help.\n\
                        twinflash: no-manual-page [usr/bin/twinflash]\n",
        },
    ]
}

/// As Debian has it: the release, and its time.
fn changelog(run: &Run) -> Result<String, String> {
    let time = match env::var("SOURCE_DATE_EPOCH") {
        Ok(time) => time,
        Err(_) => said(&mut run.command("git", &["log", "-1", "--format=%ct"]))?,
    };
    let date = said(&mut run.command("date", &["-u", "-R", "-d", &format!("@{time}")]))?;
    Ok(format!(
        "twinflash ({VERSION}) unstable; urgency=medium\n\n  \
         * twinflash {VERSION}: CHANGELOG.md of its sources says what is new.\n\n \
         -- {MAINTAINER}  {date}\n"
    ))
}

fn copyright(run: &Run) -> Result<String, String> {
    let licence = run.root.join("LICENSE-MIT");
    let mit = fs::read_to_string(&licence)
        .map_err(|error| format!("cannot read {}: {error}", licence.display()))?;
    let holder = mit.lines().find(|line| line.starts_with("Copyright"));
    let holder = holder.ok_or("LICENSE-MIT names no holder of the copyright")?;
    let holder = holder.trim_start_matches("Copyright (c)").trim();
    // Continued lines of a field begin with a space; an empty one has a full stop.
    let indented = |line: &str| match line.trim() {
        "" => " .".to_owned(),
        line => format!(" {line}"),
    };
    let mit: Vec<_> = mit
        .lines()
        .skip_while(|line| !line.starts_with("Permission"))
        .map(indented)
        .collect();
    Ok(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: twinflash\n\n\
         Files: *\n\
         Copyright: {holder}\n\
         License: Expat or Apache-2.0\n\n\
         License: Expat\n{}\n\n\
         License: Apache-2.0\n \
         On Debian systems, the whole text is in /usr/share/common-licenses/Apache-2.0.\n",
        mit.join("\n")
    ))
}

struct Maker<'a> {
    run: &'a Run,
    architecture: String,
    changelog: String,
    directory: &'a Path,
}

impl Maker<'_> {
    fn build(&self, package: &Package) -> Result<PathBuf, String> {
        let run = self.run;
        let place = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let root = &place.path().join("debian/root");
        let put = |to: &str, mode: u32, write: &dyn Fn(&Path) -> std::io::Result<()>| {
            let to = root.join(to);
            to.parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| write(&to))
                .and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(mode)))
                .map_err(|error| format!("{}: {error}", to.display()))
        };
        let mut programs = Vec::new();
        for (from, to, mode) in &package.files {
            put(to, *mode, &|to| fs::copy(from, to).map(drop))?;
            // What debuggers want is no part of a package; a static library keeps what it is linked by.
            let strip = match to.rsplit('.').next() {
                Some("a") => "--strip-debug",
                _ if to.contains(".so") || to.contains("/bin/") => {
                    programs.push(root.join(to));
                    "--strip-unneeded"
                }
                _ => continue,
            };
            // Without the time: the same bytes each time.
            let strip = ["--enable-deterministic-archives", strip];
            execute(run.command("strip", &strip).arg(root.join(to)))?;
        }
        for (link, to) in &package.links {
            std::os::unix::fs::symlink(to, root.join(link))
                .map_err(|error| format!("{link}: {error}"))?;
        }
        let name = &package.name;
        let documents = format!("usr/share/doc/{name}");
        let copyright = copyright(run)?;
        put(&format!("{documents}/copyright"), 0o644, &|to| {
            fs::write(to, &copyright)
        })?;
        let changelog = format!("{documents}/changelog");
        put(&changelog, 0o644, &|to| fs::write(to, &self.changelog))?;
        execute(run.command("gzip", &["-n9"]).arg(root.join(changelog)))?;
        if !package.overrides.is_empty() {
            let to = format!("usr/share/lintian/overrides/{name}");
            put(&to, 0o644, &|to| fs::write(to, package.overrides))?;
        }
        for (name, text, mode) in &package.control {
            put(&format!("DEBIAN/{name}"), *mode, &|to| fs::write(to, text))?;
        }
        let mut depends = Vec::from_iter(package.depends.clone());
        if !programs.is_empty() {
            depends.push(self.needed(place.path(), &programs)?);
        }
        let control = format!(
            "Package: {name}\nVersion: {VERSION}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n{}\
             Section: {}\nPriority: optional\nDepends: {}\nDescription: {}\n",
            self.architecture,
            if package.multi_arch {
                "Multi-Arch: same\n"
            } else {
                ""
            },
            package.section,
            depends.join(", "),
            package.description
        );
        put("DEBIAN/control", 0o644, &|to| fs::write(to, &control))?;
        let made = self
            .directory
            .join(format!("{name}_{VERSION}_{}.deb", self.architecture));
        let mut deb = run.command("dpkg-deb", &["--root-owner-group", "--build"]);
        execute(deb.arg(root).arg(&made)).map(|()| made)
    }

    /// The packages whose libraries these files need, in the versions they need.
    fn needed(&self, place: &Path, programs: &[PathBuf]) -> Result<String, String> {
        let control = place.join("debian/control");
        fs::write(
            &control,
            "Source: twinflash\n\nPackage: twinflash\nArchitecture: any\n",
        )
        .map_err(|error| format!("{}: {error}", control.display()))?;
        let mut shlibdeps = Command::new("dpkg-shlibdeps");
        let said = said(shlibdeps.arg("-O").args(programs).current_dir(place))?;
        let needed = said.trim().strip_prefix("shlibs:Depends=");
        let needed = needed.ok_or_else(|| format!("dpkg-shlibdeps says {said}"))?;
        Ok(needed.to_owned())
    }
}

/// What a program prints, without the end of its last line.
fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{name}: {}: {errors}", output.status))
        }
    }
}

/// Installs, uses and purges them over this system, whose files stay as they are.
fn try_out(run: &Run, packages: &[PathBuf]) -> Outcome {
    if said(Command::new("id").arg("-u"))? != "0" {
        println!("the packages are made, and not tried out: that takes root");
        return Ok(());
    }
    let mut over = run.command("unshare", &["--mount", "sh", "xtask/src/deb/over.sh"]);
    execute(over.arg(&run.root).args(packages))
}
