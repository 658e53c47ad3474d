//! `twinflash query`

use crate::{
    Common,
    cloud::{Cloud, text, time},
    error::Error,
    screen::{Screen, Tone},
    service::Refused,
    table,
};
use serde_json::Value;

/// Asks the hub in its query language, and shows all rows.
#[derive(clap::Args)]
pub(crate) struct Query {
    #[command(flatten)]
    cloud: Cloud,
    /// Such as "SELECT deviceId FROM devices WHERE tags.building = '43'"
    query: String,
}

/// The columns whole twins have for people; the rest is in `twinflash twin show`.
const TWIN: [&str; 6] = [
    "deviceId",
    "status",
    "connectionState",
    "lastActivityTime",
    "version",
    "tags",
];

impl Query {
    pub(crate) fn run(self, common: &Common, screen: &Screen) -> Result<bool, Error> {
        let service = self.cloud.open(common)?;
        let mut all = Vec::new();
        service
            .query(&self.query, &mut |rows| match screen.is_json() {
                true => rows.iter().for_each(|row| screen.json(row)),
                false => all.extend(rows),
            })
            .map_err(|refused| wrong(screen, &self.query, refused))?;
        match all.first() {
            None => screen.text("no rows", Tone::Dim),
            Some(first) if is_twin(first) => show_twins(screen, &all),
            Some(_) => table::show_objects(screen, &all),
        }
        Ok(true)
    }
}

fn is_twin(row: &Value) -> bool {
    row.get("deviceId").is_some() && row.get("etag").is_some() && row.get("properties").is_some()
}

/// Shows devices, from their twins or the same members of those.
pub(crate) fn show_twins(screen: &Screen, twins: &[Value]) {
    let row = |twin: &Value| {
        TWIN.iter()
            .map(|name| match *name {
                "lastActivityTime" => time(twin, "/lastActivityTime"),
                name => text(twin, &format!("/{name}")),
            })
            .collect()
    };
    let rows: Vec<_> = twins.iter().map(row).collect();
    table::show(screen, &TWIN, &rows);
}

/// The error of a wrong query, with a mark below the place where the hub says it is wrong.
pub(crate) fn wrong(screen: &Screen, query: &str, refused: Refused) -> Error {
    show_place(screen, query, &refused.said);
    refused.into()
}

/// Marks the place in a query or condition that an error of the hub names, for people.
pub(crate) fn show_place(screen: &Screen, query: &str, said: &str) {
    if screen.is_json() {
        return;
    }
    if let Some((line, column)) = place(said)
        && let Some(line) = query.lines().nth(line.saturating_sub(1))
    {
        screen.note(line);
        screen.note(&format!("{:>column$}", "^"));
    }
}

/// Line and column in the hub's words, both from 1.
fn place(said: &str) -> Option<(usize, usize)> {
    let number = |after: &str| {
        let (_, rest) = said.rsplit_once(after)?;
        let end = rest.find(|c: char| !c.is_ascii_digit());
        rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
    };
    // A column beyond any query would only make a long line of blanks.
    let column = number("column ").filter(|column| *column <= 8193)?;
    Some((number("line ")?, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(place("expected x (line 2, column 15)."), Some((2, 15)));
        assert_eq!(place("line 2, column 999999"), None);
        assert_eq!(place("wrong"), None);
    }
}
