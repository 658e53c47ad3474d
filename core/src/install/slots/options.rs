//! What slots there are, and how is switched between them.

use crate::install::Restart;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// One of the two slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its name, as the boot loader and the commands know it: `A`, `system0`.
    pub name: String,
    /// A block device, or an image file, which need not exist yet. A symbolic link (such as
    /// `/dev/disk/by-partlabel/…`) is followed.
    pub path: PathBuf,
}

impl Slot {
    /// A slot.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
        }
    }
}

/// Where it is read which slot runs. It is never guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Running {
    /// The last argument of this name on the kernel's command line (`/proc/cmdline`), such as
    /// `root` or `rauc.slot`: a slot's name, its path or another path of the same device, or
    /// `PARTUUID=…`, `UUID=…`, `LABEL=…`, `PARTLABEL=…` as in `/dev/disk/by-…`.
    KernelArgument(String),
    /// A variable of the U-Boot environment that holds a slot's name, and that the boot loader sets
    /// whenever it boots another slot by itself.
    #[serde(rename = "uboot_variable")]
    UBootVariable(String),
    /// What this symbolic link points to.
    Link(PathBuf),
    /// The first line of what this command prints: a slot's name.
    Command(Vec<String>),
}

/// What decides which slot is started next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Switch {
    /// A symbolic link, which points to the slot that is used. It is replaced in one step. It knows no
    /// trial: what brings the old slot back is [`guard`](crate::device::guard), or the new version
    /// itself.
    Link(PathBuf),
    /// Variables of the U-Boot environment.
    #[serde(rename = "uboot")]
    UBoot(UBoot),
    /// The Raspberry Pi's `tryboot`.
    #[serde(rename = "tryboot")]
    TryBoot(TryBoot),
    /// The user's own commands.
    Commands(SlotCommands),
}

/// How the U-Boot environment says which slot is started.
///
/// By default with the variables of U-Boot's own boot counter (`CONFIG_BOOTCOUNT_LIMIT` with
/// `CONFIG_BOOTCOUNT_ENV`, see the U-Boot documentation, "Boot Count Limit"), and one for the slot:
///
/// | variable | what it is |
/// |---|---|
/// | `boot_slot` | the name of the slot that is started |
/// | `upgrade_available` | 1 while a new slot has to prove itself: U-Boot counts its starts then |
/// | `bootcount` | starts so far; set to 0 here |
/// | `bootlimit` | starts a new slot has; set once, when the device is made |
///
/// When `bootcount` is above `bootlimit`, U-Boot runs `altbootcmd` in place of `bootcmd`. A device
/// needs in its default environment, for slots A and B:
///
/// ```text
/// bootlimit=3
/// boot_slot=A
/// bootcmd=if test ${boot_slot} = B; then setenv part 3; else setenv part 2; fi; setenv bootargs root=/dev/mmcblk0p${part} rw; load mmc 0:${part} ${kernel_addr_r} /boot/Image; booti ${kernel_addr_r} - ${fdtcontroladdr}
/// altbootcmd=if test ${boot_slot} = B; then setenv boot_slot A; else setenv boot_slot B; fi; setenv upgrade_available 0; setenv bootcount 0; saveenv; run bootcmd
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UBoot {
    /// What is set so that a slot is tried: started a limited number of times, then the other one.
    /// `{slot}` is its name, `{other}` the other's; both also in a variable's name.
    #[serde(rename = "try")]
    pub try_slot: BTreeMap<String, String>,
    /// What is set so that a slot is started from now on, and the other one never.
    pub keep: BTreeMap<String, String>,
    /// The tools' configuration, for `-c`; by default `/etc/fw_env.config`.
    pub config: Option<PathBuf>,
    /// The program that prints variables.
    pub printenv: String,
    /// The program that sets variables. All of one change are set by one run of it
    /// (`fw_setenv -s`), and so by one write of the environment.
    pub setenv: String,
}

