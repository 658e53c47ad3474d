//! Only what the owner signed: attacks on signed updates, seen from outside. Method or twin in, twin and
//! file out, with a real server, journal and file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod attacks;
mod course;
mod desk;
#[cfg(feature = "encryption")]
mod encrypted;
mod engine;
mod local;
mod places;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};
use support::{
    pattern::image,
    server::{Reply, Server},
    signer::{Signer, key_set, signed},
};
use tempfile::TempDir;
use twinflash::{
    contract::{Contract, at_path},
    device::{Outbound, Updater},
    engine::{Config, Engine, Event, Input, Now, Output, Step, Stored, Verified},
    install::{FileInstall, Installer},
    twin,
    update::{
        Checks, Confirm, Ended, ImageState, Outcome, Policy, Record, Restart, Stage,
        trust::{Identity, KeySet, Kind, Trust},
    },
};

const SIZE: usize = 200_000;
const MODEL: &str = "Toaster";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// What a manifest says of an image.
fn claims(version: &str, image: &[u8]) -> Value {
    json!({
        "version": version,
        "size": image.len(),
        "sha256": base16ct::lower::encode_string(&Sha256::digest(image)),
        "compatibility": {"model": MODEL},
        "iat": now() - 60,
        "exp": now() + 3600,
    })
}

fn trust(keys: KeySet) -> Trust {
    let mut identity = Identity::default();
    identity.model = Some(MODEL.into());
    Trust::new(keys, identity)
}
