//! The device agent's configuration: a TOML file.
//!
//! `examples/agent/twinflash.toml` describes every key; what they mean is the library's.

use crate::error::Error;
use std::{fs, path::Path};
use twinflash::config::Config;

/// Reads a file. Relative paths in it are relative to its directory.
pub(crate) fn read(file: &Path) -> Result<Config, Error> {
    let text = fs::read_to_string(file)
        .map_err(|error| Error::new(format_args!("cannot read {}: {error}", file.display())))?;
    let config =
        parse(&text).map_err(|why| Error::new(format_args!("{}, {why}", file.display())))?;
    Ok(config.in_directory(file.parent().unwrap_or(Path::new(""))))
}

fn parse(text: &str) -> Result<Config, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| before.matches('\n').count() + 1);
        let message: Vec<_> = error.message().lines().map(str::trim).collect();
        format!("line {line}: {}", message.join("; "))
    })
}

#[cfg(test)]
mod tests;
