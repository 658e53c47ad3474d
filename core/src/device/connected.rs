//! A device with a connection of its own.

use super::{Answer, Outbound, Updater};
use crate::iothub::{self, Client, MethodCall};
use crate::tls::{ClientIdentity, Roots};
use crate::update::{Code, Failure};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

type EventHandler = Box<dyn FnMut(DeviceEvent) + Send>;
type MethodHandler = Box<dyn FnMut(&str, &[u8]) -> Option<Answer> + Send>;

/// How a [`Device`] connects.
pub struct DeviceOptions {
    /// The connection, the trusted roots and the like. The clock is set by the device: no token is
    /// made while the wall time is not known.
    pub iothub: iothub::Options,
    on_event: Option<EventHandler>,
    on_method: Option<MethodHandler>,
}

impl fmt::Debug for DeviceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceOptions")
            .field("iothub", &self.iothub)
            .finish_non_exhaustive()
    }
}

/// What happens to a device's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceEvent {
    /// It is there.
    Connected(iothub::Session),
    /// It is not; the client tries again by itself.
    Disconnected(iothub::Disconnected),
    /// The wall time is not known: connecting waits for it.
    WaitingForClock,
    /// The hub did not do what it was asked for.
    Refused(iothub::RequestError),
}

impl DeviceOptions {
    /// Connects as this connection string says.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: what is wrong with it.
    pub fn new(connection_string: &str) -> Result<Self, Failure> {
        let connection = connection_string
            .parse()
            .map_err(|error| Failure::new(Code::InvalidConfig, error))?;
        Ok(Self {
            iothub: iothub::Options::new(connection),
            on_event: None,
            on_method: None,
        })
    }

    /// The certificate authorities the hub's certificate must come from.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.iothub.roots = roots;
        self
    }

    /// The certificate by which a device proves itself whose connection string says `x509=true`.
    pub fn identity(mut self, identity: Option<ClientIdentity>) -> Self {
        self.iothub.identity = identity;
        self
    }

    /// Called with what happens to the connection, on the connection's thread.
    pub fn on_event(mut self, handler: impl FnMut(DeviceEvent) + Send + 'static) -> Self {
        self.on_event = Some(Box::new(handler));
        self
    }

    /// Called with the methods that are not the updater's, on the connection's thread: it must not
    /// wait. `None` answers 404.
    pub fn on_method(
        mut self,
        handler: impl FnMut(&str, &[u8]) -> Option<Answer> + Send + 'static,
    ) -> Self {
        self.on_method = Some(Box::new(handler));
        self
    }
}

/// An [`Updater`] with a connection of its own to an IoT hub.
///
/// ```no_run
/// use twinflash::device::{Device, DeviceOptions, Updater};
/// use twinflash::{contract::Contract, install::FileInstall};
///
/// let contract = Contract::built_in("iothub-dm")?;
/// let updater = Updater::builder("/var/lib/fw", contract, FileInstall::new("/opt/app/app.bin"))
///     .current_version("1.0.0")
///     .start()?;
/// let options = DeviceOptions::new("HostName=…;DeviceId=…;SharedAccessKey=…")?;
/// let device = Device::connect(updater, options)?;
/// for event in device.updater().events() {
///     println!("{event:?}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Device {
    updater: Arc<Updater>,
    client: Arc<Client>,
}

