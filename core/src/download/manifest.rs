//! Fetches the manifest beside an image: a short text, by the rules of images.

use super::{
    Stop,
    answer::judge,
    attempt::{Abort, Line},
    failure::failure,
    network::Event,
};
use crate::update::{Code, Ended, Job, Retry, Scheme, scheme_of};
use ureq::config::Config;

pub(super) fn run(config: &Config, job: &Job, stop: &Stop) -> Ended {
    match fetch(config, job, stop) {
        Ok(text) => Ended::Manifest(text),
        Err(Abort::Failed(failure, retry)) => Ended::Failed(failure, retry),
        Err(Abort::Stopped) => Ended::Stopped,
    }
}

fn fetch(config: &Config, job: &Job, stop: &Stop) -> Result<String, Abort> {
    let shown = crate::update::redact(&job.uri);
    if scheme_of(&job.uri)? == Scheme::Http && job.https_only {
        return Err(failure(Code::InsecureUri, &shown, "it is not https").into());
    }
    let mut line = Line::open(config, job, stop, None)?;
    let mut text = Vec::new();
    loop {
        match line.next()? {
            Some(Event::Head(head)) => {
                line.shown.clone_from(&head.shown);
                judge(&head, None, job)?;
            }
            Some(Event::Bytes(buffer, filled)) => {
                text.extend_from_slice(buffer.get(..filled).unwrap_or_default());
                if text.len() as u64 > job.max_size {
                    let why = format!("it has more than {} bytes", job.max_size);
                    return Err(failure(Code::TooLarge, &line.shown, &why).into());
                }
                line.give_back(buffer);
            }
            Some(Event::End) => break,
            Some(Event::Failed(failure, retry)) => return Err(Abort::Failed(failure, retry)),
            None => {}
        }
    }
    String::from_utf8(text).map_err(|_| {
        let failure = failure(Code::ManifestInvalid, &line.shown, "it is no text");
        Abort::Failed(failure, Retry::Never)
    })
}
