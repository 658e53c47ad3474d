//! A device for the tests: what boots it, what runs, two slots.

use super::*;

/// A device on a file system of its own: what boots, what runs, two slots.
pub(super) struct Device {
    pub(super) directory: tempfile::TempDir,
    pub(super) switch: &'static str,
    /// `reboot "0 tryboot"` was asked for.
    once: bool,
}

impl Device {
    /// One that runs slot A; slot B holds an image before that.
    pub(super) fn new(switch: &'static str) -> Self {
        // In memory where that can be: thousands of runs, and a sync on a disk takes its time.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.unwrap();
        let path = directory.path();
        for (file, content) in [
            ("a.img", OLD),
            ("b.img", b"even older"),
            ("proc/sys/kernel/random/boot_id", b"1\n"),
            (
                "env",
                b"boot_slot=A\nbootcount=0\nupgrade_available=0\nbootlimit=3\n",
            ),
            ("autoboot.txt", b"[all]\ntryboot_a_b=1\nboot_partition=2\n"),
            ("next", b"A keep\n"),
        ] {
            fs::create_dir_all(path.join(file).parent().unwrap()).unwrap();
            fs::write(path.join(file), content).unwrap();
        }
        symlink("a.img", path.join("current")).unwrap();
        let it = Self {
            directory,
            switch,
            once: false,
        };
        it.set_running("A");
        if matches!(switch, "link" | "tryboot") {
            return it;
        }
        // Small, but real: the environment is replaced in one step, as the tools do.
        it.script("printenv", "exec cat env");
        it.script(
            "setenv",
            r#"[ "$1" = -s ] || exit 2
               awk -F= 'NR == FNR { set[$1] = $0; next }
                   !($1 in set) { print }
                   END { for (name in set) print set[name] }' "$2" env > env.new
               exec mv env.new env"#,
        );
        it.script(
            "switch",
            r#"[ -b "$3" ] || [ -f "$3" ] || exit 4; echo "$2 $1" > next.new; mv next.new next"#,
        );
        it.script("asks", "exec cat running");
        it
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(super) fn script(&self, name: &str, body: &str) {
        course::script(&self.path(name), body);
    }

    pub(super) fn options(&self) -> SlotsOptions {
        let command = |words: &[&str]| {
            let mut command: Vec<String> = words.iter().map(|word| (*word).into()).collect();
            command[0] = self.text(words[0]);
            command
        };
        let switch = match self.switch {
            "link" => Switch::Link(self.path("current")),
            "uboot" | "variable" => Switch::UBoot(UBoot {
                printenv: self.text("printenv"),
                setenv: self.text("setenv"),
                ..UBoot::default()
            }),
            "tryboot" => Switch::TryBoot(TryBoot {
                autoboot: self.path("autoboot.txt"),
                partitions: [2, 3],
            }),
            _ => Switch::Commands(SlotCommands {
                try_slot: command(&["switch", "try", "{slot}", "{device}"]),
                keep: command(&["switch", "keep", "{slot}", "{device}"]),
                running: command(&["asks"]),
            }),
        };
        let slots = [
            Slot::new("A", self.path("a.img")),
            Slot::new("B", self.path("b.img")),
        ];
        let mut options = SlotsOptions::new(slots, switch);
        if self.switch == "variable" {
            options.running = Running::UBootVariable("boot_slot".into());
        }
        options
    }

    pub(super) fn install(&self) -> SlotsInstall {
        self.with(self.options())
    }

    pub(super) fn with(&self, options: SlotsOptions) -> SlotsInstall {
        let mut it = SlotsInstall::new(self.directory.path(), options).unwrap();
        it.root = self.directory.path().into();
        it
    }

    pub(super) fn running(&self) -> String {
        fs::read_to_string(self.path("running"))
            .unwrap()
            .trim()
            .into()
    }

    pub(super) fn set_running(&self, slot: &str) {
        fs::write(self.path("running"), format!("{slot}\n")).unwrap();
        let image = self.path(&format!("{}.img", slot.to_lowercase()));
        let line = format!("quiet root=/none root={} ro", image.display());
        fs::write(self.path("proc/cmdline"), line).unwrap();
    }

    pub(super) fn variable(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path("env")).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(n, _)| *n == name).unwrap().1.into()
    }

    /// What the boot loader starts next; what it changes thereby is done if `now`.
    pub(super) fn next(&self, now: bool) -> String {
        match self.switch {
            "link" => {
                let to = fs::read_link(self.path("current")).unwrap();
                let b = to.ends_with("b.img");
                if b { "B" } else { "A" }.into()
            }
            "uboot" | "variable" => {
                let slot = self.variable("boot_slot");
                let mut count: u32 = self.variable("bootcount").parse().unwrap();
                let trial = self.variable("upgrade_available") == "1";
                count += u32::from(trial);
                let back = count > self.variable("bootlimit").parse().unwrap();
                let slot = match back {
                    true if slot == "A" => "B".into(),
                    true => "A".into(),
                    false => slot,
                };
                if now {
                    let (count, trial) = if back { (0, 0) } else { (count, trial.into()) };
                    let env = format!(
                        "boot_slot={slot}\nbootcount={count}\nupgrade_available={trial}\nbootlimit=3\n"
                    );
                    fs::write(self.path("env"), env).unwrap();
                }
                slot
            }
            "tryboot" => {
                let text = fs::read_to_string(self.path("autoboot.txt")).unwrap();
                let once = text.split_once("[tryboot]").filter(|_| self.once);
                let part = once.map_or(&*text, |(_, once)| once);
                let number = part.split_once("boot_partition=").unwrap().1;
                if number.starts_with('3') { "B" } else { "A" }.into()
            }
            _ => {
                let text = fs::read_to_string(self.path("next")).unwrap();
                let (slot, how) = text.trim().split_once(' ').unwrap();
                if now && how == "try" {
                    let other = if slot == "A" { "B" } else { "A" };
                    fs::write(self.path("next"), format!("{other} keep\n")).unwrap();
                }
                slot.into()
            }
        }
    }

    pub(super) fn reboot(&mut self, once: bool) {
        self.once = once && self.switch == "tryboot";
        let slot = self.next(true);
        self.once = false;
        self.set_running(&slot);
        let id = self.path("proc/sys/kernel/random/boot_id");
        let number: u32 = fs::read_to_string(&id).unwrap().trim().parse().unwrap();
        fs::write(id, format!("{}\n", number + 1)).unwrap();
    }

    pub(super) fn slot(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(&format!("{}.img", name.to_lowercase()))).unwrap()
    }
}

pub(super) fn info(size: u64) -> ImageInfo {
    ImageInfo {
        size: Some(size),
        version: None,
    }
}

/// An update up to and with `finish`.
pub(super) fn stage(it: &mut SlotsInstall) {
    assert_eq!(it.begin(&info(NEW.len() as u64), 0).unwrap(), 0);
    it.write(0, &NEW[..5]).unwrap();
    it.write(5, &NEW[5..]).unwrap();
    assert_eq!(it.sync().unwrap(), NEW.len() as u64);
    it.finish().unwrap();
}
