//! Which slot runs.

use super::options::{Running, Slot};
use super::{SlotsInstall, same_place, shown};
use crate::command;
use crate::install::part::storage;
use crate::update::{Code, Failure};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

impl SlotsInstall {
    /// The slot that runs, by what the configuration says is to be asked.
    pub(super) fn asked(&self) -> Result<&Slot, Failure> {
        match &self.options.running {
            Running::KernelArgument(name) => {
                let path = self.root.join("proc/cmdline");
                let line = fs::read_to_string(&path).map_err(storage("read", &path))?;
                let value = line
                    .split_ascii_whitespace()
                    .filter_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
                    .next_back();
                let what = format!("the kernel's argument {name}");
                self.named(&what, value.unwrap_or_default())
            }
            Running::UBootVariable(name) => {
                let variables = self.variables()?;
                let value = variables.get(name).map(String::as_str);
                let what = format!("the U-Boot variable {name}");
                self.named(&what, value.unwrap_or_default())
            }
            Running::Link(link) => {
                let to = fs::read_link(link).map_err(storage("read the link", link))?;
                let to = link.parent().unwrap_or(link).join(to);
                self.at(&to)
                    .ok_or_else(|| self.no_slot(&link.display(), &to.display()))
            }
            Running::Command(command) => {
                let printed = command::run(command, self.options.command_time)?;
                let line = printed.lines().next().unwrap_or_default();
                let what = command.first().map_or("", String::as_str);
                self.named(&what, line.trim())
            }
        }
    }

    /// The slot that a value names.
    fn named(&self, what: &dyn fmt::Display, value: &str) -> Result<&Slot, Failure> {
        let [a, b] = &self.options.slots;
        [a, b]
            .into_iter()
            .find(|slot| slot.name == value)
            .or_else(|| self.at(&self.device(value)?))
            .ok_or_else(|| self.no_slot(what, &value))
    }

    fn at(&self, path: &Path) -> Option<&Slot> {
        let [a, b] = &self.options.slots;
        [a, b].into_iter().find(|slot| same_place(&slot.path, path))
    }

    /// The path of a device as the kernel's `root=` names it.
    fn device(&self, value: &str) -> Option<PathBuf> {
        let (by, value) = match value.split_once('=') {
            // udev's names of these are in lower case.
            Some(("PARTUUID", id)) => ("by-partuuid", id.to_ascii_lowercase()),
            Some(("UUID", id)) => ("by-uuid", id.to_owned()),
            Some(("LABEL", label)) => ("by-label", label.to_owned()),
            Some(("PARTLABEL", label)) => ("by-partlabel", label.to_owned()),
            _ => return value.starts_with('/').then(|| value.into()),
        };
        (!value.contains('/')).then(|| self.root.join("dev/disk").join(by).join(value))
    }

    fn no_slot(&self, what: &dyn fmt::Display, value: &dyn fmt::Display) -> Failure {
        let [a, b] = &self.options.slots;
        Failure::new(
            Code::InstallFailed,
            format_args!(
                "which slot runs cannot be told: {what} says \"{value}\"; the slots are {} and {}",
                shown(a),
                shown(b)
            ),
        )
    }
}
