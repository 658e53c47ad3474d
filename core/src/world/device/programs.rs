//! The programs that a device's installer runs: U-Boot's tools, and what an image is handed to. Each step
//! of theirs changes the disk like one of the installer's own.

use super::super::outside::{here, version_of};
use super::environment::Environment;
use super::machine::MODE;
use crate::disk::{self, Step};
use std::{
    cell::Cell,
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    rc::Rc,
};

type Judge = Box<dyn Fn(&[u8]) -> bool>;

pub(super) struct Programs {
    pub(super) root: PathBuf,
    /// The slot that runs.
    pub(super) slot: Rc<Cell<char>>,
    /// Whether these are the bytes of an image that may be installed.
    pub(super) whole: Judge,
}

impl Programs {
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let printed = match (program, arguments) {
            ("fw_printenv", []) => Environment::read(&self.root).map(|found| {
                let pairs = found.variables().iter();
                pairs
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect()
            }),
            ("fw_setenv", ["-s", script]) => self.set_variables(script),
            ("install-file", [image, version]) => self.install_file(Path::new(image), version),
            // The old file stays: a cut may take back that this was ever run.
            ("keep-file", []) => Ok(String::new()),
            ("old-file", [version]) => self.old_file(version),
            ("install-slot", [image]) => self.install_slot(Path::new(image)),
            ("which-runs", [version]) => self.runs(version).map(|new| {
                let word = if new { "new" } else { "old" };
                format!("{word}\n")
            }),
            ("keep-slot", []) => self.start_only(self.slot.get()),
            ("old-slot", [version]) => self.runs(version).and_then(|new| {
                let slot = self.slot.get();
                self.start_only(if new { other(slot) } else { slot })
            }),
            (program, arguments) => panic!("nobody knows {program} {arguments:?}"),
        };
        printed.map_err(|_| "exit status: 1".into())
    }

    /// U-Boot's own tool: a name and its value, with a space between.
    fn set_variables(&self, script: &str) -> io::Result<String> {
        let text = fs::read_to_string(script)?;
        let pairs: Option<Vec<_>> = text.lines().map(|line| line.split_once(' ')).collect();
        let pairs = pairs.ok_or(io::ErrorKind::InvalidInput)?;
        Environment::read(&self.root)?.write(&self.root, &pairs)?;
        Ok(String::new())
    }

    /// What is handed over: it must be whole.
    fn image(&self, image: &Path) -> io::Result<Vec<u8>> {
        let bytes = fs::read(image)?;
        if !(self.whole)(&bytes) {
            let why = format!("{} bytes that are no image are handed over", bytes.len());
            here().borrow_mut().complain(why);
        }
        Ok(bytes)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join("app").join(name)
    }

    fn install_file(&self, image: &Path, version: &str) -> io::Result<String> {
        let image = self.image(image)?;
        let [target, new] = ["app.bin", "app.new"].map(|name| self.file(name));
        let old = self.file(&format!("before-{version}"));
        // Run again after a power cut, it may have done so before.
        if disk::read(&target)? != image {
            disk::remove(&old)?;
            disk::hard_link(&target, &old)?;
            disk::sync_dir(&self.file(""))?;
            write_new(&new, &image)?;
            disk::rename(&new, &target)?;
        }
        disk::sync_dir(&self.file(""))?;
        Ok(String::new())
    }

    fn old_file(&self, version: &str) -> io::Result<String> {
        let (target, old) = (
            self.file("app.bin"),
            self.file(&format!("before-{version}")),
        );
        match disk::read(&old) {
            // Two names of one file: a rename would do nothing.
            Ok(bytes) if bytes == fs::read(&target)? => drop(disk::remove(&old)?),
            Ok(_) => disk::rename(&old, &target)?,
            // Nothing was installed yet, or it was brought back before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        disk::sync_dir(&self.file(""))?;
        Ok(String::new())
    }

    fn install_slot(&self, image: &Path) -> io::Result<String> {
        let image = self.image(image)?;
        let slot = other(self.slot.get());
        self.start_only(self.slot.get())?;
        write_new(&self.root.join(format!("slots/{slot}")), &image)?;
        disk::sync_dir(&self.root.join("slots"))?;
        let name = slot.to_ascii_uppercase().to_string();
        let pairs = [
            ("boot_slot", &*name),
            ("upgrade_available", "1"),
            ("bootcount", "0"),
        ];
        Environment::read(&self.root)?.write(&self.root, &pairs)?;
        Ok(String::new())
    }

    /// Whether this version runs.
    fn runs(&self, version: &str) -> io::Result<bool> {
        let bytes = disk::read(&self.root.join(format!("slots/{}", self.slot.get())))?;
        Ok(version_of(&bytes) == version)
    }

    fn start_only(&self, slot: char) -> io::Result<String> {
        let name = slot.to_ascii_uppercase().to_string();
        let pairs = [
            ("boot_slot", &*name),
            ("upgrade_available", "0"),
            ("bootcount", "0"),
        ];
        Environment::read(&self.root)?.write(&self.root, &pairs)?;
        Ok(String::new())
    }
}

fn other(slot: char) -> char {
    if slot == 'a' { 'b' } else { 'a' }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = disk::create(path, &options, true)?;
    disk::step(Step::SetMode { path, mode: MODE }, || {
        file.set_permissions(Permissions::from_mode(MODE))
    })?;
    for (n, chunk) in bytes.chunks(1000).enumerate() {
        disk::write(&file, path, n as u64 * 1000, chunk)?;
    }
    disk::sync_file(&file, path)
}
