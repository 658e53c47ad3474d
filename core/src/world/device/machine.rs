//! What the device is: its files, what is installed in which way, and what starts.

use super::super::case::Kind;
use super::super::disk::Disk;
use super::super::outside::OLD;
use super::World;
use super::environment::Environment;
use crate::install::{
    CommandInstall, CommandOptions, FileInstall, Installer, Restart, Slot, SlotsInstall,
    SlotsOptions, Switch, TryBoot, UBoot,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(super) const MODE: u32 = 0o750;

/// A device as it leaves the factory. The answer is the directories whose account is taken.
pub(super) fn lay_out(kind: Kind, root: &Path) -> Vec<PathBuf> {
    let at = |path: &str| root.join(path);
    let tracked: Vec<_> = ["state", "app", "slots", "boot"].map(at).into();
    for path in &tracked {
        fs::create_dir(path).unwrap();
    }
    fs::create_dir_all(at("proc/sys/kernel/random")).unwrap();
    let put = |path: &str, bytes: &[u8]| {
        fs::write(at(path), bytes).unwrap();
        fs::set_permissions(at(path), fs::Permissions::from_mode(MODE)).unwrap();
    };
    match kind {
        Kind::Program { old: false, .. } => {}
        kind if kind.has_slots() => put("slots/a", &OLD),
        _ => put("app/app.bin", &OLD),
    }
    match kind {
        Kind::Link => std::os::unix::fs::symlink(at("slots/a"), at("boot/current")).unwrap(),
        Kind::TryBoot => {
            let text = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";
            put("boot/autoboot.txt", text.as_bytes());
        }
        Kind::UBoot | Kind::Handed => {
            let [first, second] = Environment::factory();
            put("boot/env0", &first);
            put("boot/env1", &second);
        }
        _ => {}
    }
    tracked
}

/// The slots that may be started, the one that is normally started first.
pub(super) fn startable(kind: Kind, disk: &Disk, root: &Path) -> Option<Vec<char>> {
    match kind {
        Kind::Link => {
            let to = disk.link(&root.join("boot/current"))?;
            let mut slots = ['a', 'b'].into_iter();
            let slot = slots.find(|slot| root.join(format!("slots/{slot}")) == to)?;
            Some(vec![slot])
        }
        Kind::TryBoot => Some(boot_loader(disk.content(&root.join("boot/autoboot.txt"))?).into()),
        _ => Some(Environment::on(disk, root)?.startable()),
    }
}

impl World {
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(super) fn installer(&self) -> Box<dyn Installer> {
        let file = |restart| {
            Box::new(FileInstall::new(self.path("app/app.bin")).restart(restart))
                as Box<dyn Installer>
        };
        let slots = |switch| {
            let slots = [
                Slot::new("A", self.path("slots/a")),
                Slot::new("B", self.path("slots/b")),
            ];
            SlotsOptions::new(slots, switch)
        };
        let of_system = |options| {
            let it = SlotsInstall::new(self.path("state"), options).unwrap();
            Box::new(it.with_root(self.root.path())) as Box<dyn Installer>
        };
        let command = |line: &[&str]| Some(line.iter().copied().map(String::from).collect());
        let commands = |options| {
            let it = CommandInstall::new(self.path("state"), options);
            Box::new(it.with_root(self.root.path())) as Box<dyn Installer>
        };
        match self.case.kind {
            Kind::Program { .. } => file(Restart::Exit),
            Kind::Data => file(Restart::None),
            Kind::Service => file(Restart::Command(vec!["restart".into()])),
            Kind::System => file(Restart::System),
            Kind::Link => {
                let mut options = slots(Switch::Link(self.path("boot/current")));
                options.restart = Restart::Exit;
                Box::new(SlotsInstall::new(self.path("state"), options).unwrap())
            }
            Kind::TryBoot => of_system(slots(Switch::TryBoot(TryBoot {
                autoboot: self.path("boot/autoboot.txt"),
                partitions: [2, 3],
            }))),
            Kind::UBoot => of_system(slots(Switch::UBoot(UBoot::default()))),
            Kind::Script => {
                let mut options = CommandOptions::new(["install-file", "{image}", "{version}"]);
                options.confirm = command(&["keep-file"]);
                options.rollback = command(&["old-file", "{version}"]);
                options.restart = Restart::Exit;
                commands(options)
            }
            Kind::Handed => {
                let mut options = CommandOptions::new(["install-slot", "{image}"]);
                options.inspect = command(&["which-runs", "{version}"]);
                options.confirm = command(&["keep-slot"]);
                options.rollback = command(&["old-slot", "{version}"]);
                options.restart = Restart::System;
                commands(options)
            }
        }
    }

    /// What is active: what the next start runs, or who opens the file gets.
    pub(super) fn active(&self) -> Option<Vec<u8>> {
        let disk = self.disk.borrow();
        let path = match self.case.kind {
            kind if kind.has_slots() => {
                let slots = startable(kind, &disk, self.root.path())?;
                self.path(&format!("slots/{}", slots[0]))
            }
            _ => self.path("app/app.bin"),
        };
        disk.content(&path).map(<[u8]>::to_vec)
    }

    /// What runs.
    pub(super) fn running(&self) -> Vec<u8> {
        let old = || OLD.clone();
        match self.case.kind {
            kind if kind.has_boot_loader() => {
                let path = self.path(&format!("slots/{}", self.slot.get()));
                let disk = self.disk.borrow();
                disk.content(&path).map_or_else(old, <[u8]>::to_vec)
            }
            Kind::Service | Kind::System => self.outside.borrow().service.clone(),
            Kind::Data => old(),
            // A process of it starts each time.
            _ => self.active().unwrap_or_else(old),
        }
    }

    pub(super) fn boot_system(&mut self) {
        self.boots += 1;
        let asked = std::mem::take(&mut self.asked);
        let id = format!("boot-{}", self.boots);
        fs::write(self.path("proc/sys/kernel/random/boot_id"), id).unwrap();
        if self.case.kind.has_boot_loader() {
            let slot = match self.case.kind {
                Kind::TryBoot => {
                    let disk = self.disk.borrow();
                    let slots = boot_loader(disk.content(&self.path("boot/autoboot.txt")).unwrap());
                    slots[usize::from(asked)]
                }
                _ => Environment::boot(&mut self.disk.borrow_mut(), self.root.path()),
            };
            self.slot.set(slot);
            let line = format!("root={}", self.path(&format!("slots/{slot}")).display());
            fs::write(self.path("proc/cmdline"), line).unwrap();
        }
        if let Some(active) = self.active() {
            self.outside.borrow_mut().service = active;
        }
    }
}

/// What the Raspberry Pi's boot loader starts: normally, and once.
fn boot_loader(text: &[u8]) -> [char; 2] {
    let text = String::from_utf8_lossy(text);
    let mut slots = text.lines().filter_map(|line| {
        let number = line.strip_prefix("boot_partition=")?;
        Some(if number == "2" { 'a' } else { 'b' })
    });
    [slots.next(), slots.next()].map(|slot| slot.unwrap_or('?'))
}
