//! The configuration's table `[install]`: a file, two slots, or a command.

use super::{
    tables::{Seconds, WordOrCommand, command},
    wrong,
};
use crate::{
    install::{
        CommandInstall, CommandOptions, FileInstall, Installer, Restart, Running, Slot,
        SlotsInstall, SlotsOptions, Switch,
    },
    update::Failure,
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstallTable {
    file: Option<PathBuf>,
    slots: Option<BTreeMap<String, PathBuf>>,
    switch: Option<Switch>,
    running: Option<Running>,
    verify: Option<Verify>,
    command: Option<Vec<String>>,
    install_time: Option<Seconds>,
    inspect: Option<Vec<String>>,
    confirm: Option<Vec<String>>,
    rollback: Option<Vec<String>>,
    command_time: Option<Seconds>,
    restart: Option<WordOrCommand>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verify {
    ReadBack,
}

impl InstallTable {
    /// The installer it describes. Relative paths are relative to `directory`.
    pub(super) fn installer(
        &self,
        directory: &Path,
        state_dir: &Path,
    ) -> Result<Box<dyn Installer>, Failure> {
        self.check_keys()?;
        if let Some(file) = &self.file {
            let install = FileInstall::new(directory.join(file));
            let install = install.restart(self.restart(Restart::None)?);
            return Ok(match self.verify {
                Some(Verify::ReadBack) => Box::new(install.verify_read_back()),
                None => Box::new(install),
            });
        }
        if let Some(slots) = &self.slots {
            let options = self.slots(slots, directory)?;
            return Ok(Box::new(SlotsInstall::new(state_dir, options)?));
        }
        let mut options = CommandOptions::new(self.command.iter().flatten());
        options.inspect.clone_from(&self.inspect);
        options.confirm.clone_from(&self.confirm);
        options.rollback.clone_from(&self.rollback);
        options.restart = self.restart(Restart::None)?;
        set(&mut options.install_time, self.install_time);
        set(&mut options.command_time, self.command_time);
        Ok(Box::new(CommandInstall::new(state_dir, options)))
    }

    /// One installer, and no keys of another.
    fn check_keys(&self) -> Result<(), Failure> {
        let given = [
            ("file", self.file.is_some()),
            ("slots", self.slots.is_some()),
            ("command", self.command.is_some()),
        ];
        let mut given = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name);
        let (Some(of), None) = (given.next(), given.next()) else {
            return Err(wrong(
                "install must have one of file, slots and command: it says what is installed",
            ));
        };
        let (slots, by_command) = (of == "slots", of == "command");
        for (key, is, allowed) in [
            ("switch", self.switch.is_some(), slots),
            ("running", self.running.is_some(), slots),
            ("verify", self.verify.is_some(), !by_command),
            ("install_time", self.install_time.is_some(), by_command),
            ("inspect", self.inspect.is_some(), by_command),
            ("confirm", self.confirm.is_some(), by_command),
            ("rollback", self.rollback.is_some(), by_command),
            (
                "command_time",
                self.command_time.is_some(),
                slots || by_command,
            ),
        ] {
            if is && !allowed {
                let text = format_args!("install.{key} means nothing where install.{of} is set");
                return Err(wrong(text));
            }
        }
        for (given, key) in [
            (&self.command, "command"),
            (&self.inspect, "inspect"),
            (&self.confirm, "confirm"),
            (&self.rollback, "rollback"),
        ] {
            command(given.as_ref(), &format!("install.{key}"))?;
        }
        if let Some(Switch::Commands(commands)) = &self.switch {
            for (given, key) in [
                (&commands.try_slot, "try"),
                (&commands.keep, "keep"),
                (&commands.running, "running"),
            ] {
                command(Some(given), &format!("install.switch.commands.{key}"))?;
            }
        }
        if let Some(Running::Command(running)) = &self.running {
            command(Some(running), "install.running.command")?;
        }
        Ok(())
    }

    fn slots(
        &self,
        slots: &BTreeMap<String, PathBuf>,
        directory: &Path,
    ) -> Result<SlotsOptions, Failure> {
        let slots: Vec<_> = slots
            .iter()
            .map(|(name, path)| Slot::new(name, directory.join(path)))
            .collect();
        let slots = slots
            .try_into()
            .map_err(|_| wrong("install.slots must name two slots"))?;
        let Some(mut switch) = self.switch.clone() else {
            return Err(wrong(
                "install.slots needs install.switch: link, uboot, tryboot or commands",
            ));
        };
        match &mut switch {
            Switch::Link(link) => *link = directory.join(&*link),
            Switch::UBoot(uboot) => {
                uboot.config = uboot.config.as_ref().map(|config| directory.join(config));
            }
            Switch::TryBoot(tryboot) => tryboot.autoboot = directory.join(&tryboot.autoboot),
            _ => {}
        }
        // A device that reboots is another thing than a program that is started again.
        let reboots = !matches!(switch, Switch::Link(_));
        let mut options = SlotsOptions::new(slots, switch);
        options.restart = match self.restart(options.restart.clone())? {
            Restart::Command(command) if reboots => Restart::Reboot(command),
            Restart::System => options.restart,
            other => other,
        };
        if let Some(running) = &self.running {
            options.running = match running {
                Running::Link(link) => Running::Link(directory.join(link)),
                other => other.clone(),
            };
        }
        options.read_back = matches!(self.verify, Some(Verify::ReadBack));
        set(&mut options.command_time, self.command_time);
        Ok(options)
    }

    fn restart(&self, default: Restart) -> Result<Restart, Failure> {
        match &self.restart {
            None => Ok(default),
            Some(WordOrCommand::Command(given)) => {
                Ok(Restart::Command(command(Some(given), "install.restart")?))
            }
            Some(WordOrCommand::Word(word)) if word == "none" => Ok(Restart::None),
            Some(WordOrCommand::Word(word)) if word == "exit" => Ok(Restart::Exit),
            Some(WordOrCommand::Word(word)) if word == "system" => Ok(Restart::System),
            Some(WordOrCommand::Word(word)) => Err(wrong(format_args!(
                "install.restart is \"{word}\"; it must be \"none\", \"exit\", \"system\" or a command as an array of texts"
            ))),
        }
    }
}

fn set(time: &mut std::time::Duration, seconds: Option<Seconds>) {
    if let Some(seconds) = seconds {
        *time = seconds.0;
    }
}
