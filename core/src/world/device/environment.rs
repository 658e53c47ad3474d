//! U-Boot and its environment: two copies, written in turn, each with its checksum and a number. A write
//! that a power cut halves leaves the other one.

use super::super::disk::Disk;
use crate::disk;
use std::{collections::BTreeMap, fs::OpenOptions, io, path::Path};

/// Bytes of a copy.
const SIZE: usize = 1024;
/// Starts a new slot has.
const LIMIT: u32 = 3;
const COPIES: [&str; 2] = ["boot/env0", "boot/env1"];

#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// Which copy it is in.
    copy: usize,
    number: u32,
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// Both copies, as they leave the factory.
    pub(super) fn factory() -> [Vec<u8>; 2] {
        let pairs = [
            ("boot_slot", "A"),
            ("upgrade_available", "0"),
            ("bootcount", "0"),
        ];
        let first = Self {
            copy: 0,
            number: 1,
            variables: pairs
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        };
        [first.bytes(), vec![0xff; SIZE]]
    }

    fn bytes(&self) -> Vec<u8> {
        let pairs = self.variables.iter();
        let text: String = pairs
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        let mut bytes = vec![0; 4];
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.resize(SIZE, 0);
        let sum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn parse(copy: usize, bytes: &[u8]) -> Option<Self> {
        let (sum, rest) = bytes.split_first_chunk::<4>()?;
        if bytes.len() != SIZE || crc32fast::hash(rest) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (number, text) = rest.split_first_chunk::<4>()?;
        let text = text.split(|byte| *byte == 0).next()?;
        let text = std::str::from_utf8(text).ok()?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Some(Self {
            copy,
            number: u32::from_le_bytes(*number),
            variables: pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        })
    }

    /// The newest copy that is whole.
    fn newest(copies: [Option<Vec<u8>>; 2]) -> Option<Self> {
        let copies = copies.into_iter().enumerate();
        copies
            .filter_map(|(copy, bytes)| Self::parse(copy, &bytes?))
            .max_by_key(|found| found.number)
    }

    /// As it is on a disk.
    pub(super) fn on(disk: &Disk, root: &Path) -> Option<Self> {
        Self::newest(COPIES.map(|name| Some(disk.content(&root.join(name))?.to_vec())))
    }

    /// As the tools read it.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let [first, second] = COPIES.map(|name| disk::read(&root.join(name)));
        Self::newest([Some(first?), Some(second?)])
            .ok_or_else(|| io::Error::other("no copy of the environment is whole"))
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.variables.get(name).is_some_and(|is| is == value)
    }

    /// Sets variables, and writes the copy that is the older one.
    fn set(&mut self, pairs: &[(&str, &str)]) {
        for (name, value) in pairs {
            self.variables.insert((*name).into(), (*value).into());
        }
        self.copy = 1 - self.copy;
        self.number += 1;
    }

    /// As the tools write it.
    pub(super) fn write(mut self, root: &Path, pairs: &[(&str, &str)]) -> io::Result<()> {
        self.set(pairs);
        let path = root.join(COPIES[self.copy]);
        let file = disk::create(&path, OpenOptions::new().write(true), false)?;
        disk::write(&file, &path, 0, &self.bytes())?;
        disk::sync_data(&file, &path)
    }

    fn slot(&self) -> char {
        if self.is("boot_slot", "B") { 'b' } else { 'a' }
    }

    /// The slots that may be started, the one that is first.
    pub(super) fn startable(&self) -> Vec<char> {
        let slot = self.slot();
        let other = if slot == 'a' { 'b' } else { 'a' };
        match self.is("upgrade_available", "1") {
            true => vec![slot, other],
            false => vec![slot],
        }
    }

    /// U-Boot starts: it counts, and goes back where a slot has used up its starts.
    pub(super) fn boot(disk: &mut Disk, root: &Path) -> char {
        let mut now = Self::on(disk, root).expect("an environment");
        if now.is("upgrade_available", "1") {
            let count: u32 = now.variables["bootcount"].parse().unwrap();
            now.set(&[("bootcount", &(count + 1).to_string())]);
            if count + 1 > LIMIT {
                let other = if now.slot() == 'b' { "A" } else { "B" };
                now.set(&[
                    ("boot_slot", other),
                    ("upgrade_available", "0"),
                    ("bootcount", "0"),
                ]);
            }
            disk.put(&root.join(COPIES[now.copy]), &now.bytes());
        }
        now.slot()
    }
}
