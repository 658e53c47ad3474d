//! Installs the C library: what a C developer finds by pkg-config or CMake.

use crate::sansio;
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the static library needs of the system, as `rustc --print native-static-libs` says.
pub(crate) const PRIVATE: &str = "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";

/// What says what every key of a configuration means.
pub(crate) const KEYS: &str = "share/doc/twinflash/twinflash.toml";

/// Where to, and as what.
pub(crate) struct Options<'a> {
    pub(crate) prefix: &'a Path,
    /// Where the prefix is put for now, to be packed; "/" is in its place.
    pub(crate) destination: &'a Path,
    /// Where libraries go, below the prefix: "lib", or as the system has it.
    pub(crate) libraries: &'a str,
    /// The profile: "release", "small", or "dev" for tests.
    pub(crate) profile: &'a str,
    /// What is built in, as bindings/Cargo.toml calls it, with commas between; by default what it has there.
    pub(crate) features: Option<&'a str>,
}

impl<'a> Options<'a> {
    /// # Errors
    /// What is wrong with the arguments.
    pub(crate) fn parse(arguments: &[&'a str]) -> Result<Self, String> {
        let (mut prefix, mut profile, mut features) = (None, "release", None);
        let (mut destination, mut libraries) = (Path::new("/"), "lib");
        for pair in arguments.chunks(2) {
            match *pair {
                ["--prefix", directory] => prefix = Some(Path::new(directory)),
                ["--profile", name] => profile = name,
                ["--features", list] => features = Some(list),
                ["--destdir", directory] => destination = Path::new(directory),
                ["--libdir", directory] => libraries = directory.trim_matches('/'),
                _ => return Err(format!("what is {}?", pair.join(" "))),
            }
        }
        let prefix = prefix.ok_or("where to? --prefix /usr/local")?;
        match prefix.is_absolute() {
            true => Ok(Self {
                prefix,
                destination,
                libraries,
                profile,
                features,
            }),
            false => Err(format!("{} is not absolute", prefix.display())),
        }
    }
}

/// Builds and installs.
///
/// # Errors
/// What failed, and with which path.
pub(crate) fn run(root: &Path, target: &Path, options: &Options<'_>) -> Result<(), String> {
    let version = env!("CARGO_PKG_VERSION");
    let abi = abi(version);
    build(root, target, options.profile, &abi, options.features)?;
    let built = target.join(directory(options.profile));
    let place =
        (options.destination).join(options.prefix.strip_prefix("/").unwrap_or(options.prefix));
    let libraries = place.join(options.libraries);
    let shared = format!("libtwinflash.so.{version}");
    copy(&built.join("libtwinflash.so"), &libraries.join(&shared))?;
    copy(
        &built.join("libtwinflash.a"),
        &libraries.join("libtwinflash.a"),
    )?;
    link(&shared, &libraries.join(format!("libtwinflash.so.{abi}")))?;
    link(&shared, &libraries.join("libtwinflash.so"))?;
    let header = place.join("include/twinflash.h");
    copy(&root.join("include/twinflash.h"), &header)?;
    copy(
        &root.join("examples/agent/twinflash.toml"),
        &place.join(KEYS),
    )?;
    let pc = libraries.join("pkgconfig/twinflash.pc");
    let description = "Firmware updates for devices on Azure IoT Hub";
    let text = pkg_config(
        options,
        version,
        "twinflash",
        description,
        "-ltwinflash",
        PRIVATE,
    );
    write(&pc, &text)?;
    let cmake = libraries.join("cmake/twinflash");
    let up = "/..".repeat(Path::new(options.libraries).components().count());
    let config = CMAKE
        .replace("@UP@", &up)
        .replace("@LIBRARIES@", options.libraries)
        .replace("@PRIVATE@", &PRIVATE.replace("-l", "").replace(' ', ";"));
    write(&cmake.join("twinflash-config.cmake"), &config)?;
    write(
        &cmake.join("twinflash-config-version.cmake"),
        &cmake_version(version, &abi),
    )?;
    board(root, target, options, &place, version)
}

/// Before 1.0 each minor version has another binary interface.
pub(crate) fn abi(version: &str) -> String {
    match version.split('.').collect::<Vec<_>>()[..] {
        ["0", minor, _] => format!("0.{minor}"),
        [major, ..] => major.to_owned(),
        [] => version.to_owned(),
    }
}

/// Where cargo puts what a profile builds.
pub(crate) fn directory(profile: &str) -> &str {
    match profile {
        "dev" => "debug",
        other => other,
    }
}

/// The library for boards. It has one profile.
fn board(
    root: &Path,
    target: &Path,
    options: &Options<'_>,
    place: &Path,
    version: &str,
) -> Result<(), String> {
    let libraries = place.join(options.libraries);
    let built = sansio::build(root, target, &[])?;
    copy(&built, &libraries.join("libtwinflash_sansio.a"))?;
    let header = "include/twinflash_sansio.h";
    copy(&root.join(header), &place.join(header))?;
    let description = "Firmware updates for boards with no operating system";
    let pc = pkg_config(
        options,
        version,
        "twinflash-sansio",
        description,
        "-ltwinflash_sansio",
        "",
    );
    write(&libraries.join("pkgconfig/twinflash-sansio.pc"), &pc)
}

/// Builds the library, with these features or its default ones.
pub(crate) fn build(
    root: &Path,
    target: &Path,
    profile: &str,
    abi: &str,
    features: Option<&str>,
) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root);
    build.args([
        "rustc",
        "--quiet",
        "-p",
        "twinflash-c",
        "--profile",
        profile,
    ]);
    if let Some(features) = features {
        build.args(["--no-default-features", "--features", features]);
    }
    build.arg("--");
    build.arg(format!("-Clink-arg=-Wl,-soname,libtwinflash.so.{abi}"));
    // The linker that Rust brings on this platform leaves out what only unwinding needs, keeps one of functions
    // that are alike, and packs relocations, which the system's library must know (glibc 2.36, musl 1.2.4).
    let small =
        profile == "small" && cfg!(all(target_arch = "x86_64", target_os = "linux")) && by_lld();
    if small {
        let script = |name: &str| root.join("bindings").join(name).display().to_string();
        build.args(["--cfg", "twinflash_no_backtrace"]);
        for argument in [
            "-Wl,--no-eh-frame-hdr",
            &script("small.ld"),
            &format!("-Wl,--version-script={}", script("small.map")),
            "-Wl,--icf=all",
            "-Wl,-z,pack-relative-relocs",
        ] {
            build.arg(format!("-Clink-arg={argument}"));
        }
    }
    succeeds(&mut build)?;
    match small {
        // What bindings/small.map does for the shared one.
        true => succeeds(
            Command::new("objcopy")
                .arg("--localize-symbol=_Unwind_Backtrace")
                .arg(target.join(directory(profile)).join("libtwinflash.a")),
        ),
        false => Ok(()),
    }
}

