//! A user's contract.

use crate::{device::Choices, engine};
use serde_json::Value;
use twinflash::contract::{Contract, at_path};

/// Stands between a contract and what is asked under it.
const SEPARATOR: &[u8] = b"\n=====\n";

/// A contract's file, and requests under it. One that is refused is told where and why; one that is
/// taken works as those built in do.
pub(crate) fn contract(data: &[u8]) {
    let (choices, rest) = Choices::split(data);
    let at = rest
        .windows(SEPARATOR.len())
        .position(|window| window == SEPARATOR);
    let (file, asked) = match at {
        Some(at) => (&rest[..at], &rest[at + SEPARATOR.len()..]),
        None => (rest, &b"{}"[..]),
    };
    let contract = match Contract::from_json(file) {
        Ok(contract) => contract,
        Err(error) => {
            assert!(!error.reason.is_empty(), "{error:?}");
            return;
        }
    };
    let ask = contract.ask(
        "https://host/image",
        Some("2.0.0"),
        Some("31c3"),
        Some(13),
        None,
    );
    if let Some(path) = contract.desired_path() {
        let desired = path
            .rsplit('.')
            .fold(ask, |inner, name| serde_json::json!({ name: inner }));
        assert!(contract.desired(&desired).is_some(), "{path:?}");
        assert!(at_path(&desired, path).is_some_and(Value::is_object));
        engine::twins(contract, choices, asked, false);
    } else {
        let members = contract.members_of(ask.to_string().as_bytes());
        assert_eq!(members.as_ref().ok(), Some(&ask));
        engine::methods(contract, choices, asked, false);
    }
}
