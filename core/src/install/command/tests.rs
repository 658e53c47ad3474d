use super::*;
use crate::install::course::{self, Course, Outcome, Stop, Version, World, everywhere};
use crate::testing;
use std::fs;
use std::os::unix::fs::MetadataExt;

const NEW: &[u8] = b"the new image";

/// A device whose own updater is a script: it installs what is whole only, beside what runs, and
/// switches.
struct Device {
    directory: tempfile::TempDir,
    inspect: bool,
}

impl Device {
    fn new(inspect: bool) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let it = Self {
            directory: directory.unwrap(),
            inspect,
        };
        for (file, text) in [
            ("proc/sys/kernel/random/boot_id", "1"),
            ("running", "old"),
            ("next", "old"),
            ("log", ""),
        ] {
            fs::create_dir_all(it.path(file).parent().unwrap()).unwrap();
            fs::write(it.path(file), text).unwrap();
        }
        fs::write(it.path("wanted"), NEW).unwrap();
        it.script(
            "install",
            r#"[ "$2" = "version 2.0" ] && cmp "$1" wanted && cp "$1" b && echo install >> log
               echo new > next.new; mv next.new next"#,
        );
        it.script("inspect", "cat running");
        it.script("confirm", "echo confirm $1 >> log");
        it.script(
            "rollback",
            "echo rollback >> log; echo old > next.new; mv next.new next",
        );
        it
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap().trim().into()
    }

    fn script(&self, name: &str, body: &str) {
        course::script(&self.path(name), body);
    }

    fn command(&self, words: &[&str]) -> Vec<String> {
        let program = self.path(words[0]).display().to_string();
        let words = words[1..].iter().map(|word| (*word).into());
        std::iter::once(program).chain(words).collect()
    }

    fn options(&self) -> CommandOptions {
        let install = self.command(&["install", "{image}", "version {version}"]);
        CommandOptions {
            inspect: self.inspect.then(|| self.command(&["inspect"])),
            confirm: Some(self.command(&["confirm", "{version}"])),
            rollback: Some(self.command(&["rollback"])),
            restart: Restart::System,
            ..CommandOptions::new(install)
        }
    }

    fn with(&self, options: CommandOptions) -> CommandInstall {
        let mut it = CommandInstall::new(self.directory.path(), options);
        it.root = self.directory.path().into();
        it
    }

    fn install(&self) -> CommandInstall {
        self.with(self.options())
    }
}

impl World for Device {
    fn install(&self) -> Box<dyn Installer> {
        Box::new(Device::install(self))
    }

    fn boot(&self) -> String {
        self.text("proc/sys/kernel/random/boot_id")
    }

    fn restart(&mut self, _: bool) {
        fs::write(self.path("running"), self.text("next")).unwrap();
        let id: u32 = self.boot().parse().unwrap();
        let path = self.path("proc/sys/kernel/random/boot_id");
        fs::write(path, (id + 1).to_string()).unwrap();
    }

    fn runs_new(&self) -> bool {
        self.text("running") == "new"
    }

    fn check(&self, context: &str) {
        if self.text("next") == "new" {
            assert_eq!(fs::read(self.path("b")).unwrap(), NEW, "{context}");
        }
    }
}

fn info() -> ImageInfo {
    ImageInfo {
        size: Some(NEW.len() as u64),
        version: Some("2.0".into()),
    }
}

fn stage(it: &mut CommandInstall) {
    it.begin(&info(), 0).unwrap();
    it.write(0, NEW).unwrap();
    assert_eq!(it.sync().unwrap(), 13);
    it.finish().unwrap();
}

#[test]
fn stopped_before_every_step() {
    type One = (&'static str, fn() -> Course<'static>, Outcome);
    let courses: [One; 3] = [
        (
            "good",
            || Course::new(NEW, Version::Good),
            Outcome::Completed,
        ),
        (
            "failing",
            || Course::new(NEW, Version::Failing),
            Outcome::RolledBack,
        ),
        ("cancelled", || Course::cancelled(NEW), Outcome::Cancelled),
    ];
    for inspect in [true, false] {
        for (name, course, wanted) in courses {
            let judge = |device: &mut Device, outcome, stops: &[(usize, Stop)]| {
                let context = format!("{name} {stops:?} {inspect}");
                assert_eq!(outcome, wanted, "{context}");
                let new = outcome == Outcome::Completed;
                device.restart(true);
                assert_eq!(device.runs_new(), new, "{context}");
                let log = device.text("log");
                let times = log.matches("install").count();
                let most = 1 + stops.len();
                assert!(times <= most && (times > 0 || !new), "{context}: {log}");
                assert_eq!(log.contains("confirm 2.0"), new, "{context}");
                for left in ["image", "image.part"] {
                    assert!(!device.path(left).exists(), "{context}: {left}");
                }
                assert_eq!(device.path("image.json").exists(), new, "{context}");
            };
            let runs = everywhere(course, || Device::new(inspect), false, name, judge);
            eprintln!("{name}: {runs} runs");
        }
    }
}

#[test]
fn the_image_is_its_owners_and_goes_after_it_was_installed() {
    let device = Device::new(true);
    let mut it = device.install();
    it.begin(&info(), 0).unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::Partial);
    it.write(0, NEW).unwrap();
    it.sync().unwrap();
    it.finish().unwrap();
    let mode = fs::metadata(device.path("image")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(it.inspect().unwrap(), ImageState::Old);
    it.activate().unwrap();
    assert_eq!(it.inspect().unwrap(), ImageState::New);
    assert!(!device.path("image").exists());
    // Again, as after a crash: nothing is installed twice.
    it.finish().unwrap();
    it.activate().unwrap();
    assert_eq!(device.text("log"), "install");
}

