//! What a test needs the clock for, or a record of another time: at the engine.

use super::*;

/// An engine whose clock is the test's.
struct Bare {
    engine: Engine,
    outputs: Vec<Output>,
}

impl Bare {
    fn new(signer: &Signer) -> Self {
        Self::started(
            Some(trust(key_set(1, 1, &[signer]))),
            Stored::Empty,
            Some(0),
        )
    }

    fn started(trust: Option<Trust>, stored: Stored, wall: Option<u64>) -> Self {
        Self::with_policy(Policy::default(), trust, stored, wall)
    }

    fn with_policy(
        mut policy: Policy,
        trust: Option<Trust>,
        stored: Stored,
        wall: Option<u64>,
    ) -> Self {
        policy.answer_wait = Duration::ZERO;
        let mut engine = Engine::new(Config {
            contract: Contract::built_in("iothub-dm").unwrap(),
            policy,
            current_version: None,
            restart: Restart::None,
            boot_id: "1".into(),
            installer: None,
            seed: 1,
        });
        if let Some(trust) = trust {
            engine.set_trust(trust);
        }
        let mut bare = Self {
            engine,
            outputs: Vec::new(),
        };
        let boot = Input::Boot {
            stored,
            image: ImageState::Old,
        };
        bare.input(boot, 0, wall);
        bare
    }

    fn input(&mut self, input: Input<'_>, seconds: u64, wall: Option<u64>) {
        let now = Now {
            monotonic: Duration::from_secs(seconds),
            wall: wall.map(|wall| wall * 1000),
        };
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll() {
            self.outputs.push(output);
        }
    }

    fn ask(&mut self, manifest: &str, wall: Option<u64>) {
        self.ask_at(manifest, 0, wall);
    }

    fn ask_at(&mut self, manifest: &str, seconds: u64, wall: Option<u64>) {
        let payload = json!({"fwPackageUri": "https://h/i", "fwManifest": manifest}).to_string();
        let method = Input::Method {
            id: 1,
            name: "firmwareUpdate",
            payload: payload.as_bytes(),
        };
        self.input(method, seconds + 1, wall);
        // Answered once the first report is handed over; nothing begins before.
        self.input(Input::Tick, seconds + 5, wall);
    }

    /// Asked for, and carried out to its end; the hub is there.
    fn install(&mut self, manifest: &str, image: &[u8], seconds: u64, wall: Option<u64>) {
        self.ask_at(manifest, seconds, wall);
        let steps = [Step::Finish, Step::Activate].map(|step| Input::Done(step, Ok(())));
        self.input(complete(image), seconds + 10, wall);
        for step in steps {
            self.input(step, seconds + 10, wall);
        }
        let twin = br#"{"desired": {"$version": 1}, "reported": {}}"#;
        let (complete, json) = (true, &twin[..]);
        self.input(Input::Twin { complete, json }, seconds + 10, wall);
        self.input(Input::Done(Step::Confirm, Ok(())), seconds + 10, wall);
    }

    /// Downloaded and about to be applied: the record as a power cut leaves it.
    fn cut_while_applying(mut self, image: &[u8]) -> Record {
        self.input(complete(image), 10, Some(now()));
        let record = self
            .outputs
            .into_iter()
            .rev()
            .find_map(|output| match output {
                Output::Save { record, .. } => Some(*record),
                _ => None,
            });
        record.unwrap()
    }

    fn applies(&self) -> bool {
        let finish = |output: &Output| *output == Output::Install(Step::Finish);
        self.outputs.iter().any(finish)
    }

    fn code(&self) -> Option<&'static str> {
        let outcome = self.engine.status().outcome?;
        outcome.failure().map(|failure| failure.code.as_str())
    }

    fn downloads(&self) -> bool {
        let download = |output: &Output| matches!(output, Output::Download(..));
        self.outputs.iter().any(download)
    }

    fn warnings(&self) -> usize {
        let warning = |output: &&Output| matches!(output, Output::Event(Event::Warning(text)) if text.contains("clock"));
        self.outputs.iter().filter(warning).count()
    }
}

/// All of an image has come.
fn complete(image: &[u8]) -> Input<'static> {
    let mut checks = Checks::new();
    checks.update(image);
    Input::TransferEnded(Ended::Complete {
        bytes: checks.bytes(),
        digests: checks.finish(),
    })
}

#[test]
fn a_clock_at_1970_lets_no_manifest_in_until_it_is_right() {
    let signer = Signer::ed25519(1);
    let manifest = signer.manifest(&claims("2.0.0", &image(SIZE, 7)));
    for wall in [None, Some(0)] {
        let mut bare = Bare::new(&signer);
        bare.ask(&manifest, wall);
        for seconds in (10..100).step_by(10) {
            bare.input(Input::Tick, seconds, wall);
            let wake = bare.engine.wake_at().unwrap();
            assert!(wake > Duration::from_secs(seconds), "{wake:?}");
        }
        assert!(!bare.downloads());
        assert_eq!(bare.warnings(), 1);
        bare.input(Input::Tick, 110, Some(now()));
        assert!(bare.downloads());
    }
    // By the time the clock is right it has expired: a frozen manifest is not let in by a broken clock.
    let mut bare = Bare::new(&signer);
    bare.ask(&manifest, Some(0));
    bare.input(Input::Tick, 20, Some(now() + 7200));
    assert!(!bare.downloads());
    assert_eq!(bare.code(), Some("expired"));
}

