//! The output of results: tables for people, JSON for scripts.

use std::error::Error;
use std::io::Write as _;

use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};
use ward::config::EffectiveSetting;
use ward::operator::OperatorPage;

/// Prints `text` and a line end. A closed pipe is not an error: its reader has read enough.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The output of a command: tables and sentences for people, JSON for scripts.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    pub const fn is_json(self) -> bool {
        self.json
    }

    /// Prints a failure and its causes on standard error. A cause that the failure's own text contains is not
    /// repeated.
    pub fn failure(self, failure: &(dyn Error + 'static), code: &str) {
        let mut because = Vec::new();
        let mut told = failure.to_string();
        let mut cause = failure.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !told.contains(&text) {
                because.push(text.clone());
                told = text;
            }
            cause = error.source();
        }
        self.error(&failure.to_string(), code, &because);
    }

    /// Prints an error with its causes on standard error; with `--json` as one object on one line.
    pub fn error(self, message: &str, code: &str, because: &[String]) {
        let mut stderr = std::io::stderr();
        if self.json {
            let error = json!({ "error": { "code": code, "message": message, "because": because } });
            let _ = writeln!(stderr, "{error}");
            return;
        }
        let _ = writeln!(stderr, "ward: {message}");
        for cause in because {
            let _ = writeln!(stderr, "  because {cause}");
        }
    }

    /// Prints a remark on standard error, apart from the result.
    pub fn remark(self, text: &str) {
        let mut stderr = std::io::stderr();
        let _ = if self.json {
            writeln!(stderr, "{}", json!({ "remark": text }))
        } else {
            writeln!(stderr, "{text}")
        };
    }

    /// Prints one object, with one field per line.
    pub fn one(self, thing: &impl Serialize) -> Result<(), serde_json::Error> {
        let value = serde_json::to_value(thing)?;
        if self.json {
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

    /// Prints a list of objects with these fields, one object per line.
    pub fn many(self, things: &impl Serialize, columns: &[&str]) -> Result<(), serde_json::Error> {
        let value = serde_json::to_value(things)?;
        if self.json {
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

    /// Prints a page of a list, and how to get the next one.
    pub fn page<T: Serialize>(
        self,
        page: &OperatorPage<T>,
        columns: &[&str],
    ) -> Result<(), serde_json::Error> {
        if self.json {
            return self.one(page);
        }
        self.many(&page.items, columns)?;
        if let Some(next) = page.next {
            self.remark(&format!("There are more entries: --after {next} continues."));
        }
        Ok(())
    }

    /// Prints the effective settings with their sources.
    pub fn settings(self, in_force: &[EffectiveSetting]) -> Result<(), serde_json::Error> {
        let rows: Vec<Value> = in_force
            .iter()
            .map(|setting| {
                let source = setting.source.to_string();
                json!({ "setting": setting.key, "value": setting.value, "means": setting.means, "from": source })
            })
            .collect();
        self.many(&rows, &["setting", "value", "means", "from"])
    }
}

/// A progress bar on a terminal; on other outputs it prints nothing.
pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Shows that `done` of `total` are done, and the current work.
    pub fn at(&self, done: u64, total: u64, doing: &str) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(doing.to_owned());
    }

    /// Removes the bar from the terminal.
    pub fn done(&self) {
        self.0.finish_and_clear();
    }
}

/// The text of a value in a table: a dash for null, and the items of an array with spaces between.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        // Text of another system must not control this terminal.
        Value::String(text) => text.replace(char::is_control, "\u{fffd}"),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
