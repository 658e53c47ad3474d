//! Who vouches for an image: signed manifests, where the device's owner has configured keys.
//!
//! Nothing is downloaded, and nothing applied, before a manifest vouches for it that was opened since
//! this start, with the keys as they are now. What it says then is part of the request: the image must
//! have its size and its SHA-256.

use super::{Engine, Event, Output, Work};
use crate::contract::Verdict;
use crate::json;
use crate::update::{
    Check, Code, Failure, Job, Origin, Request, Retry, Signed, beside,
    trust::{self, KeySet, MAX_LENGTH, Manifest, Trust},
    version,
};
use alloc::{boxed::Box, format, string::String};
use sha2::{Digest, Sha256};

impl Engine {
    /// From now on nothing is installed but what these keys vouch for. To be called before
    /// [`Input::Boot`](super::Input::Boot).
    pub fn set_trust(&mut self, trust: Trust) {
        self.config.policy.require_manifest = true;
        self.trust = Some(trust);
    }

    /// The keys that are trusted now, where some are configured: those of the last rotation, if there
    /// was one.
    pub fn keys(&self) -> Option<&KeySet> {
        self.trust.as_ref().map(|trust| &trust.keys)
    }

    /// Whether an image is installed only if a manifest vouches for it.
    pub fn needs_manifest(&self) -> bool {
        self.config.policy.require_manifest
    }

    /// The record is read: a rotation it has seen still counts.
    pub(super) fn take_kept_keys(&mut self) {
        let (true, Some(trust), Some(kept)) =
            (trust::CAN_BE, &mut self.trust, &self.record.key_set)
        else {
            return;
        };
        let kept = json::of::<KeySet>(kept).map_err(|error| {
            let text = format!("the keys of the last rotation cannot be read: {error}");
            Failure::new(Code::InvalidKey, text)
        });
        match kept.and_then(|kept| trust.keys.clone().newer_of(kept)) {
            Ok(keys) => trust.keys = keys,
            // Falling back on the older keys would be what a rotation is made against.
            Err(failure) => {
                self.event(Event::Warning(format!(
                    "no image is trusted until a key set of a higher version is configured: {failure}"
                )));
                self.trust = None;
            }
        }
    }

    /// What becomes of a request, once the keys and the manifest that it brings are looked at.
    pub(super) fn vouched_for(&mut self, verdict: Verdict) -> Verdict {
        if !self.config.policy.require_manifest {
            return verdict;
        }
        if let Verdict::Start(request) | Verdict::UpToDate(request) | Verdict::Refuse(request, _) =
            &verdict
            && let Some(keys) = request.keys.clone()
        {
            self.rotate(&keys);
        }
        let Verdict::Start(mut request) = verdict else {
            return verdict;
        };
        if request.manifest.is_none() {
            // It may be beside the image.
            return Verdict::Start(request);
        }
        match self.examine(&mut request) {
            Ok(complete) => {
                self.examined = complete.then_some(request.key);
                Verdict::Start(request)
            }
            Err(failure) => Verdict::Refuse(request, failure),
        }
    }

    /// Takes a new key set, unless it is the one that was taken last.
    fn rotate(&mut self, signed: &str) {
        let digest = base16ct::lower::encode_string(&Sha256::digest(signed.trim().as_bytes()));
        let (true, Some(trust)) = (trust::CAN_BE, &mut self.trust) else {
            return;
        };
        if self.record.rotated_by.as_ref() == Some(&digest) {
            return;
        }
        match trust.rotate(signed) {
            Ok(()) => {
                let version = trust.keys.version();
                self.record.key_set = serde_json::to_value(&trust.keys).ok();
                self.record.rotated_by = Some(digest);
                // What is under way is looked at anew, before it goes on or is applied.
                self.vouched = None;
                self.save();
                self.event(Event::KeysRotated { version });
            }
            Err(failure) => {
                self.event(Event::Warning(format!(
                    "the new keys are not taken: {failure}"
                )));
            }
        }
    }

    /// Opens a request's manifest and makes what it says part of the request. `false` where the time
    /// could not be looked at: the clock cannot be believed yet.
    pub(super) fn examine(&self, request: &mut Request) -> Result<bool, Failure> {
        let manifest = self.opened(request)?;
        let wall = self.wall_time(self.now);
        if let Some(wall) = wall {
            manifest.check_time(wall)?;
        }
        let policy = &self.config.policy;
        let running = self.running_version.as_deref();
        self.config
            .contract
            .check_version(&manifest.version, running, policy)?;
        if manifest.size > policy.max_size {
            let (size, most) = (manifest.size, policy.max_size);
            let text = format!("the image has {size} bytes; this device takes at most {most}");
            return Err(Failure::new(Code::TooLarge, text));
        }
        bind(request, manifest)?;
        Ok(wall.is_some())
    }

    /// A request's manifest: signed as it must be, for this device, and not below its floor.
    fn opened(&self, request: &Request) -> Result<Manifest, Failure> {
        let (true, Some(trust)) = (trust::CAN_BE, &self.trust) else {
            return Err(Failure::new(
                Code::Untrusted,
                "this device has no keys that it could trust",
            ));
        };
        let text = request.manifest.as_ref().ok_or_else(|| {
            let text = "nothing signed vouches for the image";
            Failure::new(Code::ManifestRequired, text)
        })?;
        let manifest = trust.open(text)?;
        manifest.check_device(&trust.identity)?;
        let floors = [&self.record.core.floor, &self.config.policy.floor];
        for floor in floors.into_iter().flatten() {
            manifest.check_floor(floor)?;
        }
        Ok(manifest)
    }

