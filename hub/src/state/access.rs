//! Who is let in: the tokens of back ends and devices.

use super::Shared;
use crate::{
    clock,
    error::{Code, Refusal},
    identity::Authentication,
    sas::{POLICIES, Rights, Token, decode, is_segment_prefix},
};
use rustls_pki_types::CertificateDer;

impl Shared {
    /// The rights a service token gives at a path. `host` is what the request says the hub's name is.
    pub(crate) fn service_rights(
        &self,
        token: &str,
        host: &str,
        path: &str,
    ) -> Result<Rights, Refusal> {
        let refused = |reason: &str| {
            Refusal::new(
                Code::UNAUTHORIZED_ACCESS,
                format!("Unauthorized: {reason}."),
            )
        };
        let token = Token::parse(token).map_err(refused)?;
        let resource = token.resource().unwrap_or_default();
        let (resource_host, resource_path) =
            resource.split_once('/').unwrap_or((resource.as_ref(), ""));
        let resource_host = without_port(resource_host);
        if ![self.host_name.as_str(), without_port(host)]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(resource_host))
        {
            return Err(refused("the token's resource (sr) is not this hub"));
        }
        let path = decode(path).unwrap_or_default();
        if !resource_path.is_empty() && !is_segment_prefix(&format!("/{resource_path}"), &path) {
            return Err(refused(
                "the token's resource (sr) is another part of this hub",
            ));
        }
        let policy = token
            .policy
            .as_deref()
            .ok_or_else(|| refused("the token names no policy (skn)"))?;
        let rights = self.policy_rights(&token, policy).map_err(refused)?;
        if token.is_expired(clock::unix()) {
            return Err(refused("the token expired"));
        }
        Ok(rights)
    }

    fn policy_rights(&self, token: &Token<'_>, policy: &str) -> Result<Rights, &'static str> {
        let keys = self
            .policies
            .get(policy)
            .ok_or("the hub has no such policy (skn)")?;
        let rights = POLICIES.iter().find(|(name, _)| *name == policy);
        if !token.is_signed_by(keys) {
            return Err("the token is not signed with a key of its policy");
        }
        rights
            .map(|(_, rights)| *rights)
            .ok_or("the hub has no such policy (skn)")
    }

    /// Whether a device may connect, and until when (seconds since 1970) if there is an end. `host` is what it says the hub's
    /// name is, `certificates` its own and those that lead to an authority.
    pub(crate) fn authenticate(
        &self,
        id: &str,
        host: &str,
        password: Option<&str>,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Option<u64>, &'static str> {
        let authentication = {
            let state = self.lock();
            let entry = state
                .entries
                .get(id)
                .ok_or("no such device is registered")?;
            if !entry.device.identity.enabled {
                return Err("the device is disabled");
            }
            entry.device.identity.authentication.clone()
        };
        let keys = match authentication {
            Authentication::Sas(keys) => keys,
            other => {
                return self
                    .check_certificate(id, &other, certificates)
                    .map(|()| None);
            }
        };
        let token = Token::parse(password.ok_or("CONNECT has no password")?)?;
        let resource = token
            .resource()
            .ok_or("the token's resource (sr) is not text")?;
        let own = format!("{host}/devices/{id}");
        match token.policy.as_deref() {
            None => {
                if !is_segment_prefix(&resource, &own) || resource.split('/').count() != 3 {
                    return Err("the token's resource (sr) is not this device");
                }
                if !token.is_signed_by(&keys) {
                    return Err("the token is not signed with a key of the device");
                }
            }
            Some(policy) => {
                if !is_segment_prefix(&resource, &own) {
                    return Err("the token's resource (sr) does not cover this device");
                }
                if !self
                    .policy_rights(&token, policy)?
                    .include(Rights::DEVICE_CONNECT)
                {
                    return Err("the token's policy does not let devices connect");
                }
            }
        }
        if token.is_expired(clock::unix()) {
            return Err("the token expired");
        }
        Ok(Some(token.expiry))
    }

    fn check_certificate(
        &self,
        id: &str,
        authentication: &Authentication,
        certificates: &[CertificateDer<'_>],
    ) -> Result<(), &'static str> {
        let (own, others) = certificates
            .split_first()
            .ok_or("the device is registered with X.509, and it sent no client certificate")?;
        match authentication {
            Authentication::SelfSigned(thumbprints) if thumbprints.include(own) => Ok(()),
            Authentication::CertificateAuthority => self.authorities.check(id, own, others),
            _ => Err("the client certificate's thumbprint is not one registered for the device"),
        }
    }

    /// Every policy with its primary key.
    pub(crate) fn policy_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.policies
            .iter()
            .map(|(name, keys)| (name.as_str(), keys.primary_key.0.as_str()))
    }
}

/// `localhost` of `localhost:8443`, `::1` of `[::1]:8443`.
pub(crate) fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_loses_its_port() {
        for (host, name) in [
            ("localhost", "localhost"),
            ("localhost:1", "localhost"),
            ("[::1]:1", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }
}
