//! A device on a desk: its server, its owner's keys, and what becomes of what it is asked for.

use super::*;

/// What a server does with the request for one path.
pub(crate) type Served = Arc<dyn Fn(&mut Reply) + Send + Sync>;

/// A device, the server its images come from, and the keys of its owner.
pub(crate) struct Desk {
    pub(crate) dir: TempDir,
    pub(crate) server: Server,
    pub(crate) files: Arc<Mutex<HashMap<String, Served>>>,
    pub(crate) owner: Signer,
    pub(crate) trust: Option<Trust>,
    #[cfg(feature = "encryption")]
    pub(crate) identities: Option<twinflash::age::Identities>,
    /// Makes the installer of a target.
    pub(crate) installer: fn(PathBuf) -> Box<dyn Installer>,
    pub(crate) contract: &'static str,
    pub(crate) policy: Policy,
    pub(crate) updater: Option<Updater>,
    pub(crate) events: Option<twinflash::device::Events>,
    pub(crate) reported: Value,
    /// What the twin said of the update's status, one after the other.
    pub(crate) statuses: Vec<String>,
}

/// How an update ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    /// The failure's code in the twin.
    pub(crate) code: Option<String>,
    pub(crate) message: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let owner = Signer::ed25519(1);
        let keys = key_set(1, 1, &[&owner]);
        Self::trusting(owner, keys)
    }

    pub(crate) fn trusting(owner: Signer, keys: KeySet) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("app.bin"), b"old").unwrap();
        let files: Arc<Mutex<HashMap<String, Served>>> = Arc::default();
        let served = Arc::clone(&files);
        let server = Server::http(move |reply| {
            let path = reply.asked.path.split('?').next().unwrap().to_owned();
            let file = served.lock().unwrap().get(&path).cloned();
            match file {
                Some(file) => file(reply),
                None => reply.empty("404 Not Found", &[]),
            }
        });
        let mut policy = Policy::default();
        policy.allow_http = true;
        policy.answer_wait = Duration::ZERO;
        policy.confirm = Confirm::None;
        policy.checkpoint_bytes = 10_000;
        let mut desk = Self {
            dir,
            server,
            files,
            owner,
            trust: Some(trust(keys)),
            #[cfg(feature = "encryption")]
            identities: None,
            installer: |target| Box::new(FileInstall::new(target)),
            contract: "iothub-dm",
            policy,
            updater: None,
            events: None,
            reported: json!({}),
            statuses: Vec::new(),
        };
        desk.serve("/image.bin", image(SIZE, 7));
        desk
    }

    pub(crate) fn serve(&mut self, path: &str, content: Vec<u8>) {
        self.serve_by(path, move |reply| {
            reply.serve(&content, Some("\"1\""), usize::MAX)
        });
    }

    pub(crate) fn serve_by(&mut self, path: &str, by: impl Fn(&mut Reply) + Send + Sync + 'static) {
        self.files.lock().unwrap().insert(path.into(), Arc::new(by));
    }

    /// A manifest of the owner's for the image that is served.
    pub(crate) fn manifest(&self, version: &str) -> String {
        self.owner.manifest(&claims(version, &image(SIZE, 7)))
    }

    pub(crate) fn start(&mut self) -> &Updater {
        let contract = Contract::built_in(self.contract).unwrap();
        let installer = (self.installer)(self.target());
        let mut builder = Updater::builder(self.dir.path().join("state"), contract, installer)
            .policy(self.policy.clone());
        if let Some(trust) = &self.trust {
            builder = builder.trust(trust.clone());
        }
        #[cfg(feature = "encryption")]
        if let Some(identities) = &self.identities {
            builder = builder.decryption(identities.clone());
        }
        let updater = builder.start().unwrap();
        self.events = Some(updater.events());
        self.updater.insert(updater)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(updater) = self.updater.take() {
            updater.close();
        }
    }

    pub(crate) fn updater(&mut self) -> &Updater {
        match self.updater {
            Some(ref updater) => updater,
            None => self.start(),
        }
    }

    /// Calls the method that starts an update: the answer.
    pub(crate) fn call(&mut self, payload: Value) -> (u16, String) {
        let mut payload = payload;
        if payload.get("fwPackageUri").is_none() {
            payload["fwPackageUri"] = self.server.url("/image.bin?sig=secret").into();
        }
        let payload = payload.to_string();
        let (sender, receiver) = mpsc::channel();
        let updater = self.updater();
        assert!(
            updater.handle_method_then("firmwareUpdate", payload.as_bytes(), move |answer| {
                sender.send((answer.status, answer.payload)).unwrap();
            })
        );
        let deadline = 500;
        for _ in 0..deadline {
            self.pump();
            if let Ok(answer) = receiver.try_recv() {
                return answer;
            }
        }
        panic!("no answer");
    }

    /// Until half of the image is there.
    pub(crate) fn pump_until_half_is_there(&mut self) {
        let begun = std::time::Instant::now();
        while self.updater().status().bytes < SIZE as u64 / 2 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{:?}",
                self.updater().status()
            );
            self.pump();
        }
    }

    /// Takes what the device sends, as a hub does.
    pub(crate) fn pump(&mut self) {
        let updater = self.updater.as_ref().unwrap();
        while let Some(outbound) = updater.next_outbound(Duration::from_millis(20)) {
            match outbound {
                Outbound::ReadTwin => {}
                Outbound::Report(report) => {
                    let patch: Value = serde_json::from_str(&report.patch).unwrap();
                    assert!(!report.patch.contains("secret"), "{}", report.patch);
                    let status = at_path(&patch, "iothubDM.firmwareUpdate.status");
                    self.statuses
                        .extend(status.and_then(Value::as_str).map(String::from));
                    twin::merge(&mut self.reported, &patch);
                    updater.report_done(report.id, 204);
                }
            }
        }
    }

    pub(crate) fn end(&mut self) -> End {
        for _ in 0..1000 {
            self.pump();
            let updater = self.updater.as_ref().unwrap();
            let Some(outcome) = updater.wait_told(Duration::ZERO) else {
                continue;
            };
            let error = at_path(&self.reported, "iothubDM.firmwareUpdate.error");
            let text = |name: &str| Some(error?.get(name)?.as_str()?.to_owned());
            let failure = outcome.failure().map(|failure| failure.message.clone());
            return End {
                code: text("code"),
                message: failure.unwrap_or_default(),
                outcome,
            };
        }
        panic!("no end; {:?}", self.updater.as_ref().unwrap().status());
    }

    /// Accepted, and installed.
    pub(crate) fn installed(&mut self, payload: Value) {
        let answer = self.call(payload);
        assert_eq!(answer.0, 200, "{answer:?}");
        let end = self.end();
        assert_eq!(end.outcome, Outcome::Completed, "{end:?}");
        assert_eq!(fs::read(self.target()).unwrap(), image(SIZE, 7));
    }

    /// Accepted, and failed with this code; nothing is installed.
    pub(crate) fn fails(&mut self, payload: Value, code: &str, why: &str) {
        let before = fs::read(self.target()).unwrap();
        let answer = self.call(payload);
        assert_eq!(answer.0, 200, "{answer:?}");
        let end = self.end();
        assert_eq!(end.code.as_deref(), Some(code), "{end:?}");
        assert!(end.message.contains(why), "{end:?}");
        assert_eq!(fs::read(self.target()).unwrap(), before);
    }

    /// Refused by the method's answer; nothing is asked of any server, nothing is installed.
    pub(crate) fn refused(&mut self, payload: Value, why: &str) {
        let (before, asked) = (fs::read(self.target()).unwrap(), self.server.asked().len());
        let (status, answer) = self.call(payload);
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(why), "{answer}");
        assert_eq!(fs::read(self.target()).unwrap(), before);
        assert_eq!(self.server.asked().len(), asked);
    }

    /// What the application was told.
    pub(crate) fn events(&self) -> Vec<Event> {
        let events = self.events.as_ref().unwrap();
        std::iter::from_fn(|| events.next_within(Duration::from_millis(100))).collect()
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.dir.path().join("app.bin")
    }

    /// How often a path was asked for.
    pub(crate) fn asked(&self, path: &str) -> usize {
        let asked = self.server.asked();
        let of_path = |asked: &&support::server::Asked| asked.path.split('?').next() == Some(path);
        asked.iter().filter(of_path).count()
    }
}
