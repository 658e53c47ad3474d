//! Connection strings, and where they come from.

use crate::error::Error;
use std::{fs, path::Path};

/// What is meant by a connection string as it was given: itself, or with `@FILE` what that file
/// holds. A relative file is looked for in `directory`.
pub(crate) fn resolve(given: &str, directory: &Path) -> Result<String, Error> {
    let Some(file) = given.trim().strip_prefix('@') else {
        return Ok(given.to_owned());
    };
    let file = directory.join(file);
    let text = fs::read_to_string(&file).map_err(|error| {
        Error::new(format_args!(
            "cannot read the connection string from {}: {error}",
            file.display()
        ))
    })?;
    match text.trim() {
        "" => Err(Error::new(format_args!(
            "{} is empty; it must hold a connection string",
            file.display()
        ))),
        text => Ok(text.to_owned()),
    }
}
