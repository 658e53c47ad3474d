use super::*;
use crate::update::{Digests, Key, Origin, Outcome, Phase, Policy, Request, Update};
use serde_json::json;

fn built_in(name: &str) -> Contract {
    Contract::built_in(name).unwrap()
}

#[test]
fn all_built_in_contracts_load_under_their_names() {
    for name in Contract::names() {
        assert_eq!(built_in(name).name(), name);
    }
    assert_eq!(Contract::names().count(), 5);
}

/// Changes one place of a good contract; it must be refused with that place's path.
#[test]
fn a_wrong_file_is_refused_with_the_path_in_it() {
    let good: Value = serde_json::from_str(include_str!("../../contracts/iothub-dm.json")).unwrap();
    for (pointer, value, path, reason) in [
        ("/contract", json!(""), "contract", "name"),
        ("/asked/methods", json!([]), "asked", "methods"),
        ("/asked/bareUri", json!("yes"), "asked.bareUri", "boolean"),
        ("/asked/colour", json!(1), "asked.colour", "unknown field"),
        ("/check", json!("maybe"), "check", "unknown variant"),
        ("/answers", json!({}), "answers", "started"),
        (
            "/reported/moments/waiting/iothubDM/firmwareUpdate/status",
            json!("{colour}"),
            "reported.moments.waiting.iothubDM.firmwareUpdate.status",
            "{colour} is no placeholder",
        ),
        (
            "/reported/moments/waiting/iothubDM/firmwareUpdate/status",
            json!("{uri"),
            "reported.moments.waiting.iothubDM.firmwareUpdate.status",
            "a { without its",
        ),
        (
            "/reported/moments/idle",
            json!([1]),
            "reported.moments.idle",
            "object",
        ),
        (
            "/reported/moments/sleeping",
            json!({}),
            "reported.moments",
            "unknown variant",
        ),
        (
            "/follow/done",
            json!(["done"]),
            "follow.done",
            "never reported",
        ),
        ("/follow/failed", json!([]), "follow.failed", "at least one"),
    ] {
        let mut wrong = good.clone();
        match wrong.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                wrong.pointer_mut(parent).unwrap()[name] = value;
            }
        }
        let error = Contract::from_json(wrong.to_string().as_bytes()).unwrap_err();
        assert!(error.path.starts_with(path), "{pointer}: {error}");
        assert!(error.reason.contains(reason), "{pointer}: {error}");
    }
    let error = Contract::from_json(b"{").unwrap_err();
    assert!(error.to_string().contains("EOF"), "{error}");
}

fn update(contract: &Contract, version: &str) -> Update {
    let members = contract.ask(
        "https://u@h/a.bin?sig=1",
        Some(version),
        Some("31c3"),
        Some(9),
        None,
    );
    match contract.judge(&members, Origin::Desired, None, &Policy::default()) {
        Verdict::Start(request) => Update::new(request),
        other => panic!("{other:?}"),
    }
}

fn render(contract: &Contract, moment: Moment, update: Option<&Update>) -> Value {
    contract.render(
        moment,
        View {
            running: Some("1.0.0"),
            update,
            percent: Some(42),
            started: None,
        },
    )
}

#[test]
fn configuration_to_the_letter() {
    let contract = built_in("configuration");
    let idle = json!({"firmware": {
        "currentFwVersion": "1.0.0", "pendingFwVersion": "", "fwUpdateStatus": "current",
        "fwUpdateSubstatus": "", "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": ""}});
    assert_eq!(render(&contract, Moment::Idle, None), idle);
    let mut update = update(&contract, "1.0.1");
    update.times.waiting = Some(1_548_936_000_123);
    for (moment, status, substatus) in [
        (Moment::Waiting, "current", ""),
        (Moment::Downloading, "downloading", "Start downloading"),
        (Moment::Progress, "downloading", "42%"),
        (Moment::Downloaded, "downloading", "Finished downloading"),
        (Moment::Verifying, "verifying", "Start verifying download"),
        (Moment::Verified, "verifying", "Finished verifying download"),
        (Moment::Applying, "applying", "Start applying image"),
        (Moment::Applied, "applying", "Finished applying image"),
        (Moment::Rebooting, "rebooting", "Start reboot"),
        (Moment::Rebooted, "rebooting", "Finished reboot"),
    ] {
        let firmware = &render(&contract, moment, Some(&update))["firmware"];
        assert_eq!(firmware["fwUpdateStatus"], status, "{moment}");
        assert_eq!(firmware["fwUpdateSubstatus"], substatus, "{moment}");
        assert_eq!(firmware["pendingFwVersion"], "1.0.1");
        assert_eq!(
            firmware["lastFwUpdateStartTime"],
            "2019-01-31T12:00:00.123Z"
        );
        assert_eq!(firmware["lastFwUpdateEndTime"], "");
    }
    let failure = Failure::new(Code::NotConfirmed, "it hangs");
    update.outcome = Some(Outcome::RolledBack(failure));
    let firmware = &render(&contract, Moment::of(Some(&update)), Some(&update))["firmware"];
    assert_eq!(firmware["fwUpdateStatus"], "rolledback");
    assert_eq!(
        firmware["fwUpdateSubstatus"],
        "Rolled back to: 1.0.0; it hangs"
    );
    update.outcome = Some(Outcome::Cancelled(Phase::Downloading));
    let firmware = &render(&contract, Moment::of(Some(&update)), Some(&update))["firmware"];
    assert_eq!(firmware["fwUpdateStatus"], "error");
    assert_eq!(firmware["fwUpdateSubstatus"], "Cancelled");
}

