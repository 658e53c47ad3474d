//! What a scenario expects, at a step and in the end.

use super::{
    stage::{Checked, Stage},
    support::pattern::expect,
    values::{listing, shape},
};
use serde_json::{Value, json};
use std::{
    fs,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

impl Stage {
    /// Waits until everything that is expected holds; then forgets the statuses that were.
    pub(super) fn hold(&mut self, expected: &Value, within: f64) -> Checked {
        let deadline = Instant::now() + Duration::from_secs_f64(within);
        while let Err(why) = self.holds(expected) {
            if Instant::now() > deadline {
                return Err(why);
            }
            thread::sleep(Duration::from_millis(5));
        }
        if expected.get("statuses").is_some() {
            self.hub.twin().statuses.clear();
        }
        Ok(())
    }

    fn holds(&self, expected: &Value) -> Checked {
        for (name, expected) in expected.as_object().ok_or("an object is needed")? {
            let twin = self.hub.twin();
            match name.as_str() {
                "reported" => expect(expected, &twin.reported, "reported")?,
                "reportedExactly" => {
                    expect(expected, &twin.reported, "reported")?;
                    expect(&shape(&twin.reported), &shape(expected), "members")?;
                    expect(&shape(expected), &shape(&twin.reported), "members")?;
                }
                "statuses" => expect(expected, &json!(twin.statuses), "statuses")?,
                "reads" => expect(expected, &json!(twin.reads), "reads")?,
                "reports" => expect(expected, &json!(twin.patches.len()), "reports")?,
                "answers" => {
                    let answers = self.heard.answers.load(Ordering::Relaxed);
                    expect(expected, &json!(answers), "answers")?;
                }
                "connected" => expect(expected, &json!(twin.connected), "connected")?,
                "requests" => {
                    for (path, count) in expected.as_object().into_iter().flatten() {
                        let asked = self.ranges(path).len();
                        expect(count, &json!(asked), &format!("requests.{path}"))?;
                    }
                }
                "ranges" => {
                    for (path, ranges) in expected.as_object().into_iter().flatten() {
                        expect(ranges, &json!(self.ranges(path)), &format!("ranges.{path}"))?;
                    }
                }
                "lastRange" => {
                    for (path, range) in expected.as_object().into_iter().flatten() {
                        let last = self.ranges(path).pop().flatten();
                        expect(range, &json!(last), &format!("lastRange.{path}"))?;
                    }
                }
                "file" => expect(expected, &self.file(), "file")?,
                "files" => expect(expected, &self.files(), "files")?,
                "stateFiles" => expect(expected, &self.state_files(), "stateFiles")?,
                "status" => {
                    drop(twin);
                    let status = self.ask("status", json!({}))?;
                    expect(expected, &status, "status")?;
                }
                "restarts" => {
                    let restarts = self.heard.restarts.load(Ordering::Relaxed);
                    expect(expected, &json!(restarts), "restarts")?;
                }
                "warning" => {
                    let warnings = self.heard.warnings.lock().unwrap();
                    if !warnings
                        .iter()
                        .any(|warning| expect(expected, &json!(warning), "").is_ok())
                    {
                        return Err(format!("no warning is {expected}: {warnings:?}"));
                    }
                }
                other => return Err(format!("{other} cannot be expected")),
            }
        }
        Ok(())
    }

    /// The `Range` of each request for a path.
    fn ranges(&self, path: &str) -> Vec<Option<String>> {
        let asked = self.server.asked();
        asked
            .iter()
            .filter(|asked| asked.path.split('?').next() == Some(path))
            .map(|asked| asked.header("range").map(str::to_owned))
            .collect()
    }

    /// The name of the image that is installed.
    fn file(&self) -> Value {
        let Ok(bytes) = fs::read(self.directory.join("app.bin")) else {
            return Value::Null;
        };
        let image = self.images.iter().find(|(_, image)| **image == bytes);
        image.map_or(json!("neither old nor new"), |(name, _)| json!(name))
    }

    fn files(&self) -> Value {
        listing(&self.directory).into()
    }

    fn state_files(&self) -> Value {
        listing(&self.directory.join("state")).into()
    }
}
