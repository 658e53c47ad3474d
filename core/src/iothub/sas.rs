//! Shared access signatures: how a device or a back end proves to an IoT Hub that it holds a key.

use base64ct::{Base64, Encoding as _};
use fluent_uri::pct_enc::{
    EString,
    encoder::{Data, Query},
};
use ring::hmac;
use std::fmt;

/// A symmetric key. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key as connection strings carry it: in base64 (RFC 4648 section 4, with padding).
    /// `None` if the text is no base64, or empty.
    pub fn from_base64(text: &str) -> Option<Self> {
        let key = Base64::decode_vec(text).ok()?;
        (!key.is_empty()).then_some(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Makes a shared access signature token for `resource`, which nobody can extend or change without
/// `key`.
///
/// `resource` is what the token opens: `{hub}/devices/{device}` for a device, `{hub}` for a back
/// end, in plain text. `policy` is the name of the shared access policy the key belongs to; none
/// for a device's own key. `expires` is when the token ends, in seconds since 1970 UTC.
///
/// See Microsoft's "Control access to IoT Hub with shared access signatures".
///
/// ```
/// use twinflash::iothub::{Key, sas_token};
///
/// let key = Key::from_base64("c2VjcmV0").expect("base64");
/// let token = sas_token("hub.example/devices/d1", &key, None, 1_800_000_000);
/// assert!(token.starts_with("SharedAccessSignature sr=hub.example%2Fdevices%2Fd1&sig="));
/// assert!(token.ends_with("&se=1800000000"));
/// ```
#[must_use]
pub fn sas_token(resource: &str, key: &Key, policy: Option<&str>, expires: u64) -> String {
    let resource = percent_encode(resource);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    let signature = hmac::sign(&key, format!("{resource}\n{expires}").as_bytes());
    let signature = percent_encode(&Base64::encode_string(signature.as_ref()));
    let mut token = format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}");
    if let Some(policy) = policy {
        token.push_str("&skn=");
        token.push_str(&percent_encode(policy));
    }
    token
}

/// Everything but RFC 3986's unreserved characters becomes `%XX`.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = EString::<Query>::new();
    encoded.encode_str::<Data>(text);
    encoded.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signatures made by `openssl dgst -sha256 -mac HMAC` and by Python's hmac, which agree.
    #[test]
    fn known_signatures() {
        let key = Key::from_base64("VGhpcyBpcyBhIHRlc3Qga2V5LCBub3QgYSBzZWNyZXQu").unwrap();
        assert_eq!(
            sas_token(
                "myhub.azure-devices.net/devices/device-1",
                &key,
                None,
                1_700_000_000
            ),
            "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdevice-1&sig=NRMV1UA%2BFUUb4XE4WR2fM85JvwiarkgnxvF7Z2%2FxyWE%3D&se=1700000000"
        );
        assert_eq!(
            sas_token(
                "myhub.azure-devices.net",
                &key,
                Some("service"),
                1_700_000_000
            ),
            "SharedAccessSignature sr=myhub.azure-devices.net&sig=h1aGkEKPSgUExL0Cn2RyWMKJ78gjsPKCE%2BJRhhEbTsw%3D&se=1700000000&skn=service"
        );
    }

    #[test]
    fn a_resource_with_special_characters_is_encoded_once() {
        let key = Key::from_base64("c2VjcmV0").unwrap();
        assert!(
            sas_token("h/devices/a+b%c#d$e", &key, None, 1)
                .starts_with("SharedAccessSignature sr=h%2Fdevices%2Fa%2Bb%25c%23d%24e&sig=")
        );
        assert_eq!(
            percent_encode("AZaz09-._~ /=&ü"),
            "AZaz09-._~%20%2F%3D%26%C3%BC"
        );
    }

    #[test]
    fn what_is_no_key() {
        for text in ["", "secret", "not base64!", "c2VjcmV0\n", "c2VjcmV"] {
            assert_eq!(Key::from_base64(text), None, "{text:?}");
        }
        assert_eq!(
            format!("{:?}", Key::from_base64("c2VjcmV0").unwrap()),
            "***"
        );
    }
}
