//! How much a hub takes in a time, as Azure limits it.

use crate::error::{Code, Refusal};
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How many operations are taken in a time: so many at once, and then again as that time goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; 0 is taken for 1.
    pub count: u32,
    /// In how much time.
    pub per: Duration,
}

impl Rate {
    /// So many in a second.
    pub const fn per_second(count: u32) -> Self {
        let per = Duration::from_secs(1);
        Self { count, per }
    }

    /// So many in a minute.
    pub const fn per_minute(count: u32) -> Self {
        let per = Duration::from_secs(60);
        Self { count, per }
    }
}

/// What a hub takes of each kind of operation, from all devices and back ends together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// New connections of devices. Above it, CONNECT is answered with 3 (server unavailable).
    pub connections: Rate,
    /// Messages of devices. Above it, the hub reads the sender's next packet later.
    pub telemetry: Rate,
    /// Twins read by devices and back ends. Above it, 429, as with all that follows.
    pub twin_reads: Rate,
    /// Twins changed by devices and back ends.
    pub twin_updates: Rate,
    /// Direct methods, each begun 4 KB of payload counting as one.
    pub methods: Rate,
    /// Operations of the identity registry.
    pub registry: Rate,
    /// Queries.
    pub queries: Rate,
    /// Operations on automatic device configurations.
    pub configurations: Rate,
    /// Operations on jobs: made, looked at, cancelled.
    pub jobs: Rate,
    /// What jobs do with devices: twins changed, direct methods called. Above it, the job waits; it counts as nothing else.
    pub job_devices: Rate,
}

impl Limits {
    /// One unit of Azure's S1, by "IoT Hub quotas and throttling". Azure's 160 KB a second of direct methods are 40 a second
    /// at 4 KB each.
    pub const S1: Self = Self {
        connections: Rate::per_second(100),
        telemetry: Rate::per_second(100),
        twin_reads: Rate::per_second(100),
        twin_updates: Rate::per_second(50),
        methods: Rate::per_second(40),
        registry: Rate::per_minute(100),
        queries: Rate::per_minute(20),
        configurations: Rate::per_minute(20),
        jobs: Rate::per_minute(100),
        job_devices: Rate::per_second(10),
    };
}

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Connection,
    Telemetry,
    TwinRead,
    TwinUpdate,
    Method,
    Registry,
    Query,
    Configuration,
    Job,
    JobDevice,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "new connections",
            Self::Telemetry => "messages",
            Self::TwinRead => "twin reads",
            Self::TwinUpdate => "twin updates",
            Self::Method => "direct methods (of 4 KB)",
            Self::Registry => "registry operations",
            Self::Query => "queries",
            Self::Configuration => "operations on configurations",
            Self::Job => "operations on jobs",
            Self::JobDevice => "devices of jobs",
        })
    }
}

/// Counts what is limited; counts nothing without limits.
pub(crate) struct Throttle(Option<Buckets>);

struct Buckets {
    connections: Bucket,
    telemetry: Bucket,
    twin_reads: Bucket,
    twin_updates: Bucket,
    methods: Bucket,
    registry: Bucket,
    queries: Bucket,
    configurations: Bucket,
    jobs: Bucket,
    job_devices: Bucket,
}

impl Throttle {
    pub(crate) fn new(limits: Option<Limits>) -> Self {
        Self(limits.map(|limits| Buckets {
            connections: Bucket::new(limits.connections),
            telemetry: Bucket::new(limits.telemetry),
            twin_reads: Bucket::new(limits.twin_reads),
            twin_updates: Bucket::new(limits.twin_updates),
            methods: Bucket::new(limits.methods),
            registry: Bucket::new(limits.registry),
            queries: Bucket::new(limits.queries),
            configurations: Bucket::new(limits.configurations),
            jobs: Bucket::new(limits.jobs),
            job_devices: Bucket::new(limits.job_devices),
        }))
    }

    fn bucket(&self, operation: Operation) -> Option<&Bucket> {
        let buckets = self.0.as_ref()?;
        Some(match operation {
            Operation::Connection => &buckets.connections,
            Operation::Telemetry => &buckets.telemetry,
            Operation::TwinRead => &buckets.twin_reads,
            Operation::TwinUpdate => &buckets.twin_updates,
            Operation::Method => &buckets.methods,
            Operation::Registry => &buckets.registry,
            Operation::Query => &buckets.queries,
            Operation::Configuration => &buckets.configurations,
            Operation::Job => &buckets.jobs,
            Operation::JobDevice => &buckets.job_devices,
        })
    }

