//! Connection strings, and tokens from the device's hand to the hub's.

use twinflash::iothub::{ConnectionString, Key, ServiceConnectionString, sas_token};
use twinflash_hub::fuzzing;

/// A key as the seeds have it: it must never be shown.
const SECRET: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";

/// A connection string of either kind. What is shown of it has no key; with the key put back it is
/// read as the same again; and the hub takes the tokens made with it.
pub(crate) fn connection_string(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let key = key_of(&text);
    match text.parse::<ConnectionString>() {
        Ok(device) => {
            let shown = device.to_string();
            let again: ConnectionString = with_key(&shown, &key).parse().expect(&shown);
            assert_eq!(again, device);
            // A key that stands in a name as well cannot be hidden.
            let is_shown = format!("{device:?}{shown}").contains(SECRET);
            let only_there = key == SECRET && text.matches(SECRET).count() == 1;
            assert!(!(is_shown && only_there), "{shown}");
            let resource = format!("{}/devices/{}", device.hub(), device.device_id());
            if let Some(token) = device.token(77) {
                is_taken(&token, &key, &resource, None);
            }
        }
        Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
    }
    match text.parse::<ServiceConnectionString>() {
        Ok(service) => {
            let shown = service.to_string();
            let again: ServiceConnectionString = with_key(&shown, &key).parse().expect(&shown);
            assert_eq!(again, service);
            is_taken(
                &service.token(77),
                &key,
                service.hub(),
                Some(service.policy()),
            );
        }
        Err(error) => assert!(!error.to_string().contains(SECRET), "{error}"),
    }
}

/// What is shown, with the key in its place again. Names may hold asterisks, too, but no separator.
fn with_key(shown: &str, key: &str) -> String {
    const HIDDEN: &str = ";SharedAccessKey=***";
    shown.replace(HIDDEN, &format!(";SharedAccessKey={key}"))
}

/// The key in a connection string.
fn key_of(text: &str) -> String {
    let parts = text
        .trim()
        .split(';')
        .filter_map(|part| part.split_once('='));
    let mut keys = parts.filter(|(name, _)| name.trim().eq_ignore_ascii_case("SharedAccessKey"));
    keys.next()
        .map_or(String::new(), |(_, key)| key.trim().to_owned())
}

fn is_taken(token: &str, key: &str, resource: &str, policy: Option<&str>) {
    let read = fuzzing::token(token, key).expect(token);
    let expected = (resource.to_owned(), 77, policy.map(str::to_owned), true);
    assert_eq!(read, expected, "{token}");
}

/// A token as it comes to the hub; and one that is made for a resource and a policy, each a line.
pub(crate) fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some((.., signed)) = fuzzing::token(&text, SECRET) {
        assert!(!signed || text.contains("sig="));
    }
    let mut lines = text.lines();
    let (resource, policy) = (lines.next().unwrap_or_default(), lines.next());
    let key = Key::from_base64(SECRET).expect("a key");
    // No policy at all is how a token says that it has none.
    let policy = policy.filter(|policy| !policy.is_empty());
    let token = sas_token(resource, &key, policy, 77);
    is_taken(&token, SECRET, resource, policy);
    let (other, _) = fuzzing::token(&token, "b3RoZXJvdGhlcm90aGVyb3RoZXI=")
        .map(|(resource, .., signed)| (signed, resource))
        .expect("a token");
    assert!(!other, "another key signs it too");
}