impl Device {
    /// Starts to connect; returns at once. It stays connected, with a renewed token and after every
    /// failure, until it is closed or dropped.
    ///
    /// # Errors
    /// [`Code::InvalidConfig`]: two options do not go together, or one is out of its bounds.
    /// [`Code::Tls`]: the roots or the certificate cannot be used. [`Code::State`]: the updater was closed.
    pub fn connect(
        updater: impl Into<Arc<Updater>>,
        mut options: DeviceOptions,
    ) -> Result<Self, Failure> {
        let wrong = |error| Failure::new(Code::InvalidConfig, error);
        options.iothub.check().map_err(wrong)?;
        let updater = updater.into();
        updater.check_open()?;
        let clock = Arc::downgrade(&updater);
        options.iothub.clock = Arc::new(move || clock.upgrade()?.wall_time());
        let client = Arc::new(OnceLock::<Arc<Client>>::new());
        let mut handler = Handler {
            updater: Arc::downgrade(&updater),
            client: Arc::clone(&client),
            on_event: options.on_event,
            on_method: options.on_method,
        };
        let connected = Client::connect(options.iothub, move |event| handler.handle(event))
            .map_err(|error| Failure::new(Code::Tls, error))?;
        let connected = Arc::new(connected);
        let _ = client.set(Arc::clone(&connected));
        let sender = Arc::downgrade(&connected);
        updater.on_outbound(move |outbound| {
            let Some(client) = sender.upgrade() else {
                return;
            };
            match outbound {
                Outbound::Report(report) => client.report(report.id, report.patch.into_bytes()),
                Outbound::ReadTwin => client.read_twin(),
            }
        });
        Ok(Self {
            updater,
            client: connected,
        })
    }

    /// The updater.
    pub fn updater(&self) -> &Updater {
        &self.updater
    }

    /// Ends the connection and closes the updater, with a checkpoint. Returns within a second, whatever
    /// network and disk do.
    pub fn close(&self) {
        let deadline = self.updater.begin_close();
        self.client.close_until(deadline);
        self.updater.close();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.close();
    }
}

/// Lives on the connection's thread. It holds the updater weakly: who drops the device ends both.
struct Handler {
    updater: std::sync::Weak<Updater>,
    client: Arc<OnceLock<Arc<Client>>>,
    on_event: Option<EventHandler>,
    on_method: Option<MethodHandler>,
}

impl Handler {
    fn handle(&mut self, event: iothub::Event) {
        let Some(updater) = self.updater.upgrade() else {
            return;
        };
        match event {
            iothub::Event::Connected(session) => {
                updater.connected(true);
                self.tell(DeviceEvent::Connected(session));
            }
            iothub::Event::Disconnected(why) => {
                updater.connected(false);
                self.tell(DeviceEvent::Disconnected(why));
            }
            iothub::Event::Method(call) => self.method(&updater, call),
            iothub::Event::Twin(json) => updater.handle_twin(true, &json),
            iothub::Event::Desired(json) => updater.handle_twin(false, &json),
            iothub::Event::ReportDone { id, result } => {
                let status = result.as_ref().map_or_else(|error| error.status, |_| 204);
                updater.report_done(id, status);
                if let Err(error) = result {
                    self.tell(DeviceEvent::Refused(error));
                }
            }
            iothub::Event::TwinFailed(error) => {
                updater.twin_failed();
                self.tell(DeviceEvent::Refused(error));
            }
            iothub::Event::WaitingForClock => self.tell(DeviceEvent::WaitingForClock),
        }
    }

    fn tell(&mut self, event: DeviceEvent) {
        if let Some(handler) = &mut self.on_event {
            handler(event);
        }
    }

    fn method(&mut self, updater: &Updater, call: MethodCall) {
        let Some(client) = self.client.get().cloned() else {
            return;
        };
        let request = call.request;
        let answer_to = Arc::downgrade(&client);
        let of = request.clone();
        let ours = updater.handle_method_then(&call.name, &call.payload, move |answer| {
            if let Some(client) = answer_to.upgrade() {
                let _ = client.answer_method(&of, answer.status, answer.payload.into_bytes());
            }
        });
        if ours {
            return;
        }
        let handled = self
            .on_method
            .as_mut()
            .and_then(|handler| handler(&call.name, &call.payload));
        let answer = handled.unwrap_or_else(|| Answer {
            status: 404,
            payload: serde_json::Value::from(format!("There is no method {:?}.", call.name))
                .to_string(),
        });
        let _ = client.answer_method(&request, answer.status, answer.payload.into_bytes());
    }
}
