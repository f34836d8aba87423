//! The statements of one connection: the facts from their texts, and the prepared ones.

use std::collections::HashMap;

use tokio_postgres::Statement;

use crate::value::Value;
use crate::{Error, Recorder, lex};

/// The maximum number of statements kept per connection. Texts built at run time are few, but nothing else
/// limits them.
const STATEMENTS: usize = 1_024;

/// The maximum number of parameters that the protocol can count.
const PARAMETERS: usize = u16::MAX as usize;

/// The known statements, by their text.
pub(super) type Statements = HashMap<Box<str>, StatementFacts>;

/// The facts about a statement's text.
pub(super) struct StatementFacts {
    parameters: usize,
    pub(super) changes: bool,
    pub(super) prepared: Option<Statement>,
}

/// Looks up or derives the facts about a statement's text, and checks the values against them.
pub(super) fn learn<'k>(
    known: &'k mut Statements,
    sql: &str,
    params: &[Value<'_>],
    recorder: Option<&Recorder>,
) -> Result<&'k mut StatementFacts, Error> {
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
            return Err(Error::invalid("a closure must not begin or end transactions itself"));
        }
        if known.len() >= STATEMENTS {
            known.clear();
        }
        let entry =
            StatementFacts { parameters: lex::parameters(sql), changes: lex::changes(sql), prepared: None };
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