#[test]
fn devkit_to_the_letter() {
    let contract = built_in("devkit");
    let mut update = update(&contract, "1.0.1");
    update.times.waiting = Some(1_548_936_000_000);
    let firmware = &render(&contract, Moment::Downloading, Some(&update))["firmware"];
    assert_eq!(firmware["type"], "IoTDevKit");
    assert_eq!(firmware["fwUpdateStatus"], "Downloading");
    assert_eq!(firmware["fwUpdateSubstatus"], "https://h/a.bin");
    assert_eq!(
        firmware["lastFwUpdateStartTime"],
        "2019-01-31T12:00:00.0000000Z"
    );
    let failure = Failure::new(Code::SizeMismatch, "…");
    update.outcome = Some(Outcome::Failed {
        phase: Phase::Verifying,
        failure,
    });
    let firmware = render(&contract, Moment::of(Some(&update)), Some(&update));
    assert_eq!(
        firmware,
        json!({"firmware": {"type": "IoTDevKit", "currentFwVersion": "1.0.0",
            "pendingFwVersion": "1.0.1", "fwUpdateStatus": "Error",
            "fwUpdateSubstatus": "FileSizeNotMatch",
            "lastFwUpdateStartTime": "", "lastFwUpdateEndTime": ""}})
    );
    // A bare value is CRC-16 whatever its leading zeros.
    let members = json!({"fwVersion": "2.0", "fwPackageURI": "https://h/x", "fwSize": 9,
        "fwPackageCheckValue": "0x000031c3"});
    let verdict = contract.judge(&members, Origin::Desired, Some("1.9"), &Policy::default());
    let Verdict::Start(request) = verdict else {
        panic!("{verdict:?}")
    };
    let digests = Digests {
        crc16: 0x31c3,
        crc32: 0,
        sha256: [0; 32],
    };
    assert!(request.checks[0].matches(&digests));
}

#[test]
fn verdicts_in_each_contracts_order() {
    let judge = |name: &str, members: Value| match built_in(name).judge(
        &members,
        Origin::Desired,
        Some("1.0.0"),
        &Policy::default(),
    ) {
        Verdict::Start(_) => "start".to_owned(),
        Verdict::UpToDate(_) => "up to date".to_owned(),
        Verdict::Ignore => "ignore".to_owned(),
        Verdict::Refuse(_, failure) => failure.code.to_string(),
    };
    let full = |version: &str, uri: &str, check: &str| json!({"fwVersion": version, "fwPackageURI": uri, "fwPackageCheckValue": check, "fwSize": 1});
    for (name, members, verdict) in [
        (
            "configuration",
            full("1.0.1", "https://h/x", "31c3"),
            "start",
        ),
        ("configuration", full("0.9", "https://h/x", "31c3"), "start"),
        (
            "configuration",
            full("1.0.0", "http://h/x", "31c3"),
            "up to date",
        ),
        (
            "configuration",
            full("1.0.1", "http://h/x", "123456abcde"),
            "insecure-uri",
        ),
        (
            "configuration",
            full("1.0.1", "test.com", "31c3"),
            "insecure-uri",
        ),
        (
            "configuration",
            full("1.0.1", "https://h/x", "123456abcde"),
            "invalid-check",
        ),
        (
            "configuration",
            json!({"fwVersion": "2", "fwPackageURI": "https://h/x"}),
            "check-required",
        ),
        (
            "configuration",
            json!({"fwVersion": "2"}),
            "invalid-request",
        ),
        (
            "configuration",
            json!({"fwPackageURI": "https://h/x", "fwPackageCheckValue": "1"}),
            "invalid-request",
        ),
        (
            "configuration",
            json!({"fwVersion": 2, "fwPackageURI": "https://h/x"}),
            "invalid-request",
        ),
        ("devkit", full("1.0.1", "https://h/x", "31c3"), "start"),
        ("devkit", full("1.0.0", "https://h/x", "31c3"), "ignore"),
        ("devkit", full("0.9", "https://h/x", "31c3"), "ignore"),
        ("devkit", full("0.9", "http://h/x", "31c3"), "insecure-uri"),
        ("devkit", json!({"fwVersion": "2"}), "ignore"),
        (
            "devkit",
            json!({"fwVersion": "2", "fwPackageURI": "https://h/x"}),
            "check-required",
        ),
        (
            "devkit",
            json!({"fwVersion": "2", "fwPackageURI": "https://h/x", "fwSize": 9}),
            "start",
        ),
        (
            "devkit",
            json!({"fwVersion": "2", "fwPackageURI": "https://h/x", "fwSize": "nine"}),
            "invalid-request",
        ),
        (
            "iothub-dm",
            json!({"fwPackageUri": "https://h/x", "fwManifest": "e30.e30.x"}),
            "invalid-request",
        ),
        ("iothub-dm", json!({"fwPackageUri": "https://h/x"}), "start"),
        (
            "iothub-dm",
            json!({"fwPackageUri": "http://h/x"}),
            "insecure-uri",
        ),
        (
            "iothub-dm",
            json!({"fwPackageUri": "test.com"}),
            "invalid-uri",
        ),
        (
            "iothub-dm",
            json!({"fwPackageUri": "ftp://h/x"}),
            "invalid-uri",
        ),
        ("iothub-dm", json!({"fwPackageUri": 7}), "invalid-request"),
        (
            "node-direct-method",
            json!({"fwPackageUri": "test.com"}),
            "insecure-uri",
        ),
    ] {
        assert_eq!(judge(name, members.clone()), verdict, "{name}: {members}");
    }
}

