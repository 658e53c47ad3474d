//! Running jobs.

use super::{Job, Kind, Status};
use crate::{
    clock,
    error::Refusal,
    methods::{self, Call},
    state::{IfMatch, Shared},
};
use serde_json::Value;
use std::{ops::ControlFlow, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

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
            tokio::task::yield_now().await;
        }
        devices = hub.job_devices(&job.id);
    }

    let call = match job.kind {
        Kind::ScheduleDeviceMethod => Some(Call::parse(job.request.clone())?),
        Kind::ScheduleUpdateTwin => None,
    };
    let mut busy = JoinSet::new();
    for device in devices {
        while busy.try_join_next().is_some() {}
        let Ok(permit) = hub.busy_with_jobs.clone().acquire_owned().await else {
            break;
        };
        hub.begin_device_job(job, &device)?;
        let (hub, job, call) = (hub.clone(), job.clone(), call.clone());
        busy.spawn(async move {
            let result = one(&hub, &job, call, &device).await;
            if let Err(refusal) = hub.end_device_job(&job.id, &device, result) {
                log::error!(target: "twinflash_hub", "job {}: {}", job.id, refusal.message);
            }
            drop(permit);
        });
    }
    while busy.join_next().await.is_some() {}
    Ok(())
}

/// Does with one device what the job is for; gives the device's answer, if it is one that answers.
async fn one(
    hub: &Shared,
    job: &Job,
    call: Option<Call>,
    device: &str,
) -> Result<Option<Value>, Refusal> {
    match call {
        Some(call) => methods::invoke(hub, device, call).await.map(Some),
        None => hub
            .update_twin(device, &job.request, false, &IfMatch::None)
            .map(|_| None),
    }
}
