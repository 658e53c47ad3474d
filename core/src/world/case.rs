//! What is played: which device, what it meets, and what goes wrong when.

use crate::update::Compression;

/// What installs, and how it restarts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A program's file; the program ends and is started again, after the guard.
    Program {
        /// There is one before the update.
        old: bool,
        /// The file system has hard links.
        links: bool,
    },
    /// A data file that nothing has to be restarted for.
    Data,
    /// A file, and a command that restarts who uses it.
    Service,
    /// A file that the whole device restarts for.
    System,
    /// Two slots and a link that says which is used; as `Program`.
    Link,
    /// Two slots and the Raspberry Pi's boot loader.
    TryBoot,
    /// Two slots and U-Boot, with its environment and its count of starts.
    UBoot,
    /// A command that replaces a program's file; as `Program`.
    Script,
    /// A command that knows slots and tells U-Boot: another updater.
    Handed,
}

impl Kind {
    /// The whole system lies in one of two slots, and something before it starts the one or the other.
    pub(super) fn has_boot_loader(self) -> bool {
        matches!(self, Self::TryBoot | Self::UBoot | Self::Handed)
    }

    pub(super) fn has_slots(self) -> bool {
        self == Self::Link || self.has_boot_loader()
    }
}

/// What the update meets, faults apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Course {
    Good,
    /// The image is not what was announced.
    WrongImage,
    /// The server does not have it.
    NotFound,
    /// The new version runs, and never finds itself good.
    Mute,
    /// The new version ends, or hangs, before it comes to start the engine.
    Dead,
    /// As `Dead`, but it has written the record in a layout that the old version does not know.
    Newer,
    /// Cancelled in the middle of the download.
    Cancelled,
    /// Another image is desired in the middle of the download.
    Superseded,
}

/// What holds the update up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Held {
    /// Its user has to agree to each stage, and may put it off.
    Consent,
    /// Its download and its installation have windows.
    Window,
    /// Its start is delayed.
    Delay,
    /// The device is not ready at first.
    Unready,
}

const HELD: [Held; 4] = [Held::Consent, Held::Window, Held::Delay, Held::Unready];

/// What is left of what was not synced, after a power cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Left {
    /// The units whose bits are set, whole.
    Units(u64),
    /// Anything, torn at random.
    Torn(u64),
}

/// What goes wrong, at a step of the disk, a message of the hub, or an event of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Blow {
    /// The process is killed; what it has written is still in the kernel's hands.
    Kill,
    /// The power is cut.
    PowerCut(Left),
    /// So many steps from here on fail with this error.
    Error(i32, u32),
    /// The hub does what it must not.
    Hub(HubFault),
    /// The network or the server does.
    Network(NetworkFault),
    /// The device's wall clock is set, by so many seconds.
    Clock(i64),
}

/// An hour back it is not believed for an hour.
pub(super) const CLOCKS: [i64; 4] = [-3600, -300, 43_200, 86_400];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum HubFault {
    /// It never comes to the hub, and nobody says so.
    Lost,
    /// The hub has it, and its answer is lost.
    AnswerLost,
    /// The connection breaks, and comes back after a while.
    Disconnect,
    /// It is refused for now, with this status.
    Status(u16),
    /// What is desired comes a second time, as a patch of its own.
    Replayed,
    /// A patch is skipped: the next has a version that follows no known one.
    Skipped,
}

pub(super) const HUB_FAULTS: [HubFault; 8] = [
    HubFault::Lost,
    HubFault::AnswerLost,
    HubFault::Disconnect,
    HubFault::Status(0),
    HubFault::Status(429),
    HubFault::Status(503),
    HubFault::Replayed,
    HubFault::Skipped,
];

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NetworkFault {
    /// The connection is reset.
    Reset,
    /// Nothing comes any more.
    Silence,
    /// The body ends before its end.
    Short,
    /// The thread that reads the network is gone.
    Gone,
    /// A bit is flipped on its way.
    Flipped,
    /// The image gets another validator, and the connection is reset.
    NewValidator,
    /// There is another image in its place, or again the right one, and the validator says so; the
    /// connection is reset.
    NewContent,
    /// The answer has this status, in place of the image.
    Status(u16),
    /// All of the image is sent, whatever was asked for.
    Whole,
    /// The rest that is sent starts elsewhere.
    Elsewhere,
    /// The answer says another size.
    OtherSize,
    /// There is no validator any more.
    NoValidator,
}

pub(super) const NETWORK_FAULTS: [NetworkFault; 15] = [
    NetworkFault::Reset,
    NetworkFault::Silence,
    NetworkFault::Short,
    NetworkFault::Gone,
    NetworkFault::Flipped,
    NetworkFault::NewValidator,
    NetworkFault::NewContent,
    NetworkFault::Status(503),
    NetworkFault::Status(416),
    NetworkFault::Status(403),
    NetworkFault::Status(429),
    NetworkFault::Whole,
    NetworkFault::Elsewhere,
    NetworkFault::OtherSize,
    NetworkFault::NoValidator,
];

/// `EIO`, `ENOSPC`, `EROFS`.
pub(super) const ERRORS: [i32; 3] = [5, 28, 30];

