//! Bytes from a file of this device: a USB stick, a file that was copied here.

use super::{
    answer::{Answer, RESUME, failure},
    wire::{Event, Gone, Request, Wire},
};
use crate::update::{Code, Failure, redact};
use fluent_uri::Uri;
use std::{
    fmt::Write as _,
    fs::{File, Metadata},
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

const BUFFER: usize = 128 * 1024;

/// The `file:` address of an absolute path.
///
/// ```
/// # #[cfg(unix)]
/// assert_eq!(twinflash::download::local_uri("/media/a b.bin".as_ref()), "file:///media/a%20b.bin");
/// ```
pub fn local_uri(path: &Path) -> String {
    let mut uri = String::from("file://");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            // Writing to a text does not fail.
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri
}

/// The path of a `file:` address of this device; `None` for an address of another kind.
pub(super) fn local_path(uri: &str) -> Result<Option<PathBuf>, Failure> {
    let Some(parsed) = Uri::parse(uri)
        .ok()
        .filter(|uri| uri.scheme().as_str().eq_ignore_ascii_case("file"))
    else {
        return Ok(None);
    };
    let here = parsed
        .authority()
        .is_none_or(|authority| matches!(authority.host(), "" | "localhost"));
    let path = parsed.path().decode().to_bytes().into_owned();
    let path = path_of(path).filter(|path| here && path.is_absolute());
    path.map(Some).ok_or_else(|| {
        let text = format!(
            "\"{}\" is not the address of a file of this device",
            redact(uri)
        );
        Failure::new(Code::InvalidUri, text)
    })
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};
    Some(OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    Some(String::from_utf8(bytes).ok()?.into())
}

/// A file that is read.
pub(super) struct LocalFile {
    file: File,
    shown: String,
    answer: Option<Answer>,
    buffer: Vec<u8>,
}

impl LocalFile {
    pub(super) fn open(path: &Path, request: Request) -> Result<Self, Failure> {
        let shown = redact(&request.uri);
        let offset = request.range.map_or(0, |(offset, _)| offset);
        let opened = std::fs::metadata(path).and_then(|metadata| {
            if !metadata.is_file() {
                // A pipe would be waited for without end.
                return Err(io::Error::new(ErrorKind::InvalidInput, "it is no file"));
            }
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok((file, metadata))
        });
        let (file, metadata) = opened.map_err(|error| broken(&error, &shown))?;
        let answer = Answer {
            offset,
            total: Some(metadata.len()),
            validator: validator(&metadata),
            until_close: false,
        };
        Ok(Self {
            file,
            shown,
            answer: Some(answer),
            buffer: Vec::new(),
        })
    }
}

impl Wire for LocalFile {
    fn next(&mut self, _: Duration) -> Result<Option<Event>, Gone> {
        if let Some(answer) = self.answer.take() {
            return Ok(Some(Event::Begins(answer)));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(BUFFER, 0);
        Ok(match self.file.read(&mut buffer) {
            Ok(0) => Some(Event::End),
            Ok(filled) => Some(Event::Bytes(buffer, filled)),
            Err(error) if error.kind() == ErrorKind::Interrupted => None,
            // A stick that was pulled may come back.
            Err(error) => Some(Event::Failed(broken(&error, &self.shown), RESUME)),
        })
    }

    fn give_back(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
    }
}

fn broken(error: &io::Error, shown: &str) -> Failure {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Code::NoPermission,
        _ => Code::Storage,
    };
    failure(code, shown, &error.to_string())
}

/// Tells a file from another that came in its place.
#[cfg(unix)]
fn validator(metadata: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (size, inode) = (metadata.len(), metadata.ino());
    let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    Some(format!("\"{inode:x}-{size:x}-{seconds:x}.{nanos:x}\""))
}

#[cfg(not(unix))]
fn validator(_: &Metadata) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_files() {
        let path = |uri| local_path(uri).map(|path| path.map(|path| path.display().to_string()));
        assert_eq!(path("file:///a%20b/c"), Ok(Some("/a b/c".into())));
        assert_eq!(path("FILE://localhost/c"), Ok(Some("/c".into())));
        assert_eq!(path("https://h/c"), Ok(None));
        for bad in ["file://other/c", "file:c", "file:"] {
            assert_eq!(path(bad).unwrap_err().code, Code::InvalidUri, "{bad}");
        }
        let odd = Path::new("/media/a b/ü?#%.bin");
        assert_eq!(local_path(&local_uri(odd)).unwrap().as_deref(), Some(odd));
    }
}
