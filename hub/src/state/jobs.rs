//! Jobs and what they did with each device.

use super::{Shared, State, internal, query::Turn};
use crate::{
    clock,
    error::{Code, Error, Refusal},
    jobs::{
        DeviceJob, DeviceStatus, Job, Kind, MAX_ANSWERS, MAX_JOBS, MAX_RESULTS, Statistics, Status,
        none,
    },
    store::{self, Store},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
};
use tokio::sync::watch;

/// A job, and what stops it.
struct Running {
    job: Job,
    cancel: watch::Sender<bool>,
    /// The bytes of its devices' answers.
    answers: usize,
}

#[derive(Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<String, Running>,
    /// By [`DeviceJob::key`].
    devices: BTreeMap<String, DeviceJob>,
}

impl Jobs {
    /// What is kept of jobs. A direct method that was under way counts as failed.
    pub(super) fn load(store: &Store) -> Result<Self, Error> {
        let mut jobs = Self::default();
        for job in store.rows::<Job>(store::JOBS)? {
            jobs.insert(job);
        }
        let mut changed = Vec::new();
        for mut device in store.rows::<DeviceJob>(store::JOB_DEVICES)? {
            let key = DeviceJob::key(&device.job, &device.device);
            if device.status == DeviceStatus::Running && device.kind == Kind::ScheduleDeviceMethod {
                device.fail(
                    "ServiceUnavailable",
                    "The hub was stopped while the method was under way: whether the device ran it is not known.",
                );
                changed.push((key.clone(), device.clone()));
            }
            if let Some(running) = jobs.jobs.get_mut(&device.job) {
                running.answers += size(device.answer.as_ref());
            }
            jobs.devices.insert(key, device);
        }
        store
            .put_all(
                store::JOB_DEVICES,
                changed.iter().map(|(key, device)| (key.as_str(), device)),
            )
            .map_err(Error::System)?;
        Ok(jobs)
    }

    fn insert(&mut self, job: Job) -> watch::Receiver<bool> {
        let (cancel, cancelled) = watch::channel(false);
        let running = Running {
            job,
            cancel,
            answers: 0,
        };
        self.jobs.insert(running.job.id.clone(), running);
        cancelled
    }

    fn get(&self, id: &str) -> Result<&Job, Refusal> {
        self.jobs
            .get(id)
            .map(|running| &running.job)
            .ok_or_else(|| none(id))
    }

    fn devices(&self, job: &str) -> impl Iterator<Item = (&String, &DeviceJob)> {
        let first = DeviceJob::key(job, "");
        let prefix = first.clone();
        self.devices
            .range(first..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
    }

    /// An answer as it is kept: without its payload when the job keeps enough already.
    fn bounded(&mut self, job: &str, mut answer: Value) -> Value {
        let Some(running) = self.jobs.get_mut(job) else {
            return answer;
        };
        let size = size(Some(&answer));
        if running.answers + size <= MAX_ANSWERS {
            running.answers += size;
        } else if let Some(payload) = answer.get_mut("payload") {
            payload.take();
        }
        answer
    }

    fn shown(&self, job: &Job) -> Value {
        let mut statistics = Statistics::default();
        self.devices(&job.id)
            .for_each(|(_, device)| statistics.add(device));
        job.shown(&statistics)
    }
}

impl State {
    /// Keeps a changed job.
    fn save_job(&mut self, job: Job) -> Result<(), Refusal> {
        self.store
            .put(store::JOBS, &job.id, &job)
            .map_err(internal)?;
        if let Some(running) = self.jobs.jobs.get_mut(&job.id) {
            running.job = job;
        }
        Ok(())
    }

    /// Keeps changed results.
    fn save_device_jobs(&mut self, devices: Vec<DeviceJob>) -> Result<(), Refusal> {
        let rows: Vec<_> = devices
            .into_iter()
            .map(|device| (DeviceJob::key(&device.job, &device.device), device))
            .collect();
        self.store
            .put_all(
                store::JOB_DEVICES,
                rows.iter().map(|(key, device)| (key.as_str(), device)),
            )
            .map_err(internal)?;
        self.jobs.devices.extend(rows);
        Ok(())
    }

