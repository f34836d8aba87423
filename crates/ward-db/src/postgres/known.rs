//! The statements of one connection: what their texts say, and which are prepared.

use std::collections::HashMap;

use tokio_postgres::Statement;

use crate::value::Value;
use crate::{Error, Recorder, lex};

/// Statements kept prepared per connection. Texts put together at run time are few, but nothing else bounds them.
const STATEMENTS: usize = 1_024;

/// How many parameters the protocol can count.
const PARAMETERS: usize = u16::MAX as usize;

/// By their text.
pub(super) type Statements = HashMap<Box<str>, Known>;

/// What is known of a statement's text.
pub(super) struct Known {
    parameters: usize,
    pub(super) changes: bool,
    pub(super) prepared: Option<Statement>,
}

/// What is known of a statement's text, when its values are such as it can take.
pub(super) fn learn<'k>(
    known: &'k mut Statements,
    sql: &str,
    params: &[Value<'_>],
    recorder: Option<&Recorder>,
) -> Result<&'k mut Known, Error> {
    for (index, value) in params.iter().enumerate() {
        if let Value::Text(text) | Value::Json(text) = value
            && text.as_bytes().contains(&0)
        {
            return Err(Error::invalid(format!("parameter {} holds a NUL character", index + 1)));
        }
    }
    if params.len() > PARAMETERS {
        return Err(Error::invalid(format!("a statement has {PARAMETERS} parameters at most")));
    }
    if !known.contains_key(sql) {
        if let Some(recorder) = recorder {
            recorder.note(sql);
        }
        if lex::controls_transaction(sql) {
            return Err(Error::invalid("a closure does not begin or end transactions itself"));
        }
        if known.len() >= STATEMENTS {
            known.clear();
        }
        let entry = Known { parameters: lex::parameters(sql), changes: lex::changes(sql), prepared: None };
        known.insert(sql.into(), entry);
    }
    let entry = known.get_mut(sql).ok_or_else(|| Error::invalid("a statement was forgotten at once"))?;
    if entry.parameters != params.len() {
        return Err(Error::invalid(format!(
            "the statement has {} parameters, {} are given",
            entry.parameters,
            params.len()
        )));
    }
    Ok(entry)
}
