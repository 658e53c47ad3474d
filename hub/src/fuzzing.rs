//! What fuzzing needs of this crate: what reads foreign bytes, without sockets and TLS around it.
//!
//! No part of the API: it is there with the feature `fuzzing` only, and changes at any time.

use crate::{
    Error, clock, mqtt,
    query::{Document, Query},
    rest::{self, Peer},
    sas::{Key, Keys, Token},
    state::{IfMatch, Shared},
    store::Store,
    throttle::Throttle,
    x509::Authorities,
};
use base64ct::{Base64, Encoding as _};
use ring::hmac;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A hub in memory, called `localhost`, with one device, `d1`.
pub struct Bench(Arc<Shared>);

impl Bench {
    /// Starts with the device's key.
    ///
    /// # Errors
    /// The key is none.
    pub fn new(key: &str) -> Result<Self, Error> {
        let hub = Shared::new(
            "localhost".into(),
            None,
            Store::Memory,
            Authorities::read(&[])?,
            Throttle::new(None),
        )?;
        let body =
            json!({"authentication": {"symmetricKey": {"primaryKey": key, "secondaryKey": key}}});
        hub.put_device("d1", &body, &IfMatch::None)
            .map_err(|refusal| Error::Name(refusal.message))?;
        Ok(Self(Arc::new(hub)))
    }

    /// A token for everything a back end may do.
    pub fn service_token(&self) -> String {
        let key = self
            .0
            .policy_keys()
            .find(|(name, _)| *name == "iothubowner");
        let key = key.and_then(|(_, key)| Base64::decode_vec(key).ok());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key.unwrap_or_default());
        let expiry = clock::unix() + 3600;
        let signature = hmac::sign(&key, format!("localhost\n{expiry}").as_bytes());
        let signature = Base64::encode_string(signature.as_ref()).replace('+', "%2B");
        format!("SharedAccessSignature sr=localhost&sig={signature}&se={expiry}&skn=iothubowner")
    }

    /// A device's connection, from its first byte to its end.
    pub async fn mqtt<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        mqtt::serve(&self.0, "peer".into(), &[], stream).await;
    }

    /// A back end's connection, from its first byte to its end.
    pub async fn https<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = Peer {
            address: "peer".into(),
            certificates: Arc::new([]),
            slot: Arc::new(()),
        };
        rest::serve(self.0.clone(), stream, peer).await;
    }
}

/// The rows of a query; or why it is none.
///
/// # Errors
/// The text is no query.
pub fn query(text: &str, documents: &[Value]) -> Result<Vec<Value>, String> {
    let query = Query::parse(text).map_err(|error| error.to_string())?;
    let documents = documents.iter().map(|document| document as &dyn Document);
    Ok(query.select(documents))
}

/// What a token says: its resource, decoded, its end and its policy; and whether `key` signed it.
pub fn token(text: &str, key: &str) -> Option<(String, u64, Option<String>, bool)> {
    let token = Token::parse(text).ok()?;
    let keys = Keys {
        primary_key: Key(key.into()),
        secondary_key: Key(key.into()),
    };
    let signed = token.is_signed_by(&keys);
    let policy = token.policy.as_deref().map(str::to_owned);
    Some((token.resource()?.into_owned(), token.expiry, policy, signed))
}
