//! What a boot loader reads, and somebody else may have written: the Raspberry Pi's `autoboot.txt`.

use crate::journal::directory;
use std::{fs, os::unix::fs::symlink, path::Path};
use twinflash::{
    install::{Installer, Running, Slot, SlotsInstall, SlotsOptions, Switch, TryBoot},
    update::ImageInfo,
};

/// The firmware reads no longer file.
const MOST: usize = 512;

/// An `autoboot.txt` that was there: after activating, the new slot is tried once and the old one
/// started otherwise; after rolling back the old one is; what else stood in it stays; and a change
/// made twice is one.
pub(crate) fn boot_files(data: &[u8]) {
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("autoboot.txt"), data).expect("written");
    fs::write(path("a"), "old").expect("written");
    symlink("a", path("running")).expect("linked");
    let tryboot = TryBoot {
        autoboot: path("autoboot.txt"),
        partitions: [2, 3],
    };
    let slots = ["a", "b"].map(|name| Slot::new(name, path(name)));
    let mut options = SlotsOptions::new(slots, Switch::TryBoot(tryboot));
    options.running = Running::Link(path("running"));
    let mut slots = SlotsInstall::new(path("state"), options).expect("slots");
    fs::create_dir(path("state")).expect("made");
    let image = ImageInfo {
        size: Some(3),
        version: None,
    };
    let mut activated = || {
        slots.begin(&image, 0)?;
        slots.write(0, b"new")?;
        slots.sync()?;
        slots.finish()?;
        slots.activate()
    };
    if let Err(failure) = activated() {
        // It is no text, or there is no room for two partitions.
        let text = str::from_utf8(data);
        assert!(text.is_err() || data.len() + 60 > MOST, "{failure}");
        assert_eq!(fs::read(path("autoboot.txt")).expect("read"), data);
        return;
    }
    let tried = read(&path("autoboot.txt"));
    assert_eq!(
        (partition(&tried, "[all]"), partition(&tried, "[tryboot]")),
        (2, 3)
    );
    slots.activate().expect("activated again");
    assert_eq!(read(&path("autoboot.txt")), tried, "a change made twice");
    slots.rollback().expect("rolled back");
    let kept = read(&path("autoboot.txt"));
    assert_eq!(
        (partition(&kept, "[all]"), partition(&kept, "[tryboot]")),
        (2, 2)
    );
    let before = String::from_utf8_lossy(data);
    for line in before.lines().map(str::trim) {
        let name = line.split('=').next().unwrap_or_default().trim();
        let ours = line.is_empty()
            || line.starts_with('[')
            || ["boot_partition", "tryboot_a_b"].contains(&name);
        assert!(
            ours || kept.lines().any(|kept| kept == line),
            "{line:?} is gone from\n{kept}"
        );
    }
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("text");
    assert!(text.len() <= MOST, "{} bytes", text.len());
    text
}

/// The partition a section names last: that one counts.
fn partition(text: &str, section: &str) -> u32 {
    let mut current = "[all]";
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            current = line;
        } else if current == section
            && let Some(number) = line.strip_prefix("boot_partition=")
        {
            found = number.parse().ok();
        }
    }
    found.unwrap_or_else(|| panic!("no partition in {section} of\n{text}"))
}
