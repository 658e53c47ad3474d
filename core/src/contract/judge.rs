//! What a request asks for, and whether the contract lets it in.

use super::file::{CheckForm, CheckRule, Needed};
use super::{Contract, refuse};
use crate::update::{
    Check, Code, Failure, Key, LocalImage, Origin, Policy, Request, Scheme, VersionRule, redact,
    scheme_of, version,
};
use alloc::{format, string::String, vec::Vec};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The longest version, in bytes. It is reported, and a twin that holds a text of more than 4 KB is
/// refused by the hub: then no back end would ever read how the update ended.
const LONGEST_VERSION: usize = 1024;

/// A reason for which a request is not run. A contract lists those it looks at, in its order; what
/// makes a request impossible is refused after them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// No URI or a member that is needed: ignored.
    Incomplete,
    /// The version asked for runs: up to date.
    SameVersion,
    /// The URI does not begin with `https:`, whatever else it is: failed.
    InsecureUri,
    /// The version is not higher than the running one: ignored.
    NotHigher,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is run.
    Start(Request),
    /// What it asks for runs already.
    UpToDate(Request),
    /// It is refused.
    Refuse(Request, Failure),
    /// It is ignored: nobody is told.
    Ignore,
}

impl Contract {
    /// Reads a method's payload into a request's members.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`], saying what is wrong with the payload.
    pub fn members_of(&self, payload: &[u8]) -> Result<Value, Failure> {
        let uri = &self.file.asked.members.uri;
        let wrong = |what: String| {
            refuse(
                Code::InvalidRequest,
                format!("{what}; {{\"{uri}\": \"https://…\"}} is needed"),
            )
        };
        if payload.iter().all(u8::is_ascii_whitespace) {
            return Err(wrong("the method has no payload".into()));
        }
        match serde_json::from_slice(payload) {
            Ok(Value::String(bare)) if self.file.asked.bare_uri => {
                let mut members = Map::new();
                members.insert(uri.clone(), Value::String(bare));
                Ok(Value::Object(members))
            }
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(other) => Err(wrong(format!("the payload is {}", kind(&other)))),
            Err(error) => Err(wrong(format!("the payload is no JSON ({error})"))),
        }
    }

    /// Judges a request's members.
    pub fn judge(
        &self,
        members: &Value,
        origin: Origin,
        running: Option<&str>,
        policy: &Policy,
    ) -> Verdict {
        let mut request = Request {
            key: Key::of(self.name(), members),
            origin,
            uri: String::new(),
            version: None,
            size: None,
            checks: Vec::new(),
            manifest: None,
            keys: None,
            signed: None,
        };
        // Everything that can be read is read before anything is refused, so that a refusal is
        // reported with the version it was about.
        let problem = self.read(members, &mut request).err();
        let same_version = request.version.is_some() && request.version.as_deref() == running;
        for refusal in &self.file.refusals {
            match refusal {
                Refusal::Incomplete => {
                    if request.uri.is_empty() || request.version.is_none() {
                        return Verdict::Ignore;
                    }
                }
                Refusal::SameVersion => {
                    if same_version {
                        return Verdict::UpToDate(request);
                    }
                }
                Refusal::InsecureUri => {
                    if !request.uri.is_empty() && !is_secure(&request.uri, policy) {
                        let failure = insecure(&request.uri);
                        return Verdict::Refuse(request, failure);
                    }
                }
                Refusal::NotHigher => {
                    let higher = match (request.version.as_deref(), running) {
                        (Some(asked), Some(running)) => version::compare(asked, running).is_gt(),
                        (asked, _) => asked.is_some(),
                    };
                    if !higher {
                        return Verdict::Ignore;
                    }
                }
            }
        }
        match problem.or_else(|| self.impossible(&request, running, policy)) {
            Some(failure) => Verdict::Refuse(request, failure),
            None if same_version
                && [self.file.version, policy.version].contains(&VersionRule::Other) =>
            {
                Verdict::UpToDate(request)
            }
            None => Verdict::Start(request),
        }
    }

