//! U-Boot's environment, with the real tools too.

use super::*;

/// An environment of two copies in plain files, for the real tools; `None` where they are missing.
fn real(device: &Device) -> Option<UBoot> {
    if Command::new("fw_printenv")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: fw_printenv is missing (package libubootenv-tool)");
        return None;
    }
    for copy in ["env0", "env1"] {
        fs::write(device.path(copy), [0; 0x4000]).unwrap();
    }
    let lines = ["env0", "env1"].map(|copy| format!("{} 0x0 0x4000\n", device.text(copy)));
    fs::write(device.path("fw_env.config"), lines.concat()).unwrap();
    fs::write(
        device.path("initial"),
        "boot_slot=A\nbootlimit=3\nmine=a b=c\n",
    )
    .unwrap();
    fs::write(device.path("first"), "bootcount=0\n").unwrap();
    let made = Command::new("fw_setenv")
        .arg("-c")
        .arg(device.path("fw_env.config"))
        .arg("-f")
        .arg(device.path("initial"))
        .arg("-s")
        .arg(device.path("first"))
        .status()
        .unwrap();
    assert!(made.success());
    Some(UBoot {
        config: Some(device.path("fw_env.config")),
        ..UBoot::default()
    })
}

fn expect(it: &SlotsInstall, wanted: &[(&str, &str)]) {
    let now = it.variables().unwrap();
    for (name, value) in wanted {
        assert_eq!(now.get(*name).map(String::as_str), Some(*value), "{name}");
    }
}

#[test]
fn with_the_real_tools() {
    let device = Device::new("uboot");
    let Some(uboot) = real(&device) else { return };
    let mut options = device.options();
    options.switch = Switch::UBoot(uboot);
    let mut it = device.with(options);
    let kept = [
        ("boot_slot", "A"),
        ("upgrade_available", "0"),
        ("bootcount", "0"),
    ];
    it.begin(&info(13), 0).unwrap();
    expect(&it, &kept);
    stage(&mut it);
    it.activate().unwrap();
    let tried = [
        ("boot_slot", "B"),
        ("upgrade_available", "1"),
        ("bootcount", "0"),
    ];
    expect(&it, &tried);
    expect(&it, &[("mine", "a b=c"), ("bootlimit", "3")]);
    it.rollback().unwrap();
    expect(&it, &kept);
    it.activate().unwrap();
    device.set_running("B");
    fs::write(device.path("proc/sys/kernel/random/boot_id"), "2").unwrap();
    it.confirm().unwrap();
    expect(&it, &[("boot_slot", "B"), ("upgrade_available", "0")]);
    // What is set is not written again: each write wears the flash.
    let before = ["env0", "env1"].map(|copy| fs::read(device.path(copy)).unwrap());
    let (a, b) = it.pair("B").unwrap();
    it.keep(a, b).unwrap();
    assert_eq!(
        before,
        ["env0", "env1"].map(|copy| fs::read(device.path(copy)).unwrap())
    );
    assert!(!device.path("uboot-script").exists());
}

#[test]
fn the_variables_of_a_boot_order() {
    let device = Device::new("uboot");
    let Some(uboot) = real(&device) else { return };
    let mut options = device.options();
    options.switch = Switch::UBoot(UBoot {
        config: uboot.config,
        ..UBoot::boot_order(3)
    });
    options.running = Running::KernelArgument("rauc.slot".into());
    fs::write(device.path("proc/cmdline"), "rauc.slot=A").unwrap();
    let mut it = device.with(options);
    stage(&mut it);
    // A slot that is half written is not what is fallen back on.
    expect(&it, &[("BOOT_ORDER", "A"), ("BOOT_A_LEFT", "3")]);
    it.activate().unwrap();
    expect(&it, &[("BOOT_ORDER", "B A"), ("BOOT_B_LEFT", "3")]);
    it.rollback().unwrap();
    expect(&it, &[("BOOT_ORDER", "A"), ("BOOT_A_LEFT", "3")]);
}

