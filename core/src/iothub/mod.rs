//! A device's side of Azure IoT Hub, over MQTT: connection strings, tokens, direct methods and the
//! device twin. It knows no updates.
//!
//! [`Client`] keeps a connection up: it renews its token before it ends, comes back after every
//! failure with a growing, random delay, and says in words what is wrong. On each connection it
//! subscribes first and then tells [`Event::Connected`]; the twin is to be read after that, since a
//! hub queues no changes for a device that is away.
//!
//! What goes over the wire is Microsoft's "Communicate with an IoT hub using the MQTT protocol":
//! MQTT 3.1.1 over TLS, quality of service 0.

mod client;
mod connection;
mod connection_string;
mod event;
mod line;
mod reason;
mod retry;
mod sas;
mod topic;

pub use crate::tls::{ClientIdentity, Clock, Roots};
pub use client::{AnswerTooLarge, Client, ConnectError, MAX_MESSAGE, MAX_METHOD_ANSWER, Options};
pub use connection_string::{ConnectionString, ConnectionStringError, ServiceConnectionString};
pub use event::{Cause, Disconnected, Event, MethodCall, MethodRequest, RequestError, Session};
pub use sas::{Key, sas_token};
