//! Every target over its seeds, and over simple mutations of them.
//!
//! A thousand cases a target; `TWINFLASH_FUZZ_CASES` is another number, `TWINFLASH_SEED` begins
//! elsewhere. libFuzzer goes further: see the README.
#![allow(missing_docs)]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Instant,
};
use twinflash_fuzz::{TARGETS, Target};

/// Memory is counted for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        start..start + self.below((length - start).min(64) + 1)
    }
}

/// Changes a case in one of the ways that find the most.
fn mutate(case: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>], random: &mut Random) {
    let at = random.below(case.len() + 1);
    match random.below(8) {
        0 if !case.is_empty() => {
            let at = random.below(case.len());
            case[at] ^= 1 << random.below(8);
        }
        1 => case.insert(at, random.below(256) as u8),
        2 => drop(case.drain(random.range(case.len()))),
        3 => {
            let range = random.range(case.len());
            let part = case[range].to_vec();
            case.splice(at..at, part);
        }
        4 if !words.is_empty() => {
            let word = &words[random.below(words.len())];
            case.splice(at..at, word.iter().copied());
        }
        5 if !words.is_empty() => {
            let word = &words[random.below(words.len())];
            let range = random.range(case.len());
            case.splice(range, word.iter().copied());
        }
        6 => {
            let other = &seeds[random.below(seeds.len())];
            let part = other[random.range(other.len())].to_vec();
            case.splice(at..at, part);
        }
        _ => {
            if let Some(digit) = case
                .iter_mut()
                .filter(|byte| byte.is_ascii_digit())
                .nth(random.below(8))
            {
                *digit = b'0' + random.below(10) as u8;
            }
        }
    }
}

/// The words of a dictionary as libFuzzer reads it: a line `"word"` each, with `\xAB`, `\\`, `\"`.
fn words(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let quoted = text
        .lines()
        .filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    quoted
        .map(|line| {
            let mut word = Vec::new();
            let mut bytes = line.bytes();
            while let Some(byte) = bytes.next() {
                word.push(match (byte, bytes.clone().next()) {
                    (b'\\', Some(b'x')) => {
                        let digits: String =
                            bytes.by_ref().skip(1).take(2).map(char::from).collect();
                        u8::from_str_radix(&digits, 16).expect(line)
                    }
                    (b'\\', _) => bytes.next().expect(line),
                    (byte, _) => byte,
                });
            }
            word
        })
        .collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect(name))
}

/// A case that fails is written down, so that it can be looked at, and kept as a seed.
fn run(target: &Target, case: &[u8], told: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target.run(case))) {
        let file =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.failed", target.name));
        fs::write(&file, case).expect("the case is written");
        eprintln!(
            "{} fails: {told}\nthe case is in {}",
            target.name,
            file.display()
        );
        resume_unwind(panic);
    }
}

fn seeds_of(name: &str) {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect(name);
    let directory = root.join("seeds").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .expect(name)
        .map(|entry| entry.expect(name).path())
        .collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(file).expect(name))
        .collect();
    assert!(seeds.len() >= 3, "{name} has too few seeds");
    // What is made at the first use is no case's memory.
    target_warms_up(target, &seeds[0]);
    for (file, seed) in files.iter().zip(&seeds) {
        run(target, seed, &format!("seed {}", file.display()));
    }
    let words = words(&root.join("dictionaries").join(format!("{name}.dict")));
    let cases = number("TWINFLASH_FUZZ_CASES").unwrap_or(1000);
    let first = number("TWINFLASH_SEED").unwrap_or(1);
    let start = Instant::now();
    for number in first..first + cases {
        let mut random = Random(number);
        let mut case = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            mutate(&mut case, &seeds, &words, &mut random);
        }
        run(
            target,
            &case,
            &format!("TWINFLASH_SEED={number} TWINFLASH_FUZZ_CASES=1"),
        );
    }
    println!(
        "{name}: {} seeds, {cases} mutations, {:.1} s",
        seeds.len(),
        start.elapsed().as_secs_f64()
    );
}

fn target_warms_up(target: &Target, seed: &[u8]) {
    let _ = catch_unwind(AssertUnwindSafe(|| target.run(seed)));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            seeds_of(stringify!($name));
        })*

        #[test]
        fn every_target_is_here() {
            let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

targets! {
    method twin contract values record journal connection_string token download mqtt rest query
    configuration agent_config boot_files jws manifest key_set age
}
