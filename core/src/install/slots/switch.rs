//! Sets what decides which slot is started.

use super::SlotsInstall;
use super::options::{Running, Slot, Switch, TryBoot, UBoot};
use crate::command::{self, fill_one};
use crate::disk;
use crate::install::part::{cannot, storage};
use crate::update::{Code, Failure};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The firmware reads no longer file.
const AUTOBOOT_MAX: usize = 512;

impl SlotsInstall {
    /// From the next start on `slot` is tried, and `other` is what is gone back to.
    pub(super) fn try_slot(&self, slot: &Slot, other: &Slot) -> Result<(), Failure> {
        match &self.options.switch {
            Switch::Link(link) => point(link, &slot.path),
            Switch::UBoot(uboot) => self.set(uboot, &uboot.try_slot, slot, other),
            Switch::TryBoot(tryboot) => self.boot(tryboot, other, slot),
            Switch::Commands(commands) => self.run(&commands.try_slot, slot),
        }
    }

    /// From the next start on `slot` runs, and `other` never.
    pub(super) fn keep(&self, slot: &Slot, other: &Slot) -> Result<(), Failure> {
        match &self.options.switch {
            Switch::Link(link) => point(link, &slot.path),
            Switch::UBoot(uboot) => self.set(uboot, &uboot.keep, slot, other),
            Switch::TryBoot(tryboot) => self.boot(tryboot, slot, slot),
            Switch::Commands(commands) => self.run(&commands.keep, slot),
        }
    }

    /// What a killed process did to a link may be seen before it is durable; it will be acted upon.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let Switch::Link(link) = &self.options.switch else {
            return Ok(());
        };
        let link = std::path::absolute(link).map_err(storage("find", link))?;
        let directory = link.parent().unwrap_or(&link);
        disk::sync_dir(directory).map_err(storage("sync", directory))
    }

    fn run(&self, command: &[String], slot: &Slot) -> Result<(), Failure> {
        let device = slot.path.to_string_lossy();
        let command = command::fill(command, &[("slot", &slot.name), ("device", &device)]);
        command::run(&command, self.options.command_time).map(drop)
    }

    /// The U-Boot environment.
    pub(super) fn variables(&self) -> Result<BTreeMap<String, String>, Failure> {
        match (&self.options.switch, &self.options.running) {
            (Switch::UBoot(uboot), _) => self.print(uboot),
            (_, Running::UBootVariable(_) | _) => self.print(&UBoot::default()),
        }
    }

    fn print(&self, uboot: &UBoot) -> Result<BTreeMap<String, String>, Failure> {
        let printed = self.tool(uboot, &uboot.printenv, &[])?;
        // Collected, they would be sorted first: 10 kB of code.
        let mut variables = BTreeMap::new();
        for (name, value) in printed.lines().filter_map(|line| line.split_once('=')) {
            variables.insert(name.into(), value.into());
        }
        Ok(variables)
    }

    fn tool(&self, uboot: &UBoot, tool: &str, arguments: &[&str]) -> Result<String, Failure> {
        let config = uboot.config.as_ref().map(|path| path.to_string_lossy());
        let mut command = vec![tool];
        if let Some(config) = &config {
            command.extend(["-c", config]);
        }
        command.extend(arguments);
        command::run(&command, self.options.command_time)
    }

    /// Sets variables of the U-Boot environment, all by one write of it; none where this process has set them.
    fn set(
        &self,
        uboot: &UBoot,
        variables: &BTreeMap<String, String>,
        slot: &Slot,
        other: &Slot,
    ) -> Result<(), Failure> {
        let values = [("slot", &*slot.name), ("other", &*other.name)];
        let wanted: Vec<_> = variables
            .iter()
            .map(|(name, value)| (fill_one(name, &values), fill_one(value, &values)))
            .collect();
        let set = || -> Result<bool, Failure> {
            let now = self.print(uboot)?;
            Ok(wanted
                .iter()
                .all(|(name, value)| now.get(name) == Some(value)))
        };
        // What others have written, and failed to, may be the kernel's alone so far (fsync(2)): it is written again.
        if self.settled.replace(false) && set()? {
            self.settled.set(true);
            return Ok(());
        }
        let script = self.state_dir.join("uboot-script");
        let mut result = Ok(());
        // libubootenv's tool takes lines with "=", and ignores others; U-Boot's own takes them with a space, and
        // refuses a name with "=". With status 0 each has written all variables, also those that were so before.
        for separator in ['=', ' '] {
            let lines = wanted.iter();
            let lines: String = lines
                .map(|(name, value)| format!("{name}{separator}{value}\n"))
                .collect();
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            disk::create(&script, &options, true)
                .and_then(|file| disk::write(&file, &script, 0, lines.as_bytes()))
                .map_err(storage("write", &script))?;
            let script = script.to_string_lossy();
            result = (self.tool(uboot, &uboot.setenv, &["-s", &script])).map(drop);
            if result.is_ok() && set()? {
                self.settled.set(true);
                break;
            }
        }
        let _ = disk::remove(&script);
        result?;
        if !self.settled.get() {
            let text = format_args!("{} did not set the U-Boot environment", uboot.setenv);
            return Err(Failure::new(Code::InstallFailed, text));
        }
        Ok(())
    }

    /// Makes the Raspberry Pi boot `normal`, and `once` after `reboot "0 tryboot"`.
    fn boot(&self, tryboot: &TryBoot, normal: &Slot, once: &Slot) -> Result<(), Failure> {
        let [a, _] = &self.options.slots;
        let [of_a, of_b] = tryboot.partitions;
        let of = |slot: &Slot| if slot == a { of_a } else { of_b };
        let path = &tryboot.autoboot;
        let before = match disk::read_text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(storage("read", path))?,
        };
        let text = autoboot(&before, of(normal), of(once));
        if text.len() > AUTOBOOT_MAX {
            let why = format!("it may have {AUTOBOOT_MAX} bytes, and has {}", text.len());
            return Err(storage("write", path)(io::Error::other(why)));
        }
        if text == before {
            return disk::sync_dir(path.parent().unwrap_or(path)).map_err(storage("sync", path));
        }
        disk::replace(path, text.as_bytes()).map_err(cannot(Code::InstallFailed, "write", path))
    }
}