    /// Forgets ended jobs, the oldest first, until there is room for another.
    fn make_room(&mut self) -> Result<(), Refusal> {
        while self.jobs.jobs.len() >= MAX_JOBS || self.jobs.devices.len() > MAX_RESULTS {
            let oldest = self
                .jobs
                .jobs
                .values()
                .filter(|running| !running.job.is_open())
                .min_by_key(|running| running.job.order)
                .map(|running| running.job.id.clone());
            let Some(id) = oldest else {
                if self.jobs.jobs.len() < MAX_JOBS {
                    return Ok(());
                }
                return Err(Refusal::new(
                    Code::JOB_QUOTA_EXCEEDED,
                    format!("This hub takes at most {MAX_JOBS} jobs that have not ended."),
                ));
            };
            let keys: Vec<String> = self.jobs.devices(&id).map(|(key, _)| key.clone()).collect();
            self.store
                .remove_all(store::JOB_DEVICES, keys.iter().map(String::as_str))
                .map_err(internal)?;
            self.store.remove(store::JOBS, &id).map_err(internal)?;
            for key in &keys {
                self.jobs.devices.remove(key);
            }
            self.jobs.jobs.remove(&id);
        }
        Ok(())
    }

    /// Ends a job that has not ended, and with it all that it had not done yet.
    fn end_job(
        &mut self,
        id: &str,
        status: Status,
        failure: Option<String>,
        reason: &str,
    ) -> Result<(), Refusal> {
        let mut job = self.jobs.get(id)?.clone();
        if !job.is_open() {
            return Ok(());
        }
        let mut open: Vec<DeviceJob> = self
            .jobs
            .devices(id)
            .filter(|(_, device)| device.status.is_open())
            .map(|(_, device)| device.clone())
            .collect();
        for device in &mut open {
            match status {
                Status::Cancelled => device.set(DeviceStatus::Canceled),
                _ => device.fail("JobRunPreconditionFailed", reason),
            }
        }
        self.save_device_jobs(open)?;
        job.status = status;
        job.failure = failure;
        job.ended = Some(clock::now());
        self.save_job(job)
    }
}

impl Shared {
    /// Takes a new job; gives what is shown of it, itself, and what tells that it is cancelled.
    pub(crate) fn put_job(&self, job: Job) -> Result<(Value, Job, watch::Receiver<bool>), Refusal> {
        let mut state = self.lock();
        if state.jobs.jobs.contains_key(&job.id) {
            return Err(Refusal::new(
                Code::JOB_EXISTS,
                format!("Job {} exists already.", job.id),
            ));
        }
        state.make_room()?;
        state
            .store
            .put(store::JOBS, &job.id, &job)
            .map_err(internal)?;
        let cancelled = state.jobs.insert(job.clone());
        Ok((state.jobs.shown(&job), job, cancelled))
    }

    pub(crate) fn get_job(&self, id: &str) -> Result<Value, Refusal> {
        let state = self.lock();
        Ok(state.jobs.shown(state.jobs.get(id)?))
    }

    /// Cancels a job; one that has ended stays as it is.
    pub(crate) fn cancel_job(&self, id: &str) -> Result<Value, Refusal> {
        let mut state = self.lock();
        state.end_job(id, Status::Cancelled, None, "")?;
        if let Some(running) = state.jobs.jobs.get(id) {
            running.cancel.send_replace(true);
        }
        Ok(state.jobs.shown(state.jobs.get(id)?))
    }

    /// Shows `visit` the jobs whose id is above `after`, in the order of ids, until it has enough.
    pub(crate) fn visit_jobs(
        &self,
        after: Option<&str>,
        mut visit: impl FnMut(&Job, &dyn Fn() -> Value) -> ControlFlow<()>,
    ) {
        let state = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let jobs = state.jobs.jobs.range::<str, _>((start, Bound::Unbounded));
        for (_, running) in jobs {
            if visit(&running.job, &|| state.jobs.shown(&running.job)).is_break() {
                return;
            }
        }
    }

    /// Like [`Shared::visit_twins`], of what jobs did with devices. The keys are of no meaning but their order.
    pub(crate) fn visit_device_jobs(
        &self,
        after: Option<&str>,
        visit: &mut dyn FnMut(&str, &Value) -> ControlFlow<()>,
    ) -> Option<String> {
        let state = self.lock();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let turn = Turn::begin();
        let devices = state
            .jobs
            .devices
            .range::<str, _>((start, Bound::Unbounded));
        for (index, (key, device)) in devices.enumerate() {
            if visit(key, &device.shown()).is_break() {
                return None;
            }
            if turn.is_over(index) {
                return Some(key.clone());
            }
        }
        None
    }

    // For those who run a job

    /// All jobs that have not ended.
    pub(crate) fn open_jobs(&self) -> Vec<(Job, watch::Receiver<bool>)> {
        let state = self.lock();
        let jobs = state.jobs.jobs.values();
        jobs.filter(|running| running.job.is_open())
            .map(|running| (running.job.clone(), running.cancel.subscribe()))
            .collect()
    }