impl Default for UBoot {
    fn default() -> Self {
        Self::with(
            &[
                ("boot_slot", "{slot}"),
                ("upgrade_available", "1"),
                ("bootcount", "0"),
            ],
            &[
                ("boot_slot", "{slot}"),
                ("upgrade_available", "0"),
                ("bootcount", "0"),
            ],
        )
    }
}

impl UBoot {
    /// The variables of RAUC's boot script for U-Boot: `BOOT_ORDER`, and `BOOT_<name>_LEFT` with so
    /// many tries. That script takes a try at *every* start: something on the device must fill
    /// the running slot's tries up again after each good one, as `rauc status mark-good` does.
    pub fn boot_order(tries: u32) -> Self {
        let tries = tries.to_string();
        Self::with(
            &[
                ("BOOT_ORDER", "{slot} {other}"),
                ("BOOT_{slot}_LEFT", &tries),
                ("BOOT_{other}_LEFT", &tries),
            ],
            &[("BOOT_ORDER", "{slot}"), ("BOOT_{slot}_LEFT", &tries)],
        )
    }

    fn with(try_slot: &[(&str, &str)], keep: &[(&str, &str)]) -> Self {
        let map = |pairs: &[(&str, &str)]| {
            // Not collected: see SlotsInstall::print.
            let mut variables = BTreeMap::new();
            for (name, value) in pairs {
                variables.insert((*name).into(), (*value).into());
            }
            variables
        };
        Self {
            try_slot: map(try_slot),
            keep: map(keep),
            config: None,
            printenv: "fw_printenv".into(),
            setenv: "fw_setenv".into(),
        }
    }
}

/// The Raspberry Pi's `tryboot` with `autoboot.txt` (Raspberry Pi documentation, "The `tryboot`
/// feature"): the section `[all]` names the partition that is booted, `[tryboot]` the one that is
/// booted once, after `reboot "0 tryboot"`.
///
/// A power cut between activation and that reboot is a normal start: the old slot runs, and the update
/// ends as rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TryBoot {
    /// Where `autoboot.txt` is mounted: on the first partition, which no update writes.
    pub autoboot: PathBuf,
    /// The numbers of the boot partitions that start the two slots, in the order of the slots.
    pub partitions: [u32; 2],
}

/// Commands that switch. In their arguments `{slot}` is a slot's name and `{device}` its path. They
/// must end with status 0 once the change is durable, and may be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotCommands {
    /// Makes a slot the one that is started next; where it does not prove itself, the other one is.
    #[serde(rename = "try")]
    pub try_slot: Vec<String>,
    /// Makes a slot the one that is started from now on, and the other one never.
    pub keep: Vec<String>,
    /// Prints the name of the slot that runs.
    pub running: Vec<String>,
}

/// What a [`SlotsInstall`](super::SlotsInstall) is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotsOptions {
    /// The two slots.
    pub slots: [Slot; 2],
    /// What decides which of them is started.
    pub switch: Switch,
    /// What tells which of them runs.
    pub running: Running,
    /// The finished image is read back from its medium, past all caches, and hashed, before it is
    /// activated. Default: no.
    pub read_back: bool,
    /// What makes the new slot run. Default: the device reboots; with tryboot by
    /// `reboot "0 tryboot"`.
    pub restart: Restart,
    /// The time each command has. Default: 60 s.
    pub command_time: Duration,
}

impl SlotsOptions {
    /// Which slot runs is told by the link or the commands themselves; with U-Boot and tryboot
    /// by the kernel's `root=`.
    pub fn new(slots: [Slot; 2], switch: Switch) -> Self {
        let (running, restart) = match &switch {
            Switch::Link(link) => (Running::Link(link.clone()), Restart::System),
            Switch::Commands(commands) => {
                (Running::Command(commands.running.clone()), Restart::System)
            }
            Switch::UBoot(_) => (Running::KernelArgument("root".into()), Restart::System),
            Switch::TryBoot(_) => (
                Running::KernelArgument("root".into()),
                Restart::Reboot(vec!["reboot".into(), "0 tryboot".into()]),
            ),
        };
        Self {
            slots,
            switch,
            running,
            read_back: false,
            restart,
            command_time: Duration::from_secs(60),
        }
    }
}