/// A rollback that was stopped is done again before the device restarts.
#[test]
fn a_rollback_that_was_stopped() {
    let mut device = Device::new("uboot");
    let mut it = device.install();
    stage(&mut it);
    it.activate().unwrap();
    device.reboot(true);
    // Of its first save all five steps are done, and nothing of the switch.
    cut::after(Some(5));
    it.rollback().unwrap_err();
    cut::after(None);
    assert_eq!(device.variable("boot_slot"), "B");
    assert_eq!(device.install().inspect().unwrap(), ImageState::New);
    it.rollback().unwrap();
    assert_eq!(device.install().inspect().unwrap(), ImageState::Old);
}

/// The slot that runs is what the boot loader left in a variable: after a change of it, not until the
/// device has restarted.
#[test]
fn the_running_slot_by_a_variable() {
    let mut device = Device::new("uboot");
    let mut options = device.options();
    options.running = Running::UBootVariable("boot_slot".into());
    let mut it = device.with(options.clone());
    stage(&mut it);
    it.activate().unwrap();
    assert_eq!(device.variable("boot_slot"), "B");
    // The journal was lost, and another update begins before the restart.
    it.begin(&info(13), 0).unwrap();
    assert_eq!(device.slot("A"), OLD);
    assert_eq!(device.next(false), "A");
    stage(&mut it);
    it.activate().unwrap();
    device.reboot(false);
    it.rollback().unwrap();
    assert_eq!(device.variable("boot_slot"), "A");
    it.begin(&info(13), 0).unwrap_err();
    device.reboot(false);
    it.begin(&info(13), 0).unwrap();
    assert_eq!(
        (device.slot("A"), device.slot("B").len()),
        (OLD.to_vec(), 0)
    );
    options.running = Running::UBootVariable("none".into());
    let failure = device.with(options).begin(&info(13), 0).unwrap_err();
    assert!(
        failure
            .message
            .contains("the U-Boot variable none says \"\""),
        "{failure}"
    );
}

/// The script of a tool that wants a space between a name and its value.
fn with_spaces(device: &Device) -> String {
    let body = fs::read_to_string(device.path("setenv")).unwrap();
    let spaces = body.replace(
        "set[$1] = $0",
        "split($0, w, \" \"); set[w[1]] = w[1] \"=\" w[2]",
    );
    let refuse = "if grep -q = \"$2\"; then echo 'illegal character' >&2; exit 1; fi";
    format!("{refuse}\n{spaces}")
}

/// Killed between writing and syncing, a tool leaves values that are read and that a power cut takes back.
#[test]
fn what_a_tool_wrote_that_failed_is_written_again() {
    for spaces in [false, true] {
        let device = Device::new("uboot");
        let body = match spaces {
            true => with_spaces(&device),
            false => fs::read_to_string(device.path("setenv")).unwrap(),
        };
        let body = body.replace("exec ", "");
        device.script("setenv", &body);
        let mut it = device.install();
        stage(&mut it);
        device.script("setenv", &format!("{body}\nexit 1"));
        it.activate().unwrap_err();
        assert_eq!(device.next(false), "B", "it shows");
        let log = device.text("written");
        device.script("setenv", &format!("{body}\necho >> {log}"));
        let times = || fs::read_to_string(&log).map_or(0, |log| log.lines().count());
        // By the next process, and by the same one; once by each.
        for (n, it) in [&mut device.install(), &mut it].into_iter().enumerate() {
            for _ in 0..2 {
                it.activate().unwrap();
                assert_eq!(times(), n + 1);
            }
        }
    }
}

#[test]
fn a_tool_that_wants_spaces_or_sets_nothing() {
    let device = Device::new("uboot");
    device.script("setenv", &with_spaces(&device));
    let mut it = device.install();
    stage(&mut it);
    it.activate().unwrap();
    assert_eq!(device.next(false), "B");
    // libubootenv's does so with lines that it cannot read.
    device.script("setenv", "exit 0");
    let failure = it.rollback().unwrap_err();
    assert!(
        failure
            .message
            .contains("did not set the U-Boot environment"),
        "{failure}"
    );
    assert_eq!(it.inspect().unwrap(), ImageState::Old, "A runs");
    device.script("setenv", "exit 1");
    let failure = it.rollback().unwrap_err();
    assert!(
        failure.message.contains("ended with exit status: 1"),
        "{failure}"
    );
}
