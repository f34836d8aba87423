//! How results look: tables for people, JSON for scripts.

use std::error::Error;
use std::io::Write as _;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};
use ward::config::InForce;

/// Prints `text` and a line end. Who closed the pipe has read enough: that is no error.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a failure and what caused it. Some errors tell their cause themselves; it is not told twice.
pub fn failure(failure: &(dyn Error + 'static)) {
    let mut stderr = std::io::stderr();
    let mut told = failure.to_string();
    let _ = writeln!(stderr, "ward: {told}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            let _ = writeln!(stderr, "  because {text}");
            told = text;
        }
        cause = error.source();
    }
}

/// Prints a remark that is not the result.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints one thing: a field a line.
pub fn one(thing: &impl Serialize, json: bool) -> Result<(), serde_json::Error> {
    let value = serde_json::to_value(thing)?;
    if json {
        line(&serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in value.as_object().unwrap_or(&Map::new()) {
        table.add_row([name.clone(), cell(value)]);
    }
    line(&table.trim_fmt());
    Ok(())
}

/// Prints many things: a thing a line, with these fields.
pub fn many(things: &impl Serialize, columns: &[&str], json: bool) -> Result<(), serde_json::Error> {
    let value = serde_json::to_value(things)?;
    if json {
        line(&serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|column| column.to_uppercase()));
    for row in value.as_array().into_iter().flatten() {
        table.add_row(columns.iter().map(|column| row.get(column).map(cell).unwrap_or_default()));
    }
    line(&table.trim_fmt());
    Ok(())
}

/// A bar on a terminal that shows how far long work is; elsewhere nothing.
pub struct Bar(ProgressBar);

impl Bar {
    /// One that nothing has moved yet.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Shows that `done` of `total` are done, and with what it goes on.
    pub fn at(&self, done: u64, total: u64, doing: &str) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(doing.to_owned());
    }

    /// Takes it away.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

/// Prints the settings in force.
pub fn settings(in_force: &[InForce], json: bool) {
    let rows: Vec<Value> = in_force
        .iter()
        .map(|setting| json!({"setting": setting.key, "value": setting.value, "from": setting.source.to_string()}))
        .collect();
    // Rows of texts always make JSON.
    let _ = many(&rows, &["setting", "value", "from"], json);
}

/// A value as a person reads it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
