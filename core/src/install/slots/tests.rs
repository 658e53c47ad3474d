use super::*;
use crate::disk::cut;
use crate::install::course;
use sha2::{Digest, Sha256};
use std::os::unix::fs::{FileExt, symlink};
use std::process::Command;

mod board;
mod crash;
mod device;
mod uboot;

use board::{Device, info, stage};

const OLD: &[u8] = b"the old image, which is the longer one";
const NEW: &[u8] = b"the new image";

const SWITCHES: [&str; 5] = ["link", "uboot", "variable", "tryboot", "commands"];

#[test]
fn an_update_and_the_next_one() {
    for switch in SWITCHES {
        let mut device = Device::new(switch);
        let mut it = device.install();
        for (runs, other) in [("A", "B"), ("B", "A")] {
            let before = device.slot(runs);
            assert_eq!(device.running(), runs);
            it.begin(&info(NEW.len() as u64), 0).unwrap();
            assert_eq!(it.inspect().unwrap(), ImageState::Partial);
            assert_eq!(device.next(false), runs, "{switch}");
            stage(&mut it);
            assert_eq!(it.inspect().unwrap(), ImageState::Old);
            it.activate().unwrap();
            assert_eq!(it.inspect().unwrap(), ImageState::New);
            device.reboot(true);
            assert_eq!(device.running(), other, "{switch}");
            let mut it = device.install();
            assert_eq!(it.inspect().unwrap(), ImageState::New);
            it.confirm().unwrap();
            it.confirm().unwrap();
            assert_eq!(it.inspect().unwrap(), ImageState::New);
            for _ in 0..5 {
                device.reboot(false);
                assert_eq!(device.running(), other, "{switch}");
            }
            assert_eq!(device.slot(other), NEW);
            assert_eq!(device.slot(runs), before, "{switch}");
        }
    }
}

#[test]
fn rolled_back_by_the_new_version() {
    for switch in SWITCHES {
        let mut device = Device::new(switch);
        stage(&mut device.install());
        device.install().activate().unwrap();
        device.reboot(true);
        let mut it = device.install();
        it.rollback().unwrap();
        assert_eq!(it.inspect().unwrap(), ImageState::Old, "{switch}");
        // Neither slot may be written now: one runs, the other is the only good one.
        let failure = it.begin(&info(1), 0).unwrap_err();
        assert!(failure.message.contains("slot B still runs"), "{failure}");
        it.abort().unwrap();
        device.reboot(true);
        assert_eq!(device.running(), "A", "{switch}");
        assert_eq!(it.inspect().unwrap(), ImageState::Old, "{switch}");
        it.abort().unwrap();
        assert_eq!(device.slot("A"), OLD);
        stage(&mut it);
    }
}

/// Where the device does not restart, a state directory that cannot be written does not keep the old
/// slot from coming back; where it does, nothing is switched that could not be remembered.
#[test]
fn rolled_back_with_a_state_directory_that_cannot_be_written() {
    for (restart, slot) in [(Restart::None, "A"), (Restart::System, "B")] {
        let device = Device::new("link");
        let mut options = device.options();
        options.restart = restart.clone();
        let mut it = device.with(options.clone());
        stage(&mut it);
        it.activate().unwrap();
        assert_eq!(device.next(false), "B");
        let beside = it.memory_path().with_extension("json.new");
        fs::create_dir(&beside).unwrap();
        assert_eq!(it.rollback().is_ok(), slot == "A");
        assert_eq!(device.next(false), slot);
        if restart == Restart::None {
            let mut it = device.with(options);
            assert_eq!(it.inspect().unwrap(), ImageState::Old);
            fs::remove_dir(&beside).unwrap();
            it.begin(&info(13), 0).unwrap();
            assert_eq!(device.slot("A"), OLD);
        }
    }
}

