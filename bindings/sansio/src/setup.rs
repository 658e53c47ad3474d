//! What an engine is made of: the application's configuration, read and checked.

use crate::api::{text, twinflash_sansio_now};
use crate::board::{Board, twinflash_sansio_board, twinflash_sansio_config};
use crate::engine::Driven;
use crate::status::twinflash_sansio_status as Status;
use alloc::string::String;
use core::time::Duration;
use twinflash::contract::Contract;
use twinflash::engine::Config;
use twinflash::update::trust::Trust;
use twinflash::update::{Confirm, Policy, Restart};

/// # Safety
/// As [`twinflash_sansio_new`](crate::api::twinflash_sansio_new).
pub(crate) unsafe fn make(
    config: *const twinflash_sansio_config,
    board: *const twinflash_sansio_board,
    now: twinflash_sansio_now,
) -> Result<Driven, Status> {
    if config.is_null() || board.is_null() {
        return Err(Status::NullArgument);
    }
    // SAFETY: not null; the sizes are looked at before the rest is read.
    unsafe {
        if (*config).size != size_of::<twinflash_sansio_config>()
            || (*board).size != size_of::<twinflash_sansio_board>()
        {
            return Err(Status::InvalidArgument);
        }
    }
    // SAFETY: of the right size, as the caller vouches. The texts live until this returns.
    let (config, board, contract, version, trust) = unsafe {
        let config = config.read();
        let (contract, version) = (text(config.contract)?, text(config.current_version)?);
        let trust = trust(&config)?;
        (config, board.read(), contract, version, trust)
    };
    let contract = match contract.ok_or(Status::NullArgument)? {
        json if json.trim_start().starts_with('{') => Contract::from_json(json.as_bytes()),
        name => Contract::built_in(name),
    };
    let mut policy = Policy::default();
    policy.allow_http = config.allow_http;
    policy.require_check = config.require_check;
    policy.checkpoint_bytes = or(config.checkpoint_bytes, 64 << 10);
    policy.max_size = or(config.max_size, policy.max_size);
    policy.confirm = match config.confirm {
        0 => Confirm::Connected,
        1 => Confirm::Call,
        2 => Confirm::None,
        _ => return Err(Status::InvalidArgument),
    };
    if config.confirm_seconds > 0 {
        policy.confirm_time = Duration::from_secs(config.confirm_seconds.into());
    }
    if config.confirm_starts > 0 {
        policy.confirm_attempts = config.confirm_starts;
    }
    if config.answer_at_once {
        policy.answer_wait = Duration::ZERO;
    }
    let config = Config {
        contract: contract.map_err(|_| Status::InvalidConfig)?,
        policy,
        current_version: version.map(String::from),
        restart: match config.no_restart {
            true => Restart::None,
            false => Restart::System,
        },
        boot_id: alloc::format!("{:x}", config.seed),
        installer: None,
        seed: config.seed,
    };
    let board = Board::new(board).map_err(|_| Status::NullArgument)?;
    Ok(Driven::start(config, trust, board, now.into()))
}

/// Whom a configuration trusts.
///
/// # Safety
/// The configuration is as its type says.
#[cfg(feature = "signed")]
unsafe fn trust(config: &twinflash_sansio_config) -> Result<Option<Trust>, Status> {
    use twinflash::update::trust::{Identity, KeySet, RustCrypto};
    let mut identity = Identity::default();
    // SAFETY: as the caller vouches.
    let keys = unsafe {
        identity.manufacturer = text(config.manufacturer)?.map(String::from);
        identity.model = text(config.model)?.map(String::from);
        identity.hardware_revision = text(config.hardware_revision)?.map(String::from);
        text(config.trust)?
    };
    let keys = keys.map(|json| KeySet::from_json(json.as_bytes()));
    let keys = keys.transpose().map_err(|_| Status::InvalidConfig)?;
    Ok(keys.map(|keys| Trust::with_verifier(keys, identity, &RustCrypto)))
}

/// As above. There is nobody to verify a signature: keys that would not count are refused.
#[cfg(not(feature = "signed"))]
unsafe fn trust(config: &twinflash_sansio_config) -> Result<Option<Trust>, Status> {
    match config.trust.is_null() {
        true => Ok(None),
        false => Err(Status::InvalidConfig),
    }
}

fn or(value: u64, default: u64) -> u64 {
    match value {
        0 => default,
        value => value,
    }
}
