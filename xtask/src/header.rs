//! The C headers: made from the sources of `bindings/`, committed for their readers.

use std::{fs, path::Path};

struct Header {
    file: &'static str,
    /// Where its sources, its configuration and its first comment are.
    bindings: &'static str,
    /// What its version's macros begin with, and the function they are beside.
    macros: &'static str,
    function: &'static str,
}

const HEADERS: &[Header] = &[
    Header {
        file: "include/twinflash.h",
        bindings: "bindings",
        macros: "TWINFLASH",
        function: "twinflash_version",
    },
    Header {
        file: "include/twinflash_sansio.h",
        bindings: "bindings/sansio",
        macros: "TWINFLASH_SANSIO",
        function: "twinflash_sansio_version",
    },
];

/// The header as the sources say it is.
fn made(root: &Path, header: &Header) -> Result<String, String> {
    let bindings = root.join(header.bindings);
    let read = |file: &Path| {
        fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    let mut config = cbindgen::Config::from_file(bindings.join("cbindgen.toml"))?;
    let manifest = read(&root.join("Cargo.toml"))?;
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .ok_or("Cargo.toml names no version")?;
    let mut numbers = version.split('.');
    let mut number = || numbers.next().unwrap_or_default();
    let (name, function) = (header.macros, header.function);
    config.after_includes = Some(format!(
        "{}\n/** This header's version; {function}() is the library's. */\n\
         #define {name}_VERSION \"{version}\"\n\
         #define {name}_VERSION_MAJOR {}\n\
         #define {name}_VERSION_MINOR {}\n\
         #define {name}_VERSION_PATCH {}",
        read(&bindings.join("overview.h"))?,
        number(),
        number(),
        number(),
    ));
    let mut made = Vec::new();
    cbindgen::Builder::new()
        .with_crate(&bindings)
        .with_config(config)
        .generate()
        .map_err(|error| error.to_string())?
        .write(&mut made);
    let made = String::from_utf8(made).map_err(|error| error.to_string())?;
    Ok(shortened(&without_safety(&made)))
}

/// Without the sections that say in Rust's words what C takes for granted.
fn without_safety(header: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut left_out = false;
    for line in header.lines() {
        let text = line.trim();
        if text == "* # Safety" {
            left_out = true;
            if lines.last().is_some_and(|last| last.trim() == "*") {
                lines.pop();
            }
        }
        left_out &= text != "*/";
        if !left_out {
            lines.push(line.trim_end());
        }
    }
    lines.join("\n") + "\n"
}

/// With comments of one line on one line.
fn shortened(header: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in header.lines() {
        if let [.., start, text] = lines.as_slice()
            && line.trim() == "*/"
            && start.trim() == "/**"
            && let Some(text) = text.trim().strip_prefix("* ")
        {
            let short = format!("{} {text} */", start.trim_end());
            if short.len() <= 110 {
                lines.truncate(lines.len() - 2);
                lines.push(short);
                continue;
            }
        }
        lines.push(line.to_owned());
    }
    lines.join("\n") + "\n"
}

/// Writes the headers; with `check` only compares them with what is there.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    for header in HEADERS {
        let made = made(root, header)?;
        let file = root.join(header.file);
        if check {
            if fs::read_to_string(&file).is_ok_and(|there| there == made) {
                continue;
            }
            return Err(format!(
                "{} is not what the sources say: run `cargo xtask header`",
                header.file
            ));
        }
        fs::create_dir_all(root.join("include"))
            .and_then(|()| fs::write(&file, made))
            .map_err(|error| format!("cannot write {}: {error}", header.file))?;
    }
    Ok(())
}