#[test]
fn the_boot_loader_goes_back() {
    for switch in ["uboot", "variable", "tryboot", "commands"] {
        let mut device = Device::new(switch);
        stage(&mut device.install());
        device.install().activate().unwrap();
        let mut starts = 0;
        device.reboot(true);
        while device.running() == "B" {
            assert_eq!(device.install().inspect().unwrap(), ImageState::New);
            starts += 1;
            device.reboot(false);
        }
        let counted = matches!(switch, "uboot" | "variable");
        assert_eq!(starts, if counted { 3 } else { 1 });
        let mut it = device.install();
        assert_eq!(it.inspect().unwrap(), ImageState::Old);
        let failure = it.confirm().unwrap_err();
        assert!(failure.message.contains("slot A runs, not B"), "{failure}");
        it.abort().unwrap();
        device.reboot(false);
        assert_eq!(device.running(), "A");
    }
}

/// An activation that is given up, before the device restarted.
#[test]
fn given_up_before_the_restart() {
    for switch in SWITCHES {
        for rollback in [true, false] {
            let mut device = Device::new(switch);
            let mut it = device.install();
            stage(&mut it);
            it.activate().unwrap();
            if rollback {
                it.rollback().unwrap();
            }
            it.abort().unwrap();
            assert_eq!(it.inspect().unwrap(), ImageState::Old);
            device.reboot(true);
            assert_eq!(device.running(), "A", "{switch}");
            stage(&mut it);
        }
    }
}

#[test]
fn what_was_begun_is_resumed() {
    let device = Device::new("link");
    let mut it = device.install();
    it.begin(&info(13), 0).unwrap();
    it.write(0, &NEW[..8]).unwrap();
    it.sync().unwrap();
    it.write(8, &NEW[8..10]).unwrap();
    for (resume, start) in [(8, 8), (9, 0)] {
        let mut it = device.install();
        assert_eq!(it.begin(&info(13), resume).unwrap(), start);
        assert_eq!(device.slot("B").len() as u64, start);
    }
    // From zero: what a checkpoint said before is not there any more.
    let mut it = device.install();
    assert_eq!(it.begin(&info(13), 8).unwrap(), 0);
    stage(&mut it);
    // One that was finished is taken up again; one that was confirmed is in the other slot.
    assert_eq!(it.begin(&info(13), 13).unwrap(), 13);
    it.finish().unwrap();
    it.activate().unwrap();
    let other = "the start of another system";
    fs::write(device.path("proc/sys/kernel/random/boot_id"), other).unwrap();
    it.confirm().unwrap();
    assert_eq!(it.begin(&info(13), 13).unwrap(), 0);
    assert_eq!(device.slot("B"), NEW);
    assert!(device.slot("A").is_empty());
}

#[test]
fn half_an_image_is_never_activated() {
    for switch in SWITCHES {
        let mut device = Device::new(switch);
        let mut it = device.install();
        assert_eq!(it.activate().unwrap_err().code, Code::InstallFailed);
        assert_eq!(it.finish().unwrap_err().code, Code::InstallFailed);
        assert_eq!(it.write(0, b"x").unwrap_err().code, Code::Storage);
        assert_eq!(it.sync().unwrap_err().code, Code::Storage);
        it.begin(&info(13), 0).unwrap();
        it.write(0, b"x").unwrap();
        for result in [it.activate(), it.confirm()] {
            let failure = result.unwrap_err();
            assert!(failure.message.contains("whole new image"), "{failure}");
        }
        it.rollback().unwrap();
        device.reboot(true);
        assert_eq!(device.running(), "A", "{switch}");
        it.abort().unwrap();
        assert_eq!(it.inspect().unwrap(), ImageState::Old);
    }
}

