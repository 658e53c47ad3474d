//! Slots that are block devices, and sizes beyond 32 bits.

use super::*;
use rustix::fs::{Mode, OFlags};

const GIB: u64 = 1 << 30;

/// A block device over a sparse file.
struct Loop(PathBuf);

impl Loop {
    /// `None` where there can be none: no root, no loop devices.
    fn new(file: &Path, size: u64) -> Option<Self> {
        fs::File::create(file).unwrap().set_len(size).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(
                String::from_utf8(output.stdout).unwrap().trim().into(),
            )),
            other => {
                eprintln!("skipped: no loop device can be had here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

fn read_at(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let file = fs::File::open(path).unwrap();
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

/// Slots A and B on loop devices of 5 GiB; the kernel says that A runs.
fn with_devices(test: impl FnOnce(&Device, SlotsOptions, &Path)) {
    let device = Device::new("uboot");
    let [a, b] = ["a.device", "b.device"].map(|file| device.path(file));
    let (Some(of_a), Some(of_b)) = (Loop::new(&a, 5 * GIB), Loop::new(&b, 5 * GIB)) else {
        return;
    };
    let mut options = device.options();
    options.slots = [Slot::new("A", &of_a.0), Slot::new("B", &of_b.0)];
    fs::write(
        device.path("proc/cmdline"),
        format!("root={}", of_a.0.display()),
    )
    .unwrap();
    test(&device, options, &b);
}

#[test]
fn a_device_beyond_4_gib() {
    with_devices(|device, options, behind| {
        let mut it = device.with(options.clone());
        let failure = it.begin(&info(5 * GIB + 1), 0).unwrap_err();
        assert_eq!(failure.code, Code::NoSpace);
        let text = failure.message;
        assert!(
            text.contains("holds 5368709120 bytes; the image has 5368709121"),
            "{text}"
        );
        assert_eq!(it.inspect().unwrap(), ImageState::Old);

        it.begin(&info(5 * GIB), 0).unwrap();
        it.begin(&info(0), 0).unwrap();
        it.write(0, NEW).unwrap();
        it.sync().unwrap();
        let far = 4 * GIB + 7;
        it.write(far, NEW).unwrap();
        let failure = it.write(5 * GIB - 1, b"xy").unwrap_err();
        assert_eq!(failure.code, Code::NoSpace, "{failure}");
        let durable = far + NEW.len() as u64;
        assert_eq!(it.sync().unwrap(), durable);
        drop(it);
        assert_eq!(read_at(behind, far, NEW.len()), NEW);

        let mut it = device.with(options);
        assert_eq!(it.begin(&info(5 * GIB), durable).unwrap(), durable);
        it.write(durable, b"end").unwrap();
        assert_eq!(it.sync().unwrap(), durable + 3);
        it.finish().unwrap();
        assert_eq!(read_at(behind, durable, 3), b"end");
        it.activate().unwrap();
    });
}

#[test]
fn a_device_is_read_back() {
    with_devices(|device, mut options, behind| {
        options.read_back = true;
        let mut it = device.with(options.clone());
        let image = vec![0x5a; (2 << 20) + 777];
        let size = image.len() as u64;
        it.begin(&info(size), 0).unwrap();
        it.write(0, &image).unwrap();
        it.sync().unwrap();
        it.finish().unwrap();
        let sha256 = Sha256::digest(&image).into();
        it.read_back(size, &sha256).unwrap();
        // The medium changes, and what the kernel has in its cache does not: that is not believed.
        // (The cache lives as long as somebody has the device open.)
        let slot = &options.slots[1].path;
        let _user = fs::File::open(slot).unwrap();
        assert_eq!(read_at(slot, size - 1, 1), [0x5a]);
        let medium = fs::OpenOptions::new().write(true).open(behind).unwrap();
        medium.write_all_at(b"x", size - 1).unwrap();
        assert_eq!(read_at(slot, size - 1, 1), [0x5a], "the cache");
        it.read_back(size, &sha256).unwrap_err();
    });
}

#[test]
fn a_device_in_use_is_refused() {
    with_devices(|device, mut options, _| {
        let used = options.slots[1].path.clone();
        let flags = OFlags::RDONLY | OFlags::EXCL;
        let user = rustix::fs::open(&used, flags, Mode::empty()).unwrap();
        let failure = device.with(options.clone()).begin(&info(1), 0).unwrap_err();
        assert!(failure.message.contains("busy"), "{failure}");
        drop(user);
        // The running device under another name.
        let alias = device.path("alias");
        let number = fs::metadata(&options.slots[0].path).unwrap();
        let number = std::os::unix::fs::MetadataExt::rdev(&number);
        let [major, minor] = [rustix::fs::major(number), rustix::fs::minor(number)];
        let made = Command::new("mknod")
            .arg(&alias)
            .args(["b", &major.to_string(), &minor.to_string()])
            .status();
        assert!(made.unwrap().success());
        options.slots[1].path = alias;
        let failure = device.with(options).begin(&info(1), 0).unwrap_err();
        assert!(failure.message.contains("the running slot A"), "{failure}");
    });
}

#[test]
fn a_file_beyond_4_gib() {
    let device = Device::new("link");
    let mut it = device.install();
    let unknown = ImageInfo::default();
    it.begin(&unknown, 0).unwrap();
    let far = 4 * GIB + 7;
    it.write(far, NEW).unwrap();
    let durable = it.sync().unwrap();
    assert_eq!(durable, far + NEW.len() as u64);
    let mut it = device.install();
    assert_eq!(it.begin(&unknown, durable).unwrap(), durable);
    it.write(durable, b"end").unwrap();
    it.sync().unwrap();
    it.finish().unwrap();
    assert_eq!(read_at(&device.path("b.img"), durable - 1, 4), b"eend");
    // More than there can be room for.
    let failure = it.begin(&info(1 << 60), 0).unwrap_err();
    assert_eq!(failure.code, Code::NoSpace, "{failure}");
}
