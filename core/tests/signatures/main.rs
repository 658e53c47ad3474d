//! Signed manifests and key sets: signatures against others' vectors and openssl, and everything that
//! must be refused.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod attacks;
mod keys;
mod openssl;
mod rotation;
mod vectors;

#[path = "../support/signer.rs"]
#[allow(dead_code, unreachable_pub)]
mod signer;