#[test]
fn the_running_slot_is_never_written() {
    // Under another name.
    let device = Device::new("link");
    for link in [true, false] {
        fs::remove_file(device.path("b.img")).unwrap();
        match link {
            true => symlink("a.img", device.path("b.img")).unwrap(),
            false => fs::hard_link(device.path("a.img"), device.path("b.img")).unwrap(),
        }
        let failure = device.install().begin(&info(1), 0).unwrap_err();
        let text = failure.message;
        assert!(text.contains("it is the running slot A"), "{text}");
        assert_eq!(device.slot("A"), OLD);
    }
    // What is not clear is not guessed.
    let device = Device::new("uboot");
    for line in [
        "",
        "root=",
        "root=/dev/other",
        "root=PARTUUID=77-01",
        "xroot=A",
    ] {
        fs::write(device.path("proc/cmdline"), line).unwrap();
        let failure = device.install().begin(&info(1), 0).unwrap_err();
        let text = failure.message;
        assert!(
            text.contains("cannot be told: the kernel's argument root"),
            "{text}"
        );
    }
    let by = device.path("dev/disk/by-partuuid");
    fs::create_dir_all(&by).unwrap();
    symlink(device.path("b.img"), by.join("77-0a")).unwrap();
    fs::write(device.path("proc/cmdline"), "root=PARTUUID=77-0A").unwrap();
    device.install().begin(&info(1), 0).unwrap();
    assert_eq!((device.slot("A").len(), device.slot("B").len()), (0, 10));

    let device = Device::new("link");
    for to in ["other.img", "current"] {
        fs::remove_file(device.path("current")).unwrap();
        symlink(to, device.path("current")).unwrap();
        let text = device.install().begin(&info(1), 0).unwrap_err().message;
        assert!(text.contains("cannot be told"), "{text}");
    }
    let device = Device::new("commands");
    for body in ["echo C", "true", "exit 1"] {
        device.script("asks", body);
        device.install().begin(&info(1), 0).unwrap_err();
    }
    assert_eq!(
        (device.slot("A").len(), device.slot("B").len()),
        (OLD.len(), 10)
    );
}

#[test]
fn a_damaged_memory_ends_no_updating() {
    let device = Device::new("link");
    fs::write(device.path("slots.json"), "{\"stage\":\"wri").unwrap();
    let mut it = device.install();
    let failure = it.inspect().unwrap_err();
    assert!(failure.message.contains("slots.json"), "{failure}");
    it.activate().unwrap_err();
    stage(&mut it);
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    it.activate().unwrap();
}

#[test]
fn options_that_cannot_be() {
    let device = Device::new("link");
    for (name, path) in [
        ("A", "c.img"),
        ("C", "a.img"),
        ("C D", "c.img"),
        ("", "c.img"),
    ] {
        let mut options = device.options();
        options.slots[1] = Slot::new(name, device.path(path));
        SlotsInstall::new(device.directory.path(), options).unwrap_err();
    }
    let mut it = device.install();
    stage(&mut it);
    let mut options = device.options();
    options.slots[1].name = "C".into();
    let failure = device.with(options).inspect().unwrap_err();
    assert!(
        failure
            .message
            .contains("went to slot B; the configuration has A"),
        "{failure}"
    );
}

#[test]
fn a_link_is_replaced_in_one_step_and_nothing_else_is() {
    let device = Device::new("link");
    let mut it = device.install();
    stage(&mut it);
    cut::done();
    it.activate().unwrap();
    let steps = cut::done();
    let at = steps
        .iter()
        .position(|step| step.starts_with("symlink"))
        .unwrap();
    assert_eq!(steps[at + 1], "rename current");
    assert!(steps[at + 2].starts_with("sync"), "{steps:?}");
    assert_eq!(
        fs::read_link(device.path("current")).unwrap(),
        Path::new("b.img")
    );
    // Elsewhere than its slots, it is absolute.
    let mut options = device.options();
    fs::create_dir(device.path("boot")).unwrap();
    let link = device.path("boot/current");
    symlink(device.path("a.img"), &link).unwrap();
    options.switch = Switch::Link(link.clone());
    options.running = Running::Link(link.clone());
    options.restart = Restart::Exit;
    fs::remove_file(device.path("slots.json")).unwrap();
    let mut it = device.with(options.clone());
    stage(&mut it);
    it.activate().unwrap();
    assert_eq!(fs::read_link(&link).unwrap(), device.path("b.img"));
    // The guard can do it without the application.
    let described = it.describe().unwrap();
    let mut guard = crate::install::from_description(&described).unwrap();
    assert_eq!(guard.inspect().unwrap(), ImageState::New);
    guard.rollback().unwrap();
    assert_eq!(guard.inspect().unwrap(), ImageState::Old);
    assert_eq!(fs::read_link(&link).unwrap(), device.path("a.img"));
    assert_eq!(it.restart(), Restart::Exit);
    options.restart = Restart::System;
    assert_eq!(device.with(options).describe(), None);
    // A file that is no link is not replaced.
    fs::remove_file(&link).unwrap();
    fs::write(&link, "mine").unwrap();
    let failure = it.rollback().unwrap_err();
    assert!(failure.message.contains("no symbolic link"), "{failure}");
}