    /// Notes that a job runs.
    pub(crate) fn begin_job(&self, id: &str) -> Result<(), Refusal> {
        let mut state = self.lock();
        let mut job = state.jobs.get(id)?.clone();
        if job.status == Status::Scheduled {
            job.status = Status::Running;
            state.save_job(job)?;
        }
        Ok(())
    }

    /// Adds devices to a job, with `all` the last ones.
    pub(crate) fn add_job_devices(
        &self,
        id: &str,
        devices: &[String],
        all: bool,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let mut job = state.jobs.get(id)?.clone();
        // Some may be known from before a restart.
        let new = devices
            .iter()
            .filter(|device| !state.jobs.devices.contains_key(&DeviceJob::key(id, device)))
            .map(|device| job.device(device))
            .collect();
        state.save_device_jobs(new)?;
        if all {
            job.gathered = true;
            state.save_job(job)?;
        }
        Ok(())
    }

    /// The devices a job still has to come to.
    pub(crate) fn job_devices(&self, id: &str) -> Vec<String> {
        let state = self.lock();
        state
            .jobs
            .devices(id)
            .filter(|(_, device)| device.status.is_open())
            .map(|(_, device)| device.device.clone())
            .collect()
    }

    /// Patches the twins of some of a job's devices. Twins and results are kept together, so that after a kill no patch is made
    /// twice.
    pub(crate) fn patch_job_devices(&self, job: &Job, devices: &[String]) -> Result<(), Refusal> {
        let mut state = self.lock();
        let (mut changed, mut results) = (Vec::new(), Vec::new());
        for id in devices {
            let key = DeviceJob::key(&job.id, id);
            // The job may have ended in the meantime.
            let found = state.jobs.devices.get(&key);
            let Some(mut result) = found.filter(|found| found.status.is_open()).cloned() else {
                continue;
            };
            result.set(DeviceStatus::Running);
            match state.updated(id, &job.request, false) {
                Ok(updated) => {
                    changed.push(updated);
                    result.set(DeviceStatus::Completed);
                }
                Err(refusal) => result.fail(refusal.code.1, &refusal.message),
            }
            results.push((key, result));
        }
        state
            .store
            .put_devices_and(
                changed.iter().map(|(device, _)| device),
                store::JOB_DEVICES,
                results.iter().map(|(key, result)| (key.as_str(), result)),
            )
            .map_err(internal)?;
        state.jobs.devices.extend(results);
        let mut told = Vec::new();
        for (device, patches) in changed {
            let id = device.identity.device_id.clone();
            let entry = state.entry_mut(&id)?;
            entry.device = device;
            for patch in patches {
                entry.send_desired(&patch);
                told.push((id.clone(), patch));
            }
        }
        drop(state);
        for (id, patch) in told {
            self.tell_desired(&id, patch);
        }
        Ok(())
    }

    /// Notes, before a job calls a method, which devices it calls: it is not called a second time after a kill.
    pub(crate) fn begin_device_jobs<'d>(
        &self,
        job: &str,
        devices: impl Iterator<Item = &'d str>,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let begun = devices
            .filter_map(|device| state.jobs.devices.get(&DeviceJob::key(job, device)))
            .map(|found| {
                let mut begun = found.clone();
                begun.set(DeviceStatus::Running);
                begun
            })
            .collect();
        state.save_device_jobs(begun)
    }

    /// Notes what devices answered, unless the job ended before.
    pub(crate) fn end_device_jobs(
        &self,
        job: &str,
        results: impl Iterator<Item = (String, Result<Value, Refusal>)>,
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let mut ended = Vec::new();
        for (device, result) in results {
            let found = state.jobs.devices.get(&DeviceJob::key(job, &device));
            let Some(mut found) = found
                .filter(|found| found.status == DeviceStatus::Running)
                .cloned()
            else {
                continue;
            };
            match result {
                Ok(answer) => {
                    found.answer = Some(state.jobs.bounded(job, answer));
                    found.set(DeviceStatus::Completed);
                }
                Err(refusal) => found.fail(refusal.code.1, &refusal.message),
            }
            ended.push(found);
        }
        state.save_device_jobs(ended)
    }

    /// Ends a job; `reason` says why of the devices it did not finish with.
    pub(crate) fn end_job(
        &self,
        id: &str,
        status: Status,
        failure: Option<String>,
        reason: &str,
    ) -> Result<(), Refusal> {
        self.lock().end_job(id, status, failure, reason)
    }
}

/// The bytes of an answer's JSON.
fn size(answer: Option<&Value>) -> usize {
    answer.map_or(0, |answer| answer.to_string().len())
}
