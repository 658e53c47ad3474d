//! What is outside of the device: a hub, a back end, and a server with images.

use super::case::{At, Blow, Case, Course, HubFault, NetworkFault, Random};
use super::disk::stop;
use super::note;
use crate::device::by_hand::Hands;
use crate::engine::Input;
use crate::twin::{self, Report};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{cell::RefCell, collections::VecDeque, rc::Rc, sync::LazyLock, time::Duration};

mod holds;
mod packer;
mod server;
mod signer;

pub(super) use holds::{Holds, set_off, wall, windows};
pub(super) use server::Line;
pub(super) use signer::trust;

pub(super) static OLD: LazyLock<Vec<u8>> = LazyLock::new(|| image(2500, 1));
pub(super) static NEW: LazyLock<Vec<u8>> = LazyLock::new(|| image(3000, 2));
/// What is desired in the middle of the download of [`NEW`].
pub(super) static NEWER: LazyLock<Vec<u8>> = LazyLock::new(|| image(3100, 3));
/// What the next update brings.
pub(super) static NEXT: LazyLock<Vec<u8>> = LazyLock::new(|| image(2800, 4));
/// What the one after that brings.
pub(super) static LAST: LazyLock<Vec<u8>> = LazyLock::new(|| image(2700, 5));

/// The updates that are asked for, one after the other.
pub(super) const TURNS: [&str; 3] = ["new", "next", "last"];

/// The image of a name, and its version.
pub(super) fn named(name: &str) -> (&'static [u8], &'static str) {
    match name {
        "new" => (&NEW, "1.0.1"),
        "newer" => (&NEWER, "1.0.2"),
        "next" => (&NEXT, "1.0.3"),
        _ => (&LAST, "1.0.4"),
    }
}

/// The version of an image.
pub(super) fn version_of(image: &[u8]) -> &'static str {
    let mut names = ["new", "newer", "next", "last"].into_iter().map(named);
    names
        .find(|(bytes, _)| *bytes == image)
        .map_or("1.0.0", |(_, version)| version)
}

/// Bytes that come at a time.
const CHUNK: usize = 500;
/// The time each takes.
const CHUNK_TIME: Duration = Duration::from_millis(150);

fn image(size: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..size).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// What comes to the device.
#[derive(Debug)]
pub(super) enum Message {
    Connected,
    Disconnected,
    Twin { complete: bool, json: String },
    Done { id: u64, status: u16 },
    Cancel,
    ClockSet,
}

pub(super) struct Outside {
    pub(super) case: Case,
    pub(super) inbox: VecDeque<Message>,
    pub(super) reported: Value,
    desired: Value,
    version: u64,
    pub(super) connected: bool,
    /// The back end's method was answered.
    pub(super) answered: bool,
    /// Which of the [`TURNS`] is asked for.
    pub(super) turn: usize,
    /// Messages to the hub, and events of the network, so far.
    pub(super) messages: usize,
    pub(super) events: usize,
    /// The image's validator; another image is there where its number is of another one.
    validator: Option<String>,
    /// Times the image was replaced.
    replaced: u32,
    /// What the next answer is to be.
    answer: Option<NetworkFault>,
    /// Nothing holds of what may be fetched twice: the server did not keep to what it had said.
    pub(super) unsteady: bool,
    /// The disk has failed: what is not saved as the end may have been removed.
    pub(super) disk_failed: bool,
    /// A byte was changed on its way.
    pub(super) flipped: bool,
    /// Where the record says that the download goes on, for this image.
    pub(super) checkpoint: Option<(String, u64)>,
    pub(super) middle: bool,
    pub(super) clock: Duration,
    pub(super) random: Random,
    pub(super) wrong: Option<String>,
    /// The process has asked for a restart.
    pub(super) restart: bool,
    /// What a service was last started with.
    pub(super) service: Vec<u8>,
    /// The application has said that it is good.
    pub(super) confirmed: bool,
    /// What holds the update up.
    pub(super) holds: Holds,
}

pub(super) type Shared = Rc<RefCell<Outside>>;

thread_local!(static HERE: RefCell<Option<Shared>> = const { RefCell::new(None) });

/// This thread's outside: the updater's handlers might be called on another one, and can hold nothing
/// of it.
pub(super) fn here() -> Shared {
    HERE.with_borrow(Clone::clone).unwrap()
}

