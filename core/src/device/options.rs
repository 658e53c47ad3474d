//! What an updater is made with.

use super::{Ask, Event, Outbound, Reply, Updater, driver::Handlers, pipeline::ReadyHandler};
use crate::contract::Contract;
#[cfg(feature = "http")]
use crate::download::HttpOptions;
use crate::install::{Installer, Restart};
use crate::update::{Failure, Policy, trust::Trust};
use crate::windows::Windows;
use std::path::{Path, PathBuf};

/// Makes an [`Updater`]. See [`Updater::builder`].
#[derive(Debug)]
pub struct Builder {
    pub(super) state_dir: PathBuf,
    pub(super) contract: Contract,
    pub(super) installer: Box<dyn Installer>,
    pub(super) current_version: Option<String>,
    pub(super) policy: Policy,
    pub(super) trust: Option<Trust>,
    #[cfg(feature = "encryption")]
    pub(super) identities: Option<crate::age::Identities>,
    #[cfg(feature = "http")]
    pub(super) http: Option<HttpOptions>,
    pub(super) windows: Windows,
    pub(super) ready: Option<ReadyHandler>,
    pub(super) handlers: Handlers,
}

impl Builder {
    pub(super) fn new(state_dir: &Path, contract: Contract, installer: Box<dyn Installer>) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            contract,
            installer,
            current_version: None,
            policy: Policy::default(),
            trust: None,
            #[cfg(feature = "encryption")]
            identities: None,
            #[cfg(feature = "http")]
            http: Some(HttpOptions::default()),
            windows: Windows::default(),
            ready: None,
            handlers: Handlers::default(),
        }
    }

    /// The version that runs now. Where the program that runs is itself what is updated, this is its
    /// own version; where it is not given, it is the version of the last confirmed update.
    pub fn current_version(mut self, version: impl Into<String>) -> Self {
        self.current_version = Some(version.into());
        self
    }

    /// What the device's owner allows.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Nothing is installed but what these keys vouch for, whatever the contract: a signed manifest in
    /// the request (`fwManifest`), or beside the image (its URL's path followed by `.jws`).
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// Decrypts images that are encrypted for these: where a signed manifest says that one is encrypted, and only there.
    #[cfg(feature = "encryption")]
    pub fn decryption(mut self, identities: crate::age::Identities) -> Self {
        self.identities = Some(identities);
        self
    }

    /// Images are downloaded and applied only at these times. While the wall time is not known, none of
    /// them has come.
    pub fn windows(mut self, windows: Windows) -> Self {
        self.windows = windows;
        self
    }

    /// Called before each attempt at a download, and before an image is applied: whether the device can take
    /// it now. A [`Reply::Later`] is asked again after its time or [`Policy::ready_interval`]. On the thread
    /// that installs; meanwhile no image is downloaded or installed. Goes before [`Policy::ready`].
    pub fn on_ready(mut self, handler: impl FnMut(&Ask) -> Reply + Send + 'static) -> Self {
        self.ready = Some(ReadyHandler(Box::new(handler)));
        self
    }

    /// How images are fetched.
    #[cfg(feature = "http")]
    pub fn http(mut self, http: HttpOptions) -> Self {
        self.http = Some(http);
        self
    }

    /// The application fetches images, with an HTTP client of its own: see [`Updater::wanted`]. Without
    /// the feature `http` it does in any case.
    #[cfg_attr(not(feature = "http"), expect(unused_mut))]
    pub fn offered(mut self) -> Self {
        #[cfg(feature = "http")]
        {
            self.http = None;
        }
        self
    }

    /// Called with each event, in order, on the updater's own thread. It may call everything of the
    /// updater but `handle_method`, `wait` and `close`.
    pub fn on_event(mut self, handler: impl FnMut(&Event) + Send + 'static) -> Self {
        self.handlers.event = Some(Box::new(handler));
        self
    }

    /// Called with everything that is to be sent to the hub, on the updater's own thread; see
    /// [`Updater::on_outbound`].
    pub fn on_outbound(mut self, handler: impl FnMut(Outbound) + Send + 'static) -> Self {
        self.handlers.outbound = Some(Box::new(handler));
        self
    }

    /// Called in place of the restart the installer asks for, on the updater's own thread. By
    /// default `Restart::Exit` ends the process with status 0, `Restart::Command` and
    /// `Restart::Reboot` run the command and `Restart::System` runs `reboot`, within five minutes.
    pub fn on_restart(
        mut self,
        handler: impl FnMut(&Restart) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        self.handlers.restart = Some(Box::new(handler));
        self
    }

    /// Starts: takes the state directory, reads the journal and goes on with what it says.
    ///
    /// # Errors
    /// The state directory cannot be used or is held by another process; the certificate
    /// authorities cannot be read; no thread can be started. [`Policy::ready`] is [`Ready::Call`](crate::update::Ready::Call), and
    /// nobody is there to be [called](Self::on_ready).
    pub fn start(self) -> Result<Updater, Failure> {
        Updater::start(self)
    }
}
