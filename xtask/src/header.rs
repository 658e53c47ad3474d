//! The C header: made from the sources of `bindings/`, committed for its readers.

use std::{fs, path::Path};

const HEADER: &str = "include/twinflash.h";

/// The header as the sources say it is.
fn made(root: &Path) -> Result<String, String> {
    let bindings = root.join("bindings");
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
    config.after_includes = Some(format!(
        "{}\n/** This header's version; twinflash_version() is the library's. */\n\
         #define TWINFLASH_VERSION \"{version}\"\n\
         #define TWINFLASH_VERSION_MAJOR {}\n\
         #define TWINFLASH_VERSION_MINOR {}\n\
         #define TWINFLASH_VERSION_PATCH {}",
        read(&bindings.join("overview.h"))?,
        number(),
        number(),
        number(),
    ));
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_crate(&bindings)
        .with_config(config)
        .generate()
        .map_err(|error| error.to_string())?
        .write(&mut header);
    let header = String::from_utf8(header).map_err(|error| error.to_string())?;
    Ok(shortened(&without_safety(&header)))
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

/// Writes the header; with `check` only compares it with the one that is there.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let made = made(root)?;
    let file = root.join(HEADER);
    if !check {
        return fs::create_dir_all(root.join("include"))
            .and_then(|()| fs::write(&file, made))
            .map_err(|error| format!("cannot write {HEADER}: {error}"));
    }
    match fs::read_to_string(&file) {
        Ok(there) if there == made => Ok(()),
        _ => Err(format!(
            "{HEADER} is not what the sources say: run `cargo xtask header`"
        )),
    }
}