#[test]
fn words_of_answers() {
    let contract = built_in("node-direct-method");
    let insecure = Failure::new(Code::InsecureUri, "…");
    assert_eq!(
        contract.refused(&insecure),
        "Invalid URL format.  Must use https:// protocol."
    );
    assert_eq!(contract.started(), "Firmware update started.");
    let contract = built_in("python-firmware-status");
    assert_eq!(contract.refused(&insecure), json!({"Response": "…"}));
    assert_eq!(
        contract.started(),
        json!({"Response": "Firmware update started"})
    );
}

#[test]
fn payloads_of_methods() {
    let contract = built_in("iothub-dm");
    let bare = contract.members_of(br#""https://h/x""#).unwrap();
    assert_eq!(bare, json!({"fwPackageUri": "https://h/x"}));
    for bad in ["", "  ", "{", "null", "[]", "7"] {
        let failure = contract.members_of(bad.as_bytes()).unwrap_err();
        assert_eq!(failure.code, Code::InvalidRequest, "{bad}");
    }
    let other = built_in("python-firmware-status");
    assert!(other.members_of(br#""https://h/x""#).is_err());
}

#[test]
fn only_what_the_contract_owns_is_touched() {
    let contract = built_in("iothub-dm");
    let reported = json!({"iothubDM": {"firmwareUpdate": {"status": "waiting", "mine": 1}, "reboot": {"a": 1}}, "other": 2});
    let owned = contract.owned(&reported);
    assert_eq!(
        owned,
        json!({"iothubDM": {"firmwareUpdate": {"status": "waiting"}}})
    );
    let mut twin = reported.clone();
    let wanted = render(&contract, Moment::Idle, None);
    twin::merge(&mut twin, &contract.whole_patch(&wanted));
    assert_eq!(contract.owned(&twin), wanted);
    assert_eq!(twin["iothubDM"]["firmwareUpdate"]["mine"], 1);
    assert_eq!(twin["iothubDM"]["reboot"], json!({"a": 1}));
}

#[test]
fn any_member_makes_a_request_new() {
    let one = json!({"fwVersion": "1", "fwPackageURI": "https://h/x?a"});
    let two = json!({"fwPackageURI": "https://h/x?a", "fwVersion": "1"});
    let retry = json!({"fwVersion": "1", "fwPackageURI": "https://h/x?a", "fwRetry": 1});
    assert_eq!(Key::of("c", &one), Key::of("c", &two));
    assert_ne!(Key::of("c", &one), Key::of("d", &one));
    assert_ne!(Key::of("c", &one), Key::of("c", &retry));
    let request = |uri: &str| Request {
        key: Key([0; 32]),
        origin: Origin::Desired,
        uri: uri.into(),
        version: None,
        size: None,
        checks: Vec::new(),
        manifest: None,
        keys: None,
        signed: None,
    };
    assert_eq!(
        request("https://h/x?a").content(),
        request("https://h/x?b").content()
    );
}