    /// Judges what somebody at the device wants. The contract's version rule holds, and what the policy
    /// says; but who brings a file vouches for it, so a check value is asked for only where the policy does.
    ///
    /// # Errors
    /// Why it is not installed.
    pub fn judge_local(
        &self,
        image: &LocalImage,
        running: Option<&str>,
        policy: &Policy,
    ) -> Result<Request, Failure> {
        let members = json!({
            "uri": image.uri,
            "version": image.version,
            "check": image.check,
            "manifest": image.manifest,
        });
        let check = image.check.as_deref();
        let request = Request {
            key: Key::of("local", &members),
            origin: Origin::Local,
            uri: image.uri.clone(),
            version: image.version.clone(),
            size: None,
            checks: check
                .map(|check| Check::parse(check, false))
                .transpose()?
                .into_iter()
                .collect(),
            manifest: image.manifest.clone(),
            keys: None,
            signed: None,
        };
        if let Some(version) = &request.version {
            if version.len() > LONGEST_VERSION {
                let text = format!("a version has at most {LONGEST_VERSION} bytes");
                return Err(refuse(Code::InvalidRequest, text));
            }
            let other = [self.file.version, policy.version].contains(&VersionRule::Other);
            if other && Some(version.as_str()) == running {
                let text = format!("version {version} runs already");
                return Err(refuse(Code::VersionRefused, text));
            }
        }
        if let Some(failure) = self.forbidden(&request, running, policy) {
            return Err(failure);
        }
        if policy.require_check && !policy.require_manifest && request.checks.is_empty() {
            let text =
                "a check value is missing: a CRC-16, CRC-32 or SHA-256 of the image is needed";
            return Err(refuse(Code::CheckRequired, text));
        }
        Ok(request)
    }