    /// Whether the running update's download may go on. Where that cannot be known yet, what is needed
    /// is under way; where it may not, the update has failed.
    pub(super) fn is_vouched_for(&mut self) -> bool {
        let Some(mut request) = self.request().cloned() else {
            return false;
        };
        if !self.config.policy.require_manifest || self.vouched == Some(request.key) {
            return true;
        }
        if request.manifest.is_none() && self.trust.is_some() {
            self.fetch_manifest(&request);
            return false;
        }
        match self.examine(&mut request) {
            Ok(true) => {
                self.vouched = Some(request.key);
                self.change(|update| update.request = request);
                self.save();
                true
            }
            Ok(false) => {
                if self.wait_for_clock() {
                    self.event(Event::Warning(String::from(
                        "the update waits for the clock: until that is right, nobody knows whether its manifest has expired",
                    )));
                }
                false
            }
            Err(failure) => {
                self.failed(failure);
                false
            }
        }
    }

    /// Whether the transfer that runs, or ran last, is that of a manifest.
    pub(super) fn is_fetching_manifest(&self) -> bool {
        let key = self.request().map(|request| request.key);
        self.config.policy.require_manifest && self.vouched != key
    }

    fn fetch_manifest(&mut self, request: &Request) {
        let policy = &self.config.policy;
        let job = Job {
            uri: beside(&request.uri, ".jws"),
            resume: None,
            size: None,
            max_size: MAX_LENGTH as u64,
            // A signature judges it.
            hash_judges: true,
            content: String::new(),
            compression: None,
            encryption: None,
            file_size: None,
            local: request.origin == Origin::Local,
            https_only: !policy.allow_http,
            max_redirects: policy.max_redirects,
            checkpoint_interval: policy.checkpoint_interval,
            checkpoint_bytes: policy.checkpoint_bytes,
            stall_time: policy.stall_time,
            stall_bytes: policy.stall_bytes,
            bandwidth: None,
            dry_run: policy.dry_run,
        };
        self.transfer.since.get_or_insert(self.now.monotonic);
        self.work = Some(Work::Transfer);
        self.output(Output::FetchManifest(Box::new(job)));
    }

    /// The manifest beside the image has come.
    pub(super) fn manifest_fetched(&mut self, text: String) {
        // Saved with what it says, so that a restart needs no network to open it again.
        self.change(|update| update.request.manifest = Some(text));
    }

    /// Whether the manifest of an image that has waited to be applied still vouches for it: it may have
    /// expired, and keys and floor may be others.
    pub(super) fn is_still_vouched_for(&self) -> Result<(), Failure> {
        match self.request().cloned() {
            Some(mut request) if self.config.policy.require_manifest => {
                self.examine(&mut request).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Whether an image that was downloaded may be applied.
    pub(super) fn may_apply(&self) -> Result<(), Failure> {
        let Some(update) = &self.record.update else {
            return Ok(());
        };
        if !self.config.policy.require_manifest || self.vouched == Some(update.request.key) {
            return Ok(());
        }
        let manifest = self.opened(&update.request)?;
        match update.sha256.as_deref()
            == Some(base16ct::lower::encode_string(&manifest.sha256).as_str())
        {
            true => Ok(()),
            false => Err(Failure::new(
                Code::HashMismatch,
                "the image that was downloaded is not the one the manifest vouches for",
            )),
        }
    }

    /// An image has proved itself: its manifest's floor is this device's from now on.
    pub(super) fn signed_is_confirmed(&mut self) {
        let Some(signed) = self.request().and_then(|request| request.signed.clone()) else {
            return;
        };
        let record = &mut self.record;
        record.manifest_issued = record.manifest_issued.max(signed.issued);
        let known = record.core.floor.as_deref();
        if let Some(floor) = signed.floor
            && known.is_none_or(|known| version::compare(&floor, known).is_gt())
        {
            record.core.floor = Some(floor);
        }
    }
}

/// Makes what a manifest says part of the request, which may say the same but nothing else.
fn bind(request: &mut Request, manifest: Manifest) -> Result<(), Failure> {
    let contradiction =
        |what: &str, asked: &dyn core::fmt::Display, signed: &dyn core::fmt::Display| {
            Failure::new(
                Code::ManifestInvalid,
                format!("the request is for {what} {asked}, the manifest for {signed}"),
            )
        };
    if let Some(asked) = request.version.as_ref().filter(|v| **v != manifest.version) {
        return Err(contradiction("version", asked, &manifest.version));
    }
    if let Some(asked) = request.size.filter(|size| *size != manifest.size) {
        return Err(contradiction("size", &asked, &manifest.size));
    }
    let check = Check::Sha256(manifest.sha256);
    let sha256 = |check: &&Check| matches!(check, Check::Sha256(_));
    match request.checks.iter().find(sha256) {
        Some(asked) if *asked != check => return Err(contradiction("image", asked, &check)),
        Some(_) => {}
        None => request.checks.push(check),
    }
    request.version = Some(manifest.version);
    request.size = Some(manifest.size);
    request.signed = Some(Signed {
        issued: manifest.issued,
        floor: manifest.floor,
        compression: manifest.compression,
        encryption: manifest.encryption,
        file_size: manifest.download.map(|download| download.size),
    });
    Ok(())
}

/// What a failed attempt at fetching a manifest comes to.
pub(super) fn not_fetched(failure: Failure, retry: Retry) -> (Failure, Retry) {
    let code = match (failure.code, retry) {
        // There is none, or nobody may have it: on a server, or beside a file.
        (Code::HttpStatus | Code::Storage, Retry::Never) => Code::ManifestRequired,
        (code, _) => code,
    };
    let text = format!("the manifest beside the image: {}", failure.message);
    (Failure::new(code, text), retry)
}