/// Whether Rust links by lld: rustup's does on this platform, a distribution's may not.
fn by_lld() -> bool {
    let Ok(place) = tempfile::tempdir() else {
        return false;
    };
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let mut probe = Command::new(rustc);
    probe.args(["--crate-type=cdylib", "-Clink-arg=-Wl,--icf=all", "-o"]);
    probe.arg(place.path().join("probe.so")).arg("-");
    let probe = probe.stdin(Stdio::null()).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_owned();
    let program = program.display();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the library does not build: {program}: {status}")),
        Err(error) => Err(format!("cannot run {program}: {error}")),
    }
}

fn ready(to: &Path) -> Result<(), String> {
    let directory = to.parent().unwrap_or(to);
    fs::create_dir_all(directory)
        .and_then(|()| match fs::symlink_metadata(to) {
            // A program that runs keeps what it has mapped.
            Ok(_) => fs::remove_file(to),
            Err(_) => Ok(()),
        })
        .map_err(|error| format!("cannot install {}: {error}", to.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    ready(to)?;
    fs::copy(from, to).map(drop).map_err(|error| {
        format!(
            "cannot copy {} to {}: {error}",
            from.display(),
            to.display()
        )
    })
}

fn link(name: &str, to: &PathBuf) -> Result<(), String> {
    ready(to)?;
    symlink(name, to).map_err(|error| format!("cannot make the link {}: {error}", to.display()))
}

fn write(to: &Path, text: &str) -> Result<(), String> {
    ready(to)?;
    fs::write(to, text).map_err(|error| format!("cannot write {}: {error}", to.display()))
}

fn pkg_config(
    options: &Options<'_>,
    version: &str,
    name: &str,
    description: &str,
    libraries: &str,
    private: &str,
) -> String {
    format!(
        "prefix={}\n\
         libdir=${{prefix}}/{}\n\
         includedir=${{prefix}}/include\n\
         \n\
         Name: {name}\n\
         Description: {description}\n\
         Version: {version}\n\
         Libs: -L${{libdir}} {libraries}\n\
         Libs.private: {private}\n\
         Cflags: -I${{includedir}}\n",
        options.prefix.display(),
        options.libraries
    )
}

const CMAKE: &str = r#"# find_package(twinflash): twinflash::twinflash is the shared library, twinflash::static the other one.
get_filename_component(_twinflash_prefix "${CMAKE_CURRENT_LIST_DIR}/../..@UP@" ABSOLUTE)
if(NOT TARGET twinflash::twinflash)
  add_library(twinflash::twinflash SHARED IMPORTED)
  set_target_properties(twinflash::twinflash PROPERTIES
    IMPORTED_LOCATION "${_twinflash_prefix}/@LIBRARIES@/libtwinflash.so"
    INTERFACE_INCLUDE_DIRECTORIES "${_twinflash_prefix}/include")
  add_library(twinflash::static STATIC IMPORTED)
  set_target_properties(twinflash::static PROPERTIES
    IMPORTED_LOCATION "${_twinflash_prefix}/@LIBRARIES@/libtwinflash.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_twinflash_prefix}/include"
    INTERFACE_LINK_LIBRARIES "@PRIVATE@")
endif()
unset(_twinflash_prefix)
"#;

fn cmake_version(version: &str, abi: &str) -> String {
    format!(
        "set(PACKAGE_VERSION \"{version}\")\n\
         if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)\n\
         \x20 set(PACKAGE_VERSION_COMPATIBLE FALSE)\n\
         elseif(PACKAGE_FIND_VERSION VERSION_LESS \"{abi}\")\n\
         \x20 set(PACKAGE_VERSION_COMPATIBLE FALSE)\n\
         else()\n\
         \x20 set(PACKAGE_VERSION_COMPATIBLE TRUE)\n\
         \x20 if(PACKAGE_FIND_VERSION STREQUAL PACKAGE_VERSION)\n\
         \x20   set(PACKAGE_VERSION_EXACT TRUE)\n\
         \x20 endif()\n\
         endif()\n"
    )
}