    /// Fills in what the members say; the first thing wrong is the error, the rest is still read.
    fn read<'a>(&'a self, members: &'a Value, request: &mut Request) -> Result<(), Failure> {
        let names = &self.file.asked.members;
        let member = |name: Option<&'a str>| {
            let name = name?;
            let value = members.get(name)?;
            (!value.is_null()).then_some((name, value))
        };
        let text = |name: &str, value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            other => Err(refuse(
                Code::InvalidRequest,
                format!("{name} is {}; text is needed", kind(other)),
            )),
        };
        let mut first = Ok(());
        let mut note = |failure: Failure| {
            if first.is_ok() {
                first = Err(failure);
            }
        };
        match member(Some(&names.uri)).map(|(name, value)| text(name, value)) {
            Some(Ok(uri)) => request.uri = uri,
            Some(Err(failure)) => note(failure),
            None => note(refuse(
                Code::InvalidRequest,
                format!("{} is missing: the URL of the image is needed", names.uri),
            )),
        }
        match member(names.version.as_deref()).map(|(name, value)| text(name, value)) {
            Some(Ok(version)) if version.len() > LONGEST_VERSION => note(refuse(
                Code::InvalidRequest,
                format!(
                    "{} has {} bytes; a version has at most {LONGEST_VERSION}",
                    names.version.as_deref().unwrap_or("the version"),
                    version.len()
                ),
            )),
            Some(Ok(version)) => request.version = Some(version),
            Some(Err(failure)) => note(failure),
            None if self.file.asked.needs.contains(&Needed::Version) => note(refuse(
                Code::InvalidRequest,
                format!(
                    "{} is missing",
                    names.version.as_deref().unwrap_or("the version")
                ),
            )),
            None => {}
        }
        if let Some((name, value)) = member(names.check.as_deref()) {
            let devkit = self.file.check_form == CheckForm::Devkit;
            match text(name, value).and_then(|value| Check::parse(&value, devkit)) {
                Ok(check) => request.checks.push(check),
                Err(failure) => note(failure),
            }
        }
        if let Some((name, value)) = member(names.size.as_deref()) {
            let size = match value {
                Value::String(digits) => digits.parse().ok(),
                other => other.as_u64(),
            };
            match size {
                Some(size) if size > 0 => request.size = Some(size),
                _ => note(refuse(
                    Code::InvalidRequest,
                    format!("{name} is {}; a number of bytes is needed", shown(value)),
                )),
            }
        }
        for (name, to) in [
            (&names.manifest, &mut request.manifest),
            (&names.keys, &mut request.keys),
        ] {
            match member(name.as_deref()) {
                // A JWS in its JSON serialisation.
                Some((_, object @ Value::Object(_))) => *to = Some(format!("{object}")),
                Some((name, value)) => match text(name, value) {
                    Ok(signed) => *to = Some(signed),
                    Err(failure) => note(failure),
                },
                None => {}
            }
        }
        first
    }

    /// Whether the version rules of contract and policy let a version in.
    ///
    /// # Errors
    /// [`Code::VersionRefused`]: one of them wants a higher one than the running.
    pub(crate) fn check_version(
        &self,
        asked: &str,
        running: Option<&str>,
        policy: &Policy,
    ) -> Result<(), Failure> {
        let higher = [self.file.version, policy.version].contains(&VersionRule::Higher);
        match running {
            Some(running) if higher && !version::compare(asked, running).is_gt() => Err(refuse(
                Code::VersionRefused,
                format!("version {asked} is not higher than the running {running}"),
            )),
            _ => Ok(()),
        }
    }

    /// What makes a request impossible under any contract.
    fn impossible(
        &self,
        request: &Request,
        running: Option<&str>,
        policy: &Policy,
    ) -> Option<Failure> {
        let scheme = match scheme_of(&request.uri) {
            Ok(scheme) => scheme,
            Err(failure) => return Some(failure),
        };
        if !is_secure(&request.uri, policy) {
            return Some(insecure(&request.uri));
        }
        if let Some(failure) = self.forbidden(request, running, policy) {
            return Some(failure);
        }
        if request.size.is_some_and(|size| size > policy.max_size) {
            return Some(refuse(
                Code::TooLarge,
                format!(
                    "the image is announced with {} bytes; this device takes at most {}",
                    request.size.unwrap_or_default(),
                    policy.max_size
                ),
            ));
        }
        let unchecked = request.checks.is_empty();
        let missing = match self.file.check {
            // It says more than a request could.
            _ if policy.require_manifest => false,
            CheckRule::Required => unchecked,
            CheckRule::Size => request.size.is_none() || (policy.require_check && unchecked),
            // Without TLS nothing at all would vouch for the image.
            CheckRule::Offered => unchecked && (policy.require_check || scheme == Scheme::Http),
        };
        let names = &self.file.asked.members;
        let name = match self.file.check {
            CheckRule::Size if request.size.is_none() => &names.size,
            _ => &names.check,
        };
        let what = match self.file.check {
            CheckRule::Size if request.size.is_none() => "the image's size in bytes",
            _ => "a CRC-16, CRC-32 or SHA-256 of the image",
        };
        missing.then(|| {
            refuse(
                Code::CheckRequired,
                format!(
                    "{} is missing: {what} is needed",
                    name.as_deref().unwrap_or("a check")
                ),
            )
        })
    }

    /// What contract and owner do not let in, however it comes.
    fn forbidden(
        &self,
        request: &Request,
        running: Option<&str>,
        policy: &Policy,
    ) -> Option<Failure> {
        if request.manifest.is_some() && !policy.require_manifest {
            // Not to be taken for verified: whoever sends one relies on it.
            let name = self.file.asked.members.manifest.as_deref();
            return Some(refuse(
                Code::InvalidRequest,
                format!(
                    "{}: no keys are configured to check it with; leave it out to be checked by size and check value only",
                    name.unwrap_or("manifest")
                ),
            ));
        }
        match &request.version {
            Some(asked) => {
                if let Err(failure) = self.check_version(asked, running, policy) {
                    return Some(failure);
                }
            }
            // A rule that nobody has to keep is none. A manifest says which version it is of.
            None if policy.version == VersionRule::Higher && !policy.require_manifest => {
                let name = self.file.asked.members.version.as_deref();
                return Some(refuse(
                    Code::VersionRefused,
                    format!(
                        "{} is missing: this device takes only a higher version than the one it runs",
                        name.unwrap_or("the version")
                    ),
                ));
            }
            None => {}
        }
        None
    }
}

/// Begins with `https:`, or with `http:` where the policy lets that in.
fn is_secure(uri: &str, policy: &Policy) -> bool {
    let begins = |scheme: &str| {
        uri.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    begins("https:") || (policy.allow_http && begins("http:"))
}

fn insecure(uri: &str) -> Failure {
    refuse(
        Code::InsecureUri,
        format!("\"{}\" is not https", redact(uri)),
    )
}

/// A value's kind, for a message.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A value for a message, cut.
fn shown(value: &Value) -> String {
    format!("{value}").chars().take(64).collect()
}
