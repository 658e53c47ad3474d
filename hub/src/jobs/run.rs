//! Running jobs.

use super::{Job, Kind, Status};
use crate::{
    clock,
    error::Refusal,
    methods::{self, Call},
    state::Shared,
    throttle::Operation,
};
use std::{iter, ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until, timeout},
};

/// How many twins are patched in one go, while which others do not get at the state.
const BATCH: usize = 100;

/// Goes on with the jobs that had not ended when the hub did.
pub(crate) async fn resume(hub: Arc<Shared>) {
    for (job, cancelled) in hub.open_jobs() {
        start(&hub, job, cancelled);
    }
}

/// Runs a job in the background to its end.
pub(crate) fn start(hub: &Arc<Shared>, job: Job, mut cancelled: watch::Receiver<bool>) {
    let hub = hub.clone();
    tokio::spawn(async move {
        let (status, failure) = tokio::select! {
            biased;
            () = hub.stopped() => return,
            // Who cancelled it wrote that down.
            _ = cancelled.wait_for(|cancelled| *cancelled) => return,
            result = run(&hub, &job) => match result {
                Ok(()) => (Status::Completed, None),
                Err(refusal) => (Status::Failed, Some(refusal.message)),
            },
        };
        let reason =
            "The job's time ended before it came to the device, or before the device answered.";
        if let Err(refusal) = hub.end_job(&job.id, status, failure, reason) {
            log::error!(target: "twinflash_hub", "job {}: {}", job.id, refusal.message);
        }
    });
}

async fn run(hub: &Arc<Shared>, job: &Job) -> Result<(), Refusal> {
    // Looked at again now and then: the clock may be set.
    while let Some(rest) = job.start_unix.checked_sub(clock::unix())
        && rest > 0
    {
        sleep(Duration::from_secs(rest.min(60))).await;
    }
    hub.begin_job(&job.id)?;
    let rest = (job.start_unix + job.max_time).saturating_sub(clock::unix());
    // Time that is over ends a job as its last device does.
    timeout(Duration::from_secs(rest), work(hub, job))
        .await
        .unwrap_or(Ok(()))
}

async fn work(hub: &Arc<Shared>, job: &Job) -> Result<(), Refusal> {
    let mut devices = hub.job_devices(&job.id);
    if !job.gathered {
        let condition = job.condition()?;
        let mut after = None;
        loop {
            let mut found = Vec::new();
            after = hub.visit_twins(after.as_deref(), &mut |id, twin| {
                if condition.matches(twin) {
                    found.push(id.to_owned());
                }
                ControlFlow::Continue(())
            });
            hub.add_job_devices(&job.id, &found, after.is_none())?;
            if after.is_none() {
                break;
            }
            yield_now().await;
        }
        devices = hub.job_devices(&job.id);
    }

    match job.kind {
        Kind::ScheduleUpdateTwin => patch(hub, job, devices).await,
        Kind::ScheduleDeviceMethod => {
            let call = Call::parse(job.request.clone())?;
            invoke(hub, job, &call, devices).await
        }
    }
}

/// Patches the twins of many devices at a time: each time waits for the disk once.
async fn patch(hub: &Shared, job: &Job, devices: Vec<String>) -> Result<(), Refusal> {
    let mut batch = Vec::new();
    for device in devices {
        batch.push(device);
        let pause = hub.throttle.reserve(Operation::JobDevice);
        if pause.is_some() || batch.len() == BATCH {
            hub.patch_job_devices(job, &batch)?;
            batch.clear();
            match pause {
                Some(then) => sleep_until(then).await,
                None => yield_now().await,
            }
        }
    }
    hub.patch_job_devices(job, &batch)
}

/// Calls a method on as many devices at once as may be. What begins together, or ends together, is noted together.
async fn invoke(
    hub: &Arc<Shared>,
    job: &Job,
    call: &Call,
    devices: Vec<String>,
) -> Result<(), Refusal> {
    let mut devices = devices.into_iter().peekable();
    let mut busy = JoinSet::new();
    let (mut permit, mut pause) = (None, None);
    loop {
        let mut begun = Vec::new();
        while pause.is_none() && devices.peek().is_some() {
            let free = || hub.busy_with_jobs.clone().try_acquire_owned().ok();
            let Some(permit) = permit.take().or_else(free) else {
                break;
            };
            pause = hub.throttle.reserve(Operation::JobDevice);
            begun.extend(devices.next().map(|device| (device, permit)));
        }
        hub.begin_device_jobs(&job.id, begun.iter().map(|(device, _)| device.as_str()))?;
        for (device, permit) in begun {
            let (hub, call) = (hub.clone(), call.clone());
            busy.spawn(async move {
                let result = methods::invoke(&hub, &device, call).await;
                drop(permit);
                (device, result)
            });
        }
        let more = devices.peek().is_some();
        if !more && busy.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(ended) = busy.join_next() => {
                let all = iter::once(ended).chain(iter::from_fn(|| busy.try_join_next()));
                hub.end_device_jobs(&job.id, all.flatten())?;
            }
            // Other jobs may have them all.
            free = hub.busy_with_jobs.clone().acquire_owned(), if more && pause.is_none() => {
                permit = free.ok();
            }
            () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => pause = None,
        }
    }
}
