//! Installers of the application's own, in JavaScript.

use crate::bridge::Bridge;
use engine::{
    install::{ImageInfo, ImageState, Installer, Restart},
    update::{Code, Failure},
};
use serde_json::{Value, json};
use std::{fmt, sync::Arc};

/// Calls the methods of a JavaScript object on its thread, and waits for what they promise.
pub(crate) struct OwnInstaller {
    pub(crate) bridge: Arc<Bridge>,
    /// What `inspect` answered before the updater was started: it could not be waited for then.
    pub(crate) inspected: Option<ImageState>,
    pub(crate) restart: Restart,
    /// It has the optional methods.
    pub(crate) reads_back: bool,
    pub(crate) holds: bool,
}

impl fmt::Debug for OwnInstaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnInstaller")
    }
}

/// What `inspect` may answer.
pub(crate) fn image_state(word: &str) -> Option<ImageState> {
    Some(match word {
        "old" => ImageState::Old,
        "new" => ImageState::New,
        "partial" => ImageState::Partial,
        "unknown" => ImageState::Unknown,
        _ => return None,
    })
}

fn hexadecimal(sha256: &[u8; 32]) -> String {
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The offset a method answered with.
fn offset(name: &str, value: &Value) -> Result<u64, Failure> {
    value
        .as_u64()
        .ok_or_else(|| wrong(name, value, "an offset in bytes"))
}

fn wrong(name: &str, value: &Value, wanted: &str) -> Failure {
    Failure::new(
        Code::InstallFailed,
        format_args!("the installer's {name} answered {value}; it must be {wanted}"),
    )
}

impl OwnInstaller {
    fn step(&self, name: &str) -> Result<(), Failure> {
        self.bridge.call(name, &[], None).map(drop)
    }
}

impl Installer for OwnInstaller {
    fn inspect(&mut self) -> Result<ImageState, Failure> {
        if let Some(state) = self.inspected.take() {
            return Ok(state);
        }
        let answer = self.bridge.call("inspect", &[], None)?;
        (answer.as_str().and_then(image_state))
            .ok_or_else(|| wrong("inspect", &answer, "old, new, partial or unknown"))
    }

    fn begin(&mut self, image: &ImageInfo, resume_at: u64) -> Result<u64, Failure> {
        let info = json!({"size": image.size, "version": image.version});
        let answer = self.bridge.call("begin", &[info, resume_at.into()], None)?;
        match offset("begin", &answer)? {
            at if at == 0 || at == resume_at => Ok(at),
            _ => Err(wrong("begin", &answer, &format!("0 or {resume_at}"))),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let arguments = [offset.into()];
        self.bridge.call("write", &arguments, Some(bytes)).map(drop)
    }

    fn sync(&mut self) -> Result<u64, Failure> {
        offset("sync", &self.bridge.call("sync", &[], None)?)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.step("finish")
    }

    fn read_back(&mut self, size: u64, sha256: &[u8; 32]) -> Result<(), Failure> {
        if !self.reads_back {
            return Ok(());
        }
        let arguments = [size.into(), hexadecimal(sha256).into()];
        self.bridge.call("readBack", &arguments, None).map(drop)
    }

    fn activate(&mut self) -> Result<(), Failure> {
        self.step("activate")
    }

    fn confirm(&mut self) -> Result<(), Failure> {
        self.step("confirm")
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        self.step("rollback")
    }

    fn abort(&mut self) -> Result<(), Failure> {
        self.step("abort")
    }

    fn restart(&self) -> Restart {
        self.restart.clone()
    }

    fn holds(&mut self, sha256: &[u8; 32]) -> Result<bool, Failure> {
        if !self.holds {
            return Ok(false);
        }
        let answer = (self.bridge).call("holds", &[hexadecimal(sha256).into()], None)?;
        answer
            .as_bool()
            .ok_or_else(|| wrong("holds", &answer, "true or false"))
    }
}
