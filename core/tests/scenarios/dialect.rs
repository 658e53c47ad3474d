//! The scenarios that are told in no contract's words, put into each contract's: see "Scenarios for every
//! contract" in `tests/scenarios/README.md`.

use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// How a contract says it: a file in `tests/scenarios/dialects`, written by hand from the contract's
/// description and not from the file the engine reads, which it judges.
pub(super) type Dialects = BTreeMap<String, Value>;

pub(super) fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON files of a directory, by name.
pub(super) fn tables(directory: &Path) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let table = read(&path);
            (stem, table)
        })
        .collect()
}

/// What a scenario needs and the contract does not have, with the reason.
pub(super) fn lacks(scenario: &Value, dialect: &Value) -> Option<String> {
    let needs = scenario["needs"].as_array()?;
    needs.iter().find_map(|need| {
        let why = dialect["cannot"][need.as_str()?].as_str()?;
        Some(why.to_owned())
    })
}

/// The scenario in the contract's words, with no other steps than the tables of one contract have.
/// Each says in `of` which step of the scenario it comes from.
pub(super) fn translate(scenario: &Value, dialect: &Value) -> Result<Value, String> {
    let mut translated = scenario.clone();
    translated["contract"] = dialect["contract"].clone();
    let speaker = Speaker { scenario, dialect };
    let mut steps = Vec::new();
    let mut last = String::new();
    let written = scenario["steps"].as_array().ok_or("there are no steps")?;
    for (number, step) in written.iter().enumerate() {
        let of = format!("{}: {step}", number + 1);
        let said = match step {
            step if step.get("ask").is_some() => speaker.ask(step),
            step if step.get("sees").is_some() => speaker.sees(step).map(|step| vec![step]),
            step if step.get("course").is_some() => {
                speaker.course(step, &mut last).map(|step| vec![step])
            }
            other => Ok(vec![other.clone()]),
        };
        for mut step in said.map_err(|why| format!("step {of}\n    {why}"))? {
            step["of"] = of.clone().into();
            steps.push(step);
        }
    }
    translated["steps"] = steps.into();
    Ok(translated)
}

struct Speaker<'a> {
    scenario: &'a Value,
    dialect: &'a Value,
}

impl Speaker<'_> {
    /// A request, what it is answered, and what is seen where it is refused.
    fn ask(&self, step: &Value) -> Result<Vec<Value>, String> {
        let asked = &self.dialect["asked"];
        let mut members = Map::new();
        for (name, member) in asked["members"].as_object().into_iter().flatten() {
            let value = step["ask"].get(name).or(self.scenario["ask"].get(name));
            let member = member.as_str().unwrap_or_default().to_owned();
            members.insert(member, value.cloned().unwrap_or_default());
        }
        let mut seen = step.clone();
        if let Some(version) = step["ask"].get("version") {
            seen["version"] = version.clone();
        }
        seen["code"] = step["refused"].clone();
        let refused = step.get("refused").is_some();
        let mut steps = Vec::new();
        if let Some(path) = asked["desired"].as_str() {
            let taken_back = step["ask"].is_null();
            let request = if taken_back {
                Value::Null
            } else {
                members.into()
            };
            steps.push(json!({"desired": {path: request}}));
            if refused {
                seen["sees"] = "refused".into();
                steps.push(self.sees(&seen)?);
                let outcome = json!({"outcome": "failed", "code": step["refused"]});
                steps.push(json!({"expect": {"status": {"outcome": outcome}}}));
            }
            return Ok(steps);
        }
        members.retain(|_, value| !value.is_null());
        let answers = &self.dialect["answers"];
        let answer = match (step["refused"].as_str(), step["answer"].as_str()) {
            (Some(code), _) => answers["refused"].get(code).or(answers["refused"].get("*")),
            (None, answer) => answers.get(answer.unwrap_or("started")),
        };
        let answer = answer.ok_or("the dialect has no such answer")?;
        let mut method = json!({
            "method": asked["method"],
            "payload": members,
            "answer": self.fill(answer, &seen)?,
        });
        if step["fresh"] == true {
            seen["uri"] = step["ask"].get("uri").cloned().unwrap_or_default();
            if seen["uri"].is_null() {
                seen["uri"] = self.scenario["sees"]["uri"].clone();
            }
            method["answered"] = self.fill(&self.dialect["fresh"], &seen)?;
        }
        steps.push(method);
        if refused {
            seen["sees"] = step["still"].clone();
            steps.push(self.sees(&seen)?);
        }
        Ok(steps)
    }

    /// The reported properties at a moment, to the letter.
    fn sees(&self, step: &Value) -> Result<Value, String> {
        let exactly = self.shows(&step["sees"], step)?;
        let mut expect = json!({"expect": {"reportedExactly": exactly}});
        if let Some(within) = step.get("within") {
            expect["within"] = within.clone();
        }
        Ok(expect)
    }

    /// The statuses of several moments, repetitions and what is no status left out; `last` is the one before.
    fn course(&self, step: &Value, last: &mut String) -> Result<Value, String> {
        let mut statuses = Vec::new();
        for moment in step["course"].as_array().ok_or("moments are needed")? {
            let status = status(&self.dialect["follow"], &self.shows(moment, step)?);
            if !status.is_empty() && status != *last {
                statuses.push(status.clone());
            }
            *last = status;
        }
        Ok(json!({"expect": {"statuses": statuses}}))
    }

    fn shows(&self, moment: &Value, step: &Value) -> Result<Value, String> {
        let mut shown = moment;
        while let Some(name) = shown.as_str() {
            shown = self.dialect["shows"]
                .get(name)
                .ok_or_else(|| format!("the dialect does not say what is shown at {name:?}"))?;
        }
        self.fill(shown, step)
    }

    /// Puts in what the step says, or else the scenario.
    fn fill(&self, value: &Value, step: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => {
                let mut text = text.clone();
                if text.contains("{reason}") {
                    let code = step["code"].as_str().unwrap_or_default();
                    let reasons = &self.dialect["reasons"];
                    let reason = reasons.get(code).or(reasons.get("*"));
                    let reason = reason.and_then(Value::as_str);
                    let reason = reason.ok_or_else(|| format!("no reason for {code:?}"))?;
                    text = text.replace("{reason}", reason);
                }
                for name in ["running", "version", "uri", "code", "message"] {
                    let own = step.get(name).filter(|value| value.is_string());
                    let said = own.unwrap_or(&self.scenario["sees"][name]);
                    text = text.replace(&format!("{{{name}}}"), said.as_str().unwrap_or_default());
                }
                text.into()
            }
            Value::Object(members) => {
                let mut filled = Map::new();
                for (name, value) in members {
                    filled.insert(name.clone(), self.fill(value, step)?);
                }
                filled.into()
            }
            other => other.clone(),
        })
    }
}

/// A status as a back end reads it: `status`, or `status: detail`; empty where there is none.
pub(super) fn status(follow: &Value, reported: &Value) -> String {
    let at = |path: &Value| {
        let mut names = path.as_str()?.split('.');
        let found = names.try_fold(reported, |at, name| at.get(name))?;
        found.as_str()
    };
    let status = at(&follow["status"]).unwrap_or_default();
    match at(&follow["detail"]) {
        Some(detail) if !detail.is_empty() => format!("{status}: {detail}"),
        _ => status.to_owned(),
    }
}
