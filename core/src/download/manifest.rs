//! Fetches the manifest beside an image: a short text, by the rules of images.

use super::{
    Source, Stop,
    answer::failure,
    attempt::{Abort, Line, allowed},
    wire::Event,
};
use crate::update::{Code, Ended, Job, Retry};

pub(super) fn run(source: &Source, job: &Job, stop: &Stop) -> Ended {
    match fetch(source, job, stop) {
        Ok(text) => Ended::Manifest(text),
        Err(Abort::Failed(failure, retry)) => Ended::Failed(failure, retry),
        Err(Abort::Stopped) => Ended::Stopped,
    }
}

fn fetch(source: &Source, job: &Job, stop: &Stop) -> Result<String, Abort> {
    allowed(job)?;
    let mut line = Line::open(source, job, stop, None, true)?;
    line.answer(None)?;
    let mut text = Vec::new();
    loop {
        match line.next()? {
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
            Some(_) | None => {}
        }
    }
    String::from_utf8(text).map_err(|_| {
        let failure = failure(Code::ManifestInvalid, &line.shown, "it is no text");
        Abort::Failed(failure, Retry::Never)
    })
}