pub(super) fn set_here(outside: Option<Shared>) {
    HERE.set(outside);
}

impl Outside {
    pub(super) fn new(case: &Case) -> Self {
        let mut outside = Self {
            case: case.clone(),
            inbox: VecDeque::new(),
            reported: json!({}),
            desired: json!({}),
            version: 1,
            connected: false,
            answered: false,
            turn: 0,
            messages: 0,
            events: 0,
            validator: Some("\"1\"".into()),
            replaced: 0,
            answer: None,
            unsteady: false,
            disk_failed: false,
            flipped: false,
            checkpoint: None,
            middle: false,
            clock: Duration::from_secs(1),
            random: Random(case.order),
            wrong: None,
            restart: false,
            service: OLD.clone(),
            confirmed: false,
            holds: Holds::default(),
        };
        if case.contract == "configuration" {
            outside.desired = json!({ "firmware": outside.members("new") });
        }
        outside
    }

    /// The request for an image.
    pub(super) fn members(&self, name: &str) -> Value {
        let (image, version) = named(name);
        let mut image = image.to_vec();
        if self.case.course == Course::WrongImage && name == "new" {
            image[7] ^= 1;
        }
        let check = match self.case.hash {
            true => base16ct::lower::encode_string(&Sha256::digest(&image)),
            false => format!(
                "{:x}",
                crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(&image)
            ),
        };
        let check = match self.case.hash {
            true => format!("sha256:{check}"),
            false => check,
        };
        let uri = format!("https://host/{name}");
        let mut members = match self.case.contract {
            "configuration" => json!({
                "fwPackageURI": uri, "fwVersion": version, "fwPackageCheckValue": check,
            }),
            _ => json!({ "fwPackageUri": uri, "fwVersion": version, "fwPackageCheckValue": check }),
        };
        if self.case.signed {
            let packed = self.case.packed;
            members["fwManifest"] = signer::manifest(&image, version, packed).into();
        }
        members
    }

    /// What the server has in an image's place.
    fn served(&self, name: &str) -> Vec<u8> {
        let mut image = named(name).0.to_vec();
        if self.replaced % 2 == 1 {
            image.iter_mut().for_each(|byte| *byte = !*byte);
        }
        match self.case.packed {
            Some(compression) => packer::pack(&image, compression),
            None => image,
        }
    }

    /// The back end desires another image.
    pub(super) fn desire(&mut self, name: &str) {
        self.version += 1;
        let members = self.members(name);
        let patch = json!({ "firmware": members });
        twin::merge(&mut self.desired, &patch);
        if self.connected {
            self.patch(patch);
        }
    }

    fn patch(&mut self, mut patch: Value) {
        patch["$version"] = self.version.into();
        self.inbox.push_back(Message::Twin {
            complete: false,
            json: patch.to_string(),
        });
    }

    pub(super) fn complain(&mut self, why: String) {
        note(|| why.clone());
        self.wrong.get_or_insert(why);
    }

    /// The process has ended, and with it its connection.
    pub(super) fn cut_off(&mut self) {
        self.inbox.clear();
        self.connected = false;
        self.restart = false;
        self.confirmed = false;
    }

    /// From now on nothing goes wrong.
    pub(super) fn calm(&mut self) {
        self.case.blows.clear();
        self.replaced = 0;
        self.validator = Some("\"right\"".into());
        self.unsteady = false;
        self.answer = None;
        self.flipped = false;
        self.middle = true;
    }

    /// A message comes to the hub: what becomes of it.
    fn arrives(&mut self) -> Option<HubFault> {
        let number = self.messages;
        self.messages += 1;
        let blows = self.case.blows.iter();
        let blow = blows
            .filter(|(at, _)| *at == At::Hub(number))
            .map(|(_, blow)| *blow)
            .next();
        match blow? {
            Blow::Hub(fault) => Some(fault),
            Blow::Network(_) | Blow::Error(..) => None,
            Blow::Clock(by) => {
                self.set_clock(by);
                None
            }
            blow => {
                note(|| format!("{blow:?} at the hub's message {number}"));
                stop(blow)
            }
        }
    }

    fn disconnect(&mut self) {
        self.inbox.clear();
        self.inbox.push_back(Message::Disconnected);
        self.inbox.push_back(Message::Connected);
    }