/// Where a blow falls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum At {
    Disk(usize),
    Hub(usize),
    Network(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    pub(super) kind: Kind,
    pub(super) contract: &'static str,
    pub(super) course: Course,
    /// The request carries a SHA-256, else a CRC.
    pub(super) hash: bool,
    /// A manifest vouches for the images, and raises the floor.
    pub(super) signed: bool,
    /// How the images are packed: only a manifest can say that they are.
    pub(super) packed: Option<Compression>,
    pub(super) held: Option<Held>,
    pub(super) blows: Vec<(At, Blow)>,
    /// What goes wrong in the update after it, counted from that one's beginning.
    pub(super) then: Vec<(At, Blow)>,
    /// The order of what may come in any order; 0 is always the same one.
    pub(super) order: u64,
}

impl Case {
    pub(super) fn with(&self, blows: &[(At, Blow)]) -> Self {
        Self {
            blows: blows.to_vec(),
            ..self.clone()
        }
    }

    /// As [`with`](Self::with), in the second update.
    pub(super) fn then(&self, blows: &[(At, Blow)]) -> Self {
        Self {
            then: blows.to_vec(),
            ..self.clone()
        }
    }

    pub(super) fn restarts_system(&self) -> bool {
        self.kind == Kind::System || self.kind.has_boot_loader()
    }

    /// A program that the guard looks after, and whose restart is its process's.
    pub(super) fn is_program(&self) -> bool {
        matches!(self.kind, Kind::Program { .. } | Kind::Link | Kind::Script)
    }

    pub(super) fn has(&self, find: impl Fn(Blow) -> bool) -> bool {
        self.blows.iter().any(|(_, blow)| find(*blow))
    }

    /// What ends a process in the middle.
    pub(super) fn stops(&self) -> usize {
        let stops = self.blows.iter();
        stops
            .filter(|(_, blow)| matches!(blow, Blow::Kill | Blow::PowerCut(_)))
            .count()
    }

    /// Every device and course that goes together.
    pub(super) fn all() -> Vec<Self> {
        let kinds = [
            Kind::Program {
                old: true,
                links: true,
            },
            Kind::Program {
                old: true,
                links: false,
            },
            Kind::Program {
                old: false,
                links: true,
            },
            Kind::Data,
            Kind::Service,
            Kind::System,
            Kind::Link,
            Kind::TryBoot,
            Kind::UBoot,
            Kind::Script,
            Kind::Handed,
        ];
        let courses = [
            Course::Good,
            Course::WrongImage,
            Course::NotFound,
            Course::Mute,
            Course::Dead,
            Course::Newer,
            Course::Cancelled,
            Course::Superseded,
        ];
        let mut cases = Vec::new();
        for (n, kind) in kinds.into_iter().enumerate() {
            for (m, course) in courses.into_iter().enumerate() {
                let signed = (n + m) % 3 == 0;
                let case = |contract| Self {
                    kind,
                    contract,
                    course,
                    hash: (n + m) % 2 == 0,
                    signed,
                    packed: match n {
                        3 if signed => Some(Compression::Gzip),
                        6 if signed => Some(Compression::Zstd),
                        _ => None,
                    },
                    held: HELD.get((3 * n + m) % 7).copied(),
                    blows: Vec::new(),
                    then: Vec::new(),
                    order: 0,
                };
                let both = course == Course::Good;
                let desired = case("configuration");
                let fits = match course {
                    // Who else is to bring the old one back?
                    Course::Dead => desired.is_program() || kind.has_boot_loader(),
                    Course::Newer => kind.has_boot_loader(),
                    _ => true,
                };
                if fits && (both || course == Course::Superseded || (n + m) % 2 == 0) {
                    cases.push(desired);
                }
                if fits && course != Course::Superseded && (both || (n + m) % 2 == 1) {
                    cases.push(case("iothub-dm"));
                }
            }
        }
        cases
    }

    /// A case with several faults.
    pub(super) fn random(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut all = Self::all();
        let mut case = all.swap_remove(random.below(all.len()));
        case.hash = random.one_in(2);
        case.signed = random.one_in(3);
        case.held = HELD.get(random.below(8)).copied();
        case.order = random.next() | 1;
        for _ in 0..2 + random.below(4) {
            case.blows.push(Self::random_blow(&mut random));
        }
        if random.one_in(2) {
            for _ in 0..1 + random.below(3) {
                case.then.push(Self::random_blow(&mut random));
            }
        }
        case.packed = match random.below(4) {
            0 if case.signed => Some(Compression::Gzip),
            1 if case.signed => Some(Compression::Zstd),
            _ => None,
        };
        case
    }

    fn random_blow(random: &mut Random) -> (At, Blow) {
        match random.below(11) {
            10 => {
                let at = match random.one_in(2) {
                    true => At::Hub(random.below(25)),
                    false => At::Network(random.below(20)),
                };
                (at, Blow::Clock(CLOCKS[random.below(CLOCKS.len())]))
            }
            0 => (
                At::Hub(random.below(25)),
                Blow::Hub(HUB_FAULTS[random.below(HUB_FAULTS.len())]),
            ),
            1..=2 => (
                At::Network(random.below(20)),
                Blow::Network(NETWORK_FAULTS[random.below(NETWORK_FAULTS.len())]),
            ),
            3 => (
                At::Disk(random.below(220)),
                Blow::Error(ERRORS[random.below(3)], 1 << random.below(6)),
            ),
            n => {
                let at = match random.below(8) {
                    0 => At::Hub(random.below(25)),
                    1 => At::Network(random.below(20)),
                    _ => At::Disk(random.below(220)),
                };
                match n {
                    4 => (at, Blow::Kill),
                    _ => (at, Blow::PowerCut(Left::Torn(random.next()))),
                }
            }
        }
    }
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
