//! Rows of text under one another.

use crate::screen::{Screen, Tone};
use serde_json::Value;

/// A longer cell is cut; `--json` has it whole.
const WIDEST: usize = 60;

/// Shows rows below their columns' names, for people only.
pub(crate) fn show(screen: &Screen, columns: &[&str], rows: &[Vec<String>]) {
    let cells = |row: &[String]| -> Vec<String> { row.iter().map(|cell| cut(cell)).collect() };
    let rows: Vec<_> = rows.iter().map(|row| cells(row)).collect();
    let mut widths: Vec<_> = columns.iter().map(|name| name.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[&str]| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    screen.text(&line(columns), Tone::Dim);
    for row in &rows {
        let row: Vec<_> = row.iter().map(String::as_str).collect();
        screen.text(&line(&row), Tone::Normal);
    }
}

/// Shows objects, whatever their members are.
pub(crate) fn show_objects(screen: &Screen, objects: &[Value]) {
    let mut columns: Vec<&str> = Vec::new();
    for name in objects.iter().filter_map(Value::as_object).flatten() {
        let name = name.0.as_str();
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    // Whose row it is comes first.
    columns.sort_by_key(|name| !name.eq_ignore_ascii_case("deviceId"));
    let cell = |object: &Value, name: &str| match object.get(name) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let row = |object| columns.iter().map(|name| cell(object, name)).collect();
    let rows: Vec<_> = objects.iter().map(row).collect();
    show(screen, &columns, &rows);
}

fn cut(cell: &str) -> String {
    match cell.char_indices().nth(WIDEST) {
        None => cell.to_owned(),
        Some(_) => cell.chars().take(WIDEST - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_cells_are_cut() {
        assert_eq!(super::cut("short"), "short");
        let cut = super::cut(&"ä".repeat(61));
        assert_eq!((cut.chars().count(), cut.ends_with("ä…")), (60, true));
    }
}