#[test]
fn what_is_applied_after_a_restart_is_what_is_vouched_for_now() {
    let (signer, image) = (Signer::ed25519(1), image(SIZE, 7));
    let keys = || Some(trust(key_set(1, 1, &[&signer])));
    let manifest = signer.manifest(&claims("2.0.0", &image));
    let mut bare = Bare::started(keys(), Stored::Empty, Some(now()));
    bare.ask(&manifest, Some(now()));
    assert!(bare.downloads());
    let record = bare.cut_while_applying(&image);
    let start = |trust: Option<Trust>, record: &Record| {
        Bare::started(trust, Stored::Record(record.to_json()), Some(now()))
    };
    assert!(start(keys(), &record).applies());
    // Later than its time, and without a clock: it was let in when it was time.
    let late = Stored::Record(record.to_json());
    assert!(Bare::started(keys(), late, Some(now() + 7200)).applies());

    // Its key is replaced while it is downloaded.
    let mut bare = Bare::started(keys(), Stored::Empty, Some(now()));
    bare.ask(&manifest, Some(now()));
    let next = key_set(2, 1, &[&Signer::ed25519(2)]).to_json();
    let payload =
        json!({"fwPackageUri": "https://h/j", "fwKeys": signed(Kind::Keys, &[&signer], &next)});
    let payload = payload.to_string();
    let method = Input::Method {
        id: 2,
        name: "firmwareUpdate",
        payload: payload.as_bytes(),
    };
    bare.input(method, 6, Some(now()));
    let replaced = bare.cut_while_applying(&image);
    let outcome = replaced.update.unwrap().outcome.unwrap();
    assert_eq!(outcome.failure().unwrap().code.as_str(), "untrusted");

    let refused = |trust: Option<Trust>, record: &Record, code: &str| {
        let bare = start(trust, record);
        assert!(!bare.applies());
        assert_eq!(bare.code(), Some(code));
    };
    let other = trust(key_set(1, 1, &[&Signer::ed25519(2)]));
    refused(Some(other), &record, "untrusted");
    let mut swapped = record.clone();
    swapped.update.as_mut().unwrap().sha256 = Some("00".repeat(32));
    refused(keys(), &swapped, "hash-mismatch");
    let mut higher = record.clone();
    higher.core.floor = Some("2.0.1".into());
    refused(keys(), &higher, "version-refused");
    let mut unsigned = record.clone();
    unsigned.update.as_mut().unwrap().request.manifest = None;
    refused(keys(), &unsigned, "manifest-required");
    // The keys of a rotation that cannot be read let nothing in, and cost nothing else.
    let mut unreadable = record;
    unreadable.key_set = Some(json!({"version": 9, "later": true}));
    refused(keys(), &unreadable, "untrusted");
    assert!(start(None, &unreadable).applies());
}

#[test]
fn what_has_waited_for_consent_until_it_expired_is_not_applied() {
    let (signer, image) = (Signer::ed25519(1), image(SIZE, 7));
    let manifest = signer.manifest(&claims("2.0.0", &image));
    for (later, code) in [(600, None), (7200, Some("expired"))] {
        let mut policy = Policy::default();
        policy.consent = vec![Stage::Apply];
        let keys = Some(trust(key_set(1, 1, &[&signer])));
        let mut bare = Bare::with_policy(policy, keys, Stored::Empty, Some(now()));
        bare.ask(&manifest, Some(now()));
        let mut checks = Checks::new();
        checks.update(&image);
        let complete = Ended::Complete {
            bytes: checks.bytes(),
            digests: checks.finish(),
        };
        bare.input(Input::TransferEnded(complete), 10, Some(now()));
        assert!(!bare.applies());
        bare.input(Input::Approve, 10 + later, Some(now() + later));
        assert_eq!((bare.applies(), bare.code()), (code.is_none(), code));
    }
}

#[test]
fn a_manifest_of_before_does_not_take_back_what_is_known_of_the_time() {
    let signer = Signer::ed25519(1);
    let mut bare = Bare::new(&signer);
    let (day, wall) = (86_400, Some(now()));
    // The second one was issued a day before the first.
    for (version, issued, seconds) in [("2.0.0", now(), 0), ("3.0.0", now() - day, 100)] {
        let image = image(SIZE, seconds);
        let mut claims = claims(version, &image);
        claims["iat"] = issued.into();
        bare.install(&signer.manifest(&claims), &image, seconds, wall);
        let status = bare.engine.status();
        assert_eq!(status.running_version.as_deref(), Some(version));
    }
    // For long enough that the last save no longer counts.
    let mut claims = claims("4.0.0", &image(SIZE, 7));
    claims["iat"] = (now() - day).into();
    let manifest = signer.manifest(&claims);
    bare.outputs.clear();
    bare.ask_at(&manifest, 2 * day, Some(now() - day / 2));
    assert!(!bare.downloads());
    bare.input(Input::Tick, 2 * day + 20, wall);
    assert!(bare.downloads());
}