/// An `autoboot.txt` with two partitions; other settings are kept.
fn autoboot(before: &str, normal: u32, once: u32) -> String {
    let mut sections = vec![
        ("[all]", vec!["tryboot_a_b=1".into(), partition(normal)]),
        ("[tryboot]", vec![partition(once)]),
    ];
    let mut section = "[all]";
    for line in before.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
            continue;
        }
        let name = line.split('=').next().unwrap_or_default().trim();
        if line.is_empty() || matches!(name, "boot_partition" | "tryboot_a_b") {
            continue;
        }
        match sections.iter_mut().find(|(name, _)| *name == section) {
            Some((_, lines)) => lines.push(line.into()),
            None => sections.push((section, vec![line.into()])),
        }
    }
    let sections = sections.into_iter();
    sections
        .map(|(name, lines)| format!("{name}\n{}\n", lines.join("\n")))
        .collect()
}

fn partition(number: u32) -> String {
    format!("boot_partition={number}")
}

/// Makes a symbolic link point to `to`, in one step.
fn point(link: &Path, to: &Path) -> Result<(), Failure> {
    let failed = cannot(Code::InstallFailed, "replace the link", link);
    let link = &std::path::absolute(link).map_err(&failed)?;
    let to = std::path::absolute(to).map_err(&failed)?;
    let directory = link.parent().unwrap_or(link);
    // Within its own directory it still holds where that is mounted elsewhere.
    let to = match (to.parent(), to.file_name()) {
        (Some(parent), Some(name)) if parent == directory => PathBuf::from(name),
        _ => to,
    };
    let points = match fs::symlink_metadata(link) {
        Ok(found) if !found.is_symlink() => {
            return Err(failed(io::Error::other("it is no symbolic link")));
        }
        Ok(_) => fs::read_link(link).is_ok_and(|now| now == to),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed(error)),
    };
    let mut beside = OsString::from(".");
    beside.push(link.file_name().unwrap_or_default());
    beside.push(".twinflash-link");
    let beside = directory.join(beside);
    (|| {
        disk::remove(&beside)?;
        if !points {
            disk::symlink(&to, &beside)?;
            disk::rename(&beside, link)?;
        }
        disk::sync_dir(directory)
    })()
    .map_err(failed)
}