    /// Takes an operation, or refuses it with 429001.
    pub(crate) fn take(&self, operation: Operation) -> Result<(), Refusal> {
        self.take_units(operation, 1)
    }

    /// Takes one that counts as several.
    pub(crate) fn take_units(&self, operation: Operation, units: u32) -> Result<(), Refusal> {
        let Some(bucket) = self.bucket(operation) else {
            return Ok(());
        };
        bucket.take(units).map_err(|wait| {
            let Rate { count, per } = bucket.rate;
            Refusal::new(
                Code::THROTTLED,
                format!(
                    "Throttled: more than {count} {operation} in {} s. Try again in {:.1} s.",
                    per.as_secs_f64(),
                    wait.as_secs_f64()
                ),
            )
        })
    }

    /// Takes an operation, and says until when the next one of the same origin has to wait, if it has to.
    pub(crate) fn reserve(&self, operation: Operation) -> Option<Instant> {
        self.bucket(operation).and_then(Bucket::reserve)
    }
}

/// The generic cell rate algorithm: what was taken, as the time by which it will have been paid for.
struct Bucket {
    rate: Rate,
    paid: Mutex<Instant>,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        let count = rate.count.max(1);
        Self {
            rate: Rate { count, ..rate },
            paid: Mutex::new(Instant::now()),
        }
    }

    fn price(&self, units: u32) -> Duration {
        self.rate.per / self.rate.count * units.min(self.rate.count)
    }

    /// Takes `units` if they are there, else says in what time they will be.
    fn take(&self, units: u32) -> Result<(), Duration> {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let then = (*paid).max(now) + self.price(units);
        let ahead = then.duration_since(now);
        if ahead > self.rate.per {
            return Err(ahead - self.rate.per);
        }
        *paid = then;
        Ok(())
    }

    fn reserve(&self) -> Option<Instant> {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        *paid = (*paid).max(now) + self.price(1);
        let ahead = paid.duration_since(now);
        (ahead > self.rate.per).then(|| now + (ahead - self.rate.per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_then_as_time_goes_by() {
        let throttle = Throttle::new(Some(Limits {
            registry: Rate::per_minute(6),
            ..Limits::S1
        }));
        let take = || throttle.take(Operation::Registry);
        for _ in 0..6 {
            take().unwrap();
        }
        let refusal = take().unwrap_err();
        assert_eq!(refusal.code, Code::THROTTLED);
        assert_eq!(
            refusal.message,
            "Throttled: more than 6 registry operations in 60 s. Try again in 10.0 s."
        );
        advance(Duration::from_secs(10)).await;
        take().unwrap();
        assert!(take().is_err());
        // A long pause saves up no more than the limit.
        advance(Duration::from_secs(3600)).await;
        assert_eq!((0..20).filter(|_| take().is_ok()).count(), 6);
        // The other kinds have limits of their own.
        throttle.take(Operation::TwinRead).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn large_ones_count_more_and_none_counts_too_much() {
        let throttle = Throttle::new(Some(Limits {
            methods: Rate::per_second(4),
            ..Limits::S1
        }));
        let take = |units| throttle.take_units(Operation::Method, units);
        take(3).unwrap();
        assert!(take(2).is_err());
        take(1).unwrap();
        advance(Duration::from_secs(1)).await;
        take(100).unwrap();
        assert!(take(1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_wait_is_told_how_long() {
        let throttle = Throttle::new(Some(Limits {
            telemetry: Rate::per_second(2),
            ..Limits::S1
        }));
        let wait = || throttle.reserve(Operation::Telemetry);
        let wait = || wait().map(|then| (then - Instant::now()).as_millis());
        let waits: Vec<_> = (0..4).map(|_| wait()).collect();
        assert_eq!(waits, [None, None, Some(500), Some(1000)]);
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let throttle = Throttle::new(None);
        assert!((0..10_000).all(|_| throttle.take(Operation::TwinUpdate).is_ok()));
    }
}
