//! The engine: methods, twins and records, whatever they hold.

use crate::device::{Choices, Device, IMAGE};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use twinflash::{
    contract::Contract,
    engine::{Input, Stored},
    update::{Code, Record},
};

/// Stands in a URL's query in the seeds. It must not get out.
const SECRET: &str = "tOpSeCrEt";
/// Longer inputs than Azure's messages say nothing new.
const MOST_CALLS: usize = 8;

fn contract(choices: &mut Choices) -> Contract {
    let names: Vec<_> = Contract::names().collect();
    let name = names[usize::from(choices.below(names.len() as u8))];
    Contract::built_in(name).expect("a built-in contract")
}

/// Method calls, each after an empty line. Every one is answered, once, with JSON and one of four
/// statuses; nothing is stuck after it, and no secret gets out.
pub(crate) fn method(data: &[u8]) {
    let (mut choices, rest) = Choices::split(data);
    let contract = contract(&mut choices);
    methods(contract, choices, rest, true);
}

/// The same with any contract.
pub(crate) fn methods(contract: Contract, choices: Choices, rest: &[u8], limits: bool) {
    let name = contract.methods().next().unwrap_or("none").to_owned();
    let mut device = Device::new(contract.clone(), choices, Stored::Empty);
    device.limits = limits;
    device.give(Input::Connected);
    let mut secret_is_in_query = true;
    for (index, payload) in split(rest, b"\n\n").take(MOST_CALLS).enumerate() {
        secret_is_in_query &= only_in_query(payload);
        let status = device.call(&name, payload);
        let again = device.call(&name, payload);
        if status == 200 && device.engine().status().phase.is_some() {
            assert!(
                [200, 503].contains(&again),
                "a repetition is answered {again}"
            );
        }
        match index % 4 {
            0 => device.settle(),
            1 => device.give(Input::Cancel),
            2 => device.give(Input::Pause),
            _ => device.give(Input::Disconnected),
        }
    }
    device.give(Input::Resume);
    device.settle();
    if limits && secret_is_in_query {
        assert!(!device.told.contains(SECRET), "{}", device.told);
    }
    takes_the_next_one(device, &contract);
}

/// Whether the secret stands nowhere but in the query of a member that is a URL.
fn only_in_query(payload: &[u8]) -> bool {
    fn harmless(text: &str) -> bool {
        match text.split_once('?') {
            Some((before, _)) => !before.contains(SECRET) && text.starts_with("https://"),
            None => !text.contains(SECRET),
        }
    }
    let text = String::from_utf8_lossy(payload);
    match serde_json::from_slice(payload) {
        Ok(Value::String(uri)) => harmless(&uri),
        Ok(Value::Object(members)) => members.iter().all(|(name, value)| {
            let uri = name.to_ascii_lowercase().ends_with("uri");
            match value {
                Value::String(text) if uri => harmless(text),
                value => !name.contains(SECRET) && !value.to_string().contains(SECRET),
            }
        }),
        _ => !text.contains(SECRET),
    }
}

/// Twins, one a line: `C` and a whole one, `P` and a patch, `-` the line is lost, `+` it is back, and
/// `.` is time. However it was, the next good request is taken.
pub(crate) fn twin(data: &[u8]) {
    let (mut choices, rest) = Choices::split(data);
    let contract = contract(&mut choices);
    twins(contract, choices, rest, true);
}

/// The same with any contract.
pub(crate) fn twins(contract: Contract, choices: Choices, rest: &[u8], limits: bool) {
    let mut device = Device::new(contract.clone(), choices, Stored::Empty);
    device.limits = limits;
    for line in rest.split(|byte| *byte == b'\n').take(32) {
        let (kind, json) = line
            .split_first()
            .map_or((b'.', &b""[..]), |(k, j)| (*k, j));
        match kind {
            b'C' => {
                if let Ok(twin) = serde_json::from_slice::<Value>(json)
                    && let Some(desired @ Value::Object(_)) = twin.get("desired")
                {
                    device.desire(true, desired);
                }
                device.give(Input::Twin {
                    complete: true,
                    json,
                });
            }
            b'-' => device.give(Input::Disconnected),
            b'+' => device.give(Input::Connected),
            b'.' => device.settle(),
            _ => {
                let json = if kind == b'P' { json } else { line };
                if let Ok(patch @ Value::Object(_)) = serde_json::from_slice(json) {
                    device.desire(false, &patch);
                }
                device.give(Input::Twin {
                    complete: false,
                    json,
                });
            }
        }
    }
    device.settle();
    takes_the_next_one(device, &contract);
}

/// A record as it was found, well or not, and any state of the image: the update it tells of ends,
/// and the next good request is taken.
pub(crate) fn record(data: &[u8]) {
    let (mut choices, json) = Choices::split(data);
    if let Some(record) = Record::from_json(json) {
        let again = Record::from_json(&record.to_json());
        assert_eq!(again, Some(record), "a record is read as it was written");
    }
    let contract = contract(&mut choices);
    let mut device = Device::new(contract.clone(), choices, Stored::Record(json.to_vec()));
    device.give(Input::Connected);
    device.give(Input::Resume);
    device.settle();
    takes_the_next_one(device, &contract);
}

/// Whatever was before: a good request is accepted, carried out, and ends well.
fn takes_the_next_one(mut device: Device, contract: &Contract) {
    device.calm = true;
    device.give(Input::Resume);
    device.settle();
    let digits = Sha256::digest(IMAGE)
        .into_iter()
        .map(|byte| format!("{byte:02x}"));
    let sha256 = format!("sha256:{}", digits.collect::<String>());
    let version = format!("{}.0", u64::MAX);
    let ask = contract.ask(
        "https://host/the-next-one",
        Some(&version),
        Some(&sha256),
        Some(IMAGE.len() as u64),
        None,
    );
    let accepted = device.accepted;
    let name = contract.methods().next().map(str::to_owned);
    match (name, contract.desired_path()) {
        (Some(name), _) => {
            let status = device.call(&name, ask.to_string().as_bytes());
            // A user's contract may refuse what it cannot be asked for.
            if !device.limits && status != 200 {
                return;
            }
            assert_eq!(status, 200, "the next one is refused: {}", device.told);
        }
        (None, Some(path)) => {
            let desired = path
                .rsplit('.')
                .fold(ask, |inner, name| json!({ name: inner }));
            // What is desired first after the journal was lost is not started; then it is.
            for request in [json!({}), desired] {
                device.desire(true, &request);
                device.give(Input::Disconnected);
                device.give(Input::Connected);
                device.settle();
            }
        }
        (None, None) => return,
    }
    device.settle();
    let status = device.engine().status();
    if !device.limits && device.accepted == accepted {
        return;
    }
    let success = status
        .outcome
        .as_ref()
        .is_some_and(|outcome| outcome.is_success());
    assert!(success, "the next one: {status:?}\n{}", device.told);
    assert!(
        device.engine().is_reported(),
        "the next one's end was not reported"
    );
    let failure = status
        .outcome
        .as_ref()
        .and_then(|outcome| outcome.failure());
    assert!(failure.is_none_or(|failure| Code::ALL.contains(&failure.code)));
}

/// Splits at each `by`.
fn split<'a>(mut data: &'a [u8], by: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        match data.windows(by.len()).position(|window| window == by) {
            Some(at) => {
                let part = &data[..at];
                data = &data[at + by.len()..];
                Some(part)
            }
            None => {
                ended = true;
                Some(data)
            }
        }
    })
}
