//! What twinflash reads from strangers, fuzzed.
//!
//! Each target is a function of bytes that panics where a property does not hold. libFuzzer calls it
//! through `libfuzzer/targets/`, and `tests/seeds.rs` calls it with the seeds and simple mutations of them.
#![forbid(unsafe_code)]

mod age;
mod agent_config;
mod boot_files;
mod connection;
mod contract;
mod device;
mod download;
mod engine;
mod hub;
mod journal;
mod memory;
mod trust;
mod values;

/// A target: its name, its function, and how much memory a case may take whatever its input, in KiB.
pub struct Target {
    /// As `cargo fuzz` knows it.
    pub name: &'static str,
    run: fn(&[u8]),
    kib: usize,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("method", engine::method, 256),
    target("twin", engine::twin, 256),
    target("contract", contract::contract, 256),
    target("values", values::values, 64),
    target("record", engine::record, 256),
    target("journal", journal::journal, 256),
    target("connection_string", connection::connection_string, 64),
    target("token", connection::token, 64),
    target("download", download::download, 4096),
    target("mqtt", hub::mqtt, 1024),
    target("rest", hub::rest, 1024),
    target("query", hub::query, 256),
    target("configuration", hub::configuration, 1024),
    target("agent_config", agent_config::agent_config, 256),
    target("boot_files", boot_files::boot_files, 256),
    target("jws", trust::jws, 256),
    target("manifest", trust::manifest, 256),
    target("key_set", trust::key_set, 256),
    target("age", age::age, 1024),
];

const fn target(name: &'static str, run: fn(&[u8]), kib: usize) -> Target {
    Target { name, run, kib }
}

/// So many bytes of memory a byte of input may take. JSON is the costly one: `[0,0,…` takes 32 bytes
/// for each two, twice that while an array grows, and a request is copied a few times.
const BYTES_A_BYTE: usize = 256;

impl Target {
    /// Runs one case.
    ///
    /// # Panics
    /// Something is wrong with what is tested.
    pub fn run(&self, data: &[u8]) {
        let taken = memory::taken_by(|| (self.run)(data));
        let allowed = self.kib * 1024 + BYTES_A_BYTE * data.len();
        assert!(
            taken <= allowed,
            "{} bytes of input took {taken} bytes of memory; {allowed} are allowed",
            data.len()
        );
    }
}

/// Runs one case of the target of this name.
///
/// # Panics
/// There is none, or something is wrong with what it tests.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    target.expect("a target's name").run(data);
}