    pub(super) fn report(&mut self, report: &Report) {
        let fault = self.arrives();
        note(|| format!("    report {} {} {fault:?}", report.id, report.patch));
        let status = match fault {
            Some(HubFault::Lost) => return,
            Some(HubFault::Disconnect) => return self.disconnect(),
            Some(HubFault::Status(status)) => status,
            _ => 204,
        };
        if status == 204 {
            let patch = serde_json::from_str(&report.patch).unwrap();
            twin::merge(&mut self.reported, &patch);
        }
        match fault {
            Some(HubFault::AnswerLost) => return,
            Some(HubFault::Replayed | HubFault::Skipped) => self.disturb(fault),
            _ => {}
        }
        self.inbox.push_back(Message::Done {
            id: report.id,
            status,
        });
    }

    pub(super) fn read_twin(&mut self) {
        let fault = self.arrives();
        note(|| format!("    twin read {fault:?}"));
        match fault {
            Some(HubFault::Lost | HubFault::AnswerLost | HubFault::Status(_)) => return,
            Some(HubFault::Disconnect) => return self.disconnect(),
            _ => {}
        }
        let mut desired = self.desired.clone();
        desired["$version"] = self.version.into();
        let document = json!({"desired": desired, "reported": self.reported});
        self.inbox.push_back(Message::Twin {
            complete: true,
            json: document.to_string(),
        });
        self.disturb(fault);
    }

    fn disturb(&mut self, fault: Option<HubFault>) {
        match fault {
            Some(HubFault::Skipped) => self.version += 2,
            Some(HubFault::Replayed) => {}
            _ => return,
        }
        let mut desired = self.desired.clone();
        desired["other"] = self.version.into();
        self.patch(desired);
    }

    fn fault(&mut self) -> Option<NetworkFault> {
        let number = self.events;
        self.events += 1;
        let blows = self.case.blows.iter();
        let blow = blows
            .filter(|(at, _)| *at == At::Network(number))
            .map(|(_, blow)| *blow)
            .next();
        let fault = match blow? {
            Blow::Network(fault) => fault,
            Blow::Hub(_) | Blow::Error(..) => return None,
            Blow::Clock(by) => {
                self.set_clock(by);
                return None;
            }
            blow => {
                note(|| format!("{blow:?} at the network's event {number}"));
                stop(blow)
            }
        };
        note(|| format!("{fault:?} at the network's event {number}"));
        self.unsteady |= !matches!(
            fault,
            NetworkFault::Reset
                | NetworkFault::Silence
                | NetworkFault::Short
                | NetworkFault::Gone
                | NetworkFault::Status(503 | 429)
        );
        Some(fault)
    }

    /// In the middle of the download something else happens.
    fn is_in_the_middle(&mut self) {
        if std::mem::replace(&mut self.middle, true) {
            return;
        }
        match self.case.course {
            Course::Cancelled => self.inbox.push_back(Message::Cancel),
            Course::Superseded => self.desire("newer"),
            _ => {}
        }
    }
}

/// What the device has to do meanwhile: it is one thread here that does all.
pub(super) fn meanwhile(outside: &Shared, hands: &Hands) {
    loop {
        let skip = {
            let mut outside = outside.borrow_mut();
            outside.case.order != 0 && outside.random.one_in(3)
        };
        if skip {
            return;
        }
        if !super::device::perform(hands) && !deliver(outside, hands) {
            return;
        }
    }
}

/// Hands the device a message; `false` where there is none.
pub(super) fn deliver(outside: &Shared, hands: &Hands) -> bool {
    let message = {
        let mut outside = outside.borrow_mut();
        let message = outside.inbox.pop_front();
        note(|| format!("  {message:?}"));
        match message {
            Some(Message::Connected) => outside.connected = true,
            Some(Message::Disconnected) => outside.connected = false,
            _ => {}
        }
        message
    };
    match message {
        None => return false,
        Some(Message::Connected) => hands.input(Input::Connected),
        Some(Message::Disconnected) => hands.input(Input::Disconnected),
        Some(Message::Twin { complete, json }) => hands.input(Input::Twin {
            complete,
            json: json.as_bytes(),
        }),
        Some(Message::Done { id, status }) => hands.input(Input::ReportDone { id, status }),
        Some(Message::Cancel) => hands.input(Input::Cancel),
        Some(Message::ClockSet) => hands.input(Input::ClockSet),
    }
    true
}