#[test]
fn a_boot_loader_that_goes_back_is_seen_by_inspect() {
    for (says, state) in [
        ("echo old", Ok(ImageState::Old)),
        ("echo unknown", Ok(ImageState::Unknown)),
        ("echo new; echo more", Ok(ImageState::New)),
        ("echo 2.0", Err("must print new, old or unknown")),
        ("exit 1", Err("ended with exit status: 1")),
    ] {
        let mut device = Device::new(true);
        let mut it = device.install();
        stage(&mut it);
        it.activate().unwrap();
        device.script("inspect", says);
        assert_eq!(it.inspect().unwrap(), ImageState::New, "not restarted");
        device.restart(true);
        match (it.inspect(), state) {
            (Ok(found), Ok(state)) => assert_eq!(found, state),
            (Err(failure), Err(why)) => assert!(failure.message.contains(why), "{failure}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_command_that_fails_or_hangs() {
    let device = Device::new(true);
    let mut options = device.options();
    options.install_time = Duration::from_millis(300);
    let mut it = device.with(options);
    stage(&mut it);
    for (body, why) in [
        ("echo secret; exit 7", "ended with exit status: 7"),
        ("sleep 60", "did not end within 0.3 s and was killed"),
    ] {
        device.script("install", body);
        let failure = it.activate().unwrap_err();
        assert_eq!(failure.code, Code::InstallFailed);
        assert!(failure.message.contains(why), "{failure}");
        assert!(failure.message.contains("/install "), "{failure}");
        assert!(!failure.message.contains("secret"), "{failure}");
        assert_eq!(it.inspect().unwrap(), ImageState::Unknown);
    }
    // It may have got half-way.
    it.rollback().unwrap();
    assert_eq!(device.text("log"), "rollback");
    it.abort().unwrap();
    it.rollback().unwrap();
    assert_eq!(
        device.text("log"),
        "rollback",
        "nothing is there to be undone"
    );
}

#[test]
fn without_a_rollback_command() {
    let device = Device::new(false);
    let mut options = device.options();
    options.rollback = None;
    options.restart = Restart::None;
    let mut it = device.with(options.clone());
    stage(&mut it);
    it.rollback().unwrap();
    it.activate().unwrap();
    let failure = it.rollback().unwrap_err();
    assert_eq!(failure.code, Code::RollbackFailed);
    assert!(failure.message.contains("no rollback command"), "{failure}");
    assert_eq!(it.describe(), None);
    options.rollback = device.options().rollback;
    let described = device.with(options).describe().unwrap();
    let mut guard = crate::install::from_description(&described).unwrap();
    assert_eq!(guard.inspect().unwrap(), ImageState::New);
    guard.rollback().unwrap();
    assert_eq!(guard.inspect().unwrap(), ImageState::Old);
    assert_eq!(device.text("next"), "old");
}

#[test]
fn resumed_where_the_bytes_are() {
    let device = Device::new(true);
    let mut it = device.install();
    it.begin(&info(), 0).unwrap();
    it.write(0, &NEW[..8]).unwrap();
    it.sync().unwrap();
    for (resume, start) in [(8, 8), (5, 5), (6, 0)] {
        assert_eq!(device.install().begin(&info(), resume).unwrap(), start);
    }
    stage(&mut it);
    assert_eq!(it.begin(&info(), 13).unwrap(), 13);
    it.finish().unwrap();
    assert_eq!(fs::read(device.path("image")).unwrap(), NEW);
    it.abort().unwrap();
    for result in [
        it.finish(),
        it.activate(),
        it.write(0, b"x"),
        it.sync().map(drop),
    ] {
        result.unwrap_err();
    }
    let huge = ImageInfo {
        size: Some(1 << 60),
        version: None,
    };
    let failure = it.begin(&huge, 0).unwrap_err();
    assert_eq!(failure.code, Code::NoSpace, "{failure}");
}

#[test]
fn child_that_is_killed() {
    let Some(directory) = testing::child_argument() else {
        return;
    };
    let program = Path::new(&directory).join("install").display().to_string();
    let options = CommandOptions::new([program, "{image}".into()]);
    let mut it = CommandInstall::new(&directory, options);
    stage(&mut it);
    let _ = it.activate();
}

#[test]
fn what_a_killed_process_left_running_is_waited_for() {
    let device = Device::new(true);
    let path = device.directory.path();
    device.script("install", "echo begin >> log; sleep 0.7; echo end >> log");
    let this = "install::command::tests::child_that_is_killed";
    let mut child = testing::child(this, path.as_os_str());
    let since = Instant::now();
    while device.text("log") != "begin" {
        assert!(since.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(5));
    }
    child.kill();
    let mut options = device.options();
    options.install_time = Duration::from_millis(100);
    let failure = device.with(options.clone()).activate().unwrap_err();
    assert!(failure.message.contains("was started before"), "{failure}");
    assert_eq!(device.text("log"), "begin");
    options.install_time = Duration::from_secs(20);
    let mut it = device.with(options);
    assert_eq!(it.inspect().unwrap(), ImageState::Unknown);
    it.finish().unwrap();
    it.activate().unwrap();
    assert_eq!(device.text("log"), "begin\nend\nbegin\nend");
}
