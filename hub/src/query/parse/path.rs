//! Paths to properties.

use super::lexer::{Failure, Input, Parsed, expected, name, space, wrong};
use crate::query::Path;
use winnow::{
    Parser,
    combinator::{alt, opt, terminated},
    stream::Location,
    token::take_until,
};

fn is_reserved(name: &str) -> bool {
    [
        "SELECT",
        "TOP",
        "FROM",
        "WHERE",
        "GROUP",
        "BY",
        "AS",
        "AND",
        "OR",
        "NOT",
        "IN",
        "NIN",
        "TRUE",
        "FALSE",
        "NULL",
        "UNDEFINED",
    ]
    .into_iter()
    .any(|keyword| name.eq_ignore_ascii_case(keyword))
}

/// A name that is no keyword.
pub(super) fn plain<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    name.verify(|name: &str| !is_reserved(name))
        .parse_next(input)
}

/// `[[name]]`: any name, such as a configuration's id.
pub(super) fn quoted<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    let position = input.current_token_start();
    "[[".parse_next(input)?;
    let name: Option<&str> = opt(terminated(take_until(1.., "]]"), "]]")).parse_next(input)?;
    name.ok_or_else(|| wrong(position, "[[ is not followed by a name and ]]"))
}

pub(super) fn path(input: &mut Input<'_>, what: &'static str) -> Parsed<Path> {
    let position = input.current_token_start();
    let Some(first) = opt(alt((quoted, plain))).parse_next(input)? else {
        expected(input, position, what);
        return Err(Failure::Other);
    };
    let mut names = vec![first.to_owned()];
    while opt(".").parse_next(input)?.is_some() {
        let position = input.current_token_start();
        match opt(alt((quoted, name))).parse_next(input)? {
            Some(name) => names.push(name.to_owned()),
            None => {
                expected(input, position, "a property's name or [[name]]");
                return Err(Failure::Other);
            }
        }
    }
    space(input)?;

    let is = |index: usize, name: &str| {
        names
            .get(index)
            .is_some_and(|found| found.eq_ignore_ascii_case(name))
    };
    let prefix = if is(0, "devices") && is(1, "jobs") && names.len() > 2 {
        input.state.jobs_path.get_or_insert(position);
        2
    } else {
        usize::from(is(0, "devices") && names.len() > 1)
    };
    names.drain(..prefix);
    Ok(Path::new(names))
}

impl Path {
    /// Gives a document's own members their own spelling.
    fn new(mut names: Vec<String>) -> Self {
        const MEMBERS: [&str; 26] = [
            "authenticationType",
            "capabilities",
            "cloudToDeviceMessageCount",
            "configurations",
            "connectionState",
            "createdDateTimeUtc",
            "deviceEtag",
            "deviceId",
            "endTimeUtc",
            "error",
            "etag",
            "jobId",
            "jobType",
            "lastActivityTime",
            "lastUpdatedDateTimeUtc",
            "modelId",
            "moduleId",
            "outcome",
            "properties",
            "startTimeUtc",
            "status",
            "statusReason",
            "statusUpdateTime",
            "tags",
            "version",
            "x509Thumbprint",
        ];
        let spell = |name: Option<&mut String>, members: &[&str]| {
            let own = |name: &&mut String| {
                members
                    .iter()
                    .find(|member| member.eq_ignore_ascii_case(name))
            };
            if let Some(name) = name
                && let Some(own) = own(&name)
            {
                *name = (*own).to_owned();
            }
        };
        spell(names.first_mut(), &MEMBERS);
        if names.first().is_some_and(|name| name == "properties") {
            spell(names.get_mut(1), &["desired", "reported"]);
        }
        Self(names)
    }
}
