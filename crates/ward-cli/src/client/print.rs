//! Answers in print: tables for people, JSON for scripts.

use std::io::Write as _;

use serde_json::{Map, Value};

use super::wire::{Answered, AnsweredBody, causes, exit};
use crate::failure::{CodedFailure, Failure};
use crate::show::{self, Output};

/// The fields of a page that are about the page and not about its entries.
const OF_PAGES: [&str; 6] = ["has_more", "continuation_token", "total", "limit", "offset", "next_offset"];

pub struct Page<'a> {
    pub items: &'a [Value],
    /// The value of the query parameter for the next page; `None` at the end.
    pub next: Option<String>,
}

impl<'a> Page<'a> {
    /// The page that an answer is, or contains one level deep.
    pub fn of(answer: &'a Value) -> Option<Self> {
        let inside = answer.as_object()?.values().filter(|value| value.is_object());
        let page = std::iter::once(answer).chain(inside).find(|value| value.get("has_more").is_some())?;
        let items = page.as_object()?.values().find_map(Value::as_array)?;
        let next = page.get("continuation_token").or_else(|| page.get("next_offset"));
        let next = next.filter(|next| page["has_more"] == true && !next.is_null());
        Some(Self { items, next: next.map(|next| next.to_string().trim_matches('"').to_owned()) })
    }
}

/// Prints the body of a success: JSON as a table or as it is, and everything else byte for byte.
pub async fn answer(answered: Answered, out: Output) -> Result<(), Failure> {
    if let AnsweredBody::Stream(mut response) = answered.body {
        let cut = |error: &reqwest::Error| CodedFailure {
            exit: exit::NO_ANSWER,
            code: "no_answer".to_owned(),
            message: "the answer ended early".to_owned(),
            because: vec![causes(error)],
        };
        let mut stdout = std::io::stdout();
        while let Some(part) = response.chunk().await.map_err(|error| cut(&error))? {
            stdout.write_all(&part)?;
        }
        return Ok(stdout.flush()?);
    }
    let body = answered.json();
    if body.is_null() {
        if !out.is_json() {
            out.remark("Done.");
        }
        return Ok(());
    }
    value(&body, out)?;
    if let Some(Page { next: Some(next), .. }) = Page::of(&body) {
        let name = if body.get("next_offset").is_some() { "offset" } else { "continuation_token" };
        out.remark(&format!("There are more entries: {name}={next} continues, and --all prints all."));
    }
    Ok(())
}

/// Prints a value: with `--json` as it is, otherwise its plain fields and then each of its lists as a table.
pub fn value(value: &Value, out: Output) -> Result<(), Failure> {
    let Value::Object(fields) = value else {
        return match value {
            Value::Array(rows) if !out.is_json() => list(rows, out),
            other => {
                show::line(&serde_json::to_string_pretty(other)?);
                Ok(())
            }
        };
    };
    if out.is_json() {
        return Ok(out.one(value)?);
    }
    let page = fields.contains_key("has_more");
    let lists: Vec<(&String, &Vec<Value>)> =
        fields.iter().filter_map(|(name, value)| Some((name, rows(value)?))).collect();
    let mut plain = Map::new();
    for (name, value) in fields.iter().filter(|(_, value)| rows(value).is_none()) {
        if !(page && OF_PAGES.contains(&name.as_str())) {
            flatten(name, value, &mut plain);
        }
    }
    if !plain.is_empty() {
        out.one(&plain)?;
    }
    for (name, rows) in &lists {
        if lists.len() > 1 || !plain.is_empty() {
            show::line(&format!("\n{}", name.to_uppercase().replace('_', " ")));
        }
        list(rows, out)?;
    }
    Ok(())
}

/// The objects of a value that is a list of objects.
fn rows(value: &Value) -> Option<&Vec<Value>> {
    value.as_array().filter(|items| items.iter().all(Value::is_object))
}

/// Adds a value under its name, and the fields of an object under `name.field`.
fn flatten(name: &str, value: &Value, into: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (inner, value) in fields {
                flatten(&format!("{name}.{inner}"), value, into);
            }
        }
        other => drop(into.insert(name.to_owned(), other.clone())),
    }
}

/// Prints objects as a table. A field that no object has a plain value for has no column.
pub fn list(rows: &[Value], out: Output) -> Result<(), Failure> {
    let mut columns: Vec<&str> = Vec::new();
    for (name, value) in rows.iter().filter_map(Value::as_object).flatten() {
        let empty = value.is_null() || value.is_object() || value.as_array().is_some_and(Vec::is_empty);
        if !empty && self::rows(value).is_none() && !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    if rows.is_empty() {
        out.remark("There are no entries.");
        return Ok(());
    }
    Ok(out.many(&rows, &columns)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pages_are_found_with_the_way_to_the_next() {
        let next = |answer: &Value| Page::of(answer).map(|page| (page.items.len(), page.next));
        let list = json!({ "items": [{}, {}], "has_more": true, "continuation_token": 7, "total": 9 });
        assert_eq!(next(&list), Some((2, Some("7".to_owned()))));
        let last = json!({ "items": [{}], "has_more": false, "continuation_token": null });
        assert_eq!(next(&last), Some((1, None)));
        let events = json!({ "events": [], "total": 9, "has_more": true, "next_offset": 50 });
        assert_eq!(next(&events), Some((0, Some("50".to_owned()))));
        let inside = json!({ "kind": "user", "credential": {}, "memberships": list });
        assert_eq!(next(&inside), Some((2, Some("7".to_owned()))));
        assert_eq!(next(&json!({ "exports": [] })), None);
    }
}