#[test]
fn autoboot_keeps_what_is_not_its_own() {
    let device = Device::new("tryboot");
    let before = "# mine\nboot_watchdog_timeout=5\n[tryboot]\nboot_partition = 7\n[0x1]\nx=1\n";
    fs::write(device.path("autoboot.txt"), before).unwrap();
    let mut it = device.install();
    stage(&mut it);
    it.activate().unwrap();
    let text = || fs::read_to_string(device.path("autoboot.txt")).unwrap();
    let all = "[all]\ntryboot_a_b=1\nboot_partition=2\n# mine\nboot_watchdog_timeout=5\n";
    assert_eq!(
        text(),
        format!("{all}[tryboot]\nboot_partition=3\n[0x1]\nx=1\n")
    );
    let command = vec!["reboot".into(), "0 tryboot".into()];
    assert_eq!(it.restart(), Restart::Reboot(command));
    let before = "#".repeat(500);
    fs::write(device.path("autoboot.txt"), &before).unwrap();
    let failure = it.rollback().unwrap_err();
    assert!(
        failure.message.contains("it may have 512 bytes"),
        "{failure}"
    );
    assert_eq!(text(), before);
}

#[test]
fn read_back_from_the_medium() {
    // Where direct reads are possible, and where not (tmpfs).
    for directory in [env!("CARGO_MANIFEST_DIR"), "/dev/shm", "/tmp"] {
        let Ok(directory) = tempfile::tempdir_in(directory) else {
            continue;
        };
        let device = Device::new("link");
        let image: Vec<u8> = (0..3_000_001_u32).map(|n| (n * 7 / 3) as u8).collect();
        let sha256 = Sha256::digest(&image).into();
        let size = image.len() as u64;
        let mut options = device.options();
        options.slots[1].path = directory.path().join("b.img");
        options.read_back = true;
        let mut it = device.with(options.clone());
        it.begin(&info(size), 0).unwrap();
        it.write(0, &image).unwrap();
        it.sync().unwrap();
        it.finish().unwrap();
        it.read_back(size, &sha256).unwrap();
        it.read_back(size - 1, &sha256).unwrap_err();
        let failure = it.read_back(size + 1, &sha256).unwrap_err();
        assert_eq!(failure.code, Code::Storage, "{failure}");
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&options.slots[1].path);
        file.unwrap().write_all_at(b"\0", 2_999_999).unwrap();
        let failure = it.read_back(size, &sha256).unwrap_err();
        assert!(failure.message.contains("slot B"), "{failure}");
        options.read_back = false;
        device.with(options).read_back(size, &sha256).unwrap();
    }
}

#[test]
fn options_are_read_as_serde_json_reads_them() {
    let slots = || [Slot::new("A", "/a"), Slot::new("B", "/b")];
    for switch in [Switch::Link("/l".into()), Switch::UBoot(UBoot::default())] {
        let options = serde_json::to_value(SlotsOptions::new(slots(), switch)).unwrap();
        crate::json::tests::as_serde_json_reads::<SlotsOptions>(&options);
    }
}
