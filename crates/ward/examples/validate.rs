//! Asks the validators without a server: one request per line in, one verdict per line out, both JSON.
//!
//! In: `{"operation", "query"?, "content_type"?, "body"?}`, the body in base64. Out: `{"status": 200, "accepted"}`,
//! `{"status": 422, "detail"}` or `{"status": 400}`. `scripts/validation-differential` feeds it.

use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use ward_contract::Contract;
use ward_contract::validate::{self, BodyRefused, Problem, Problems};

#[derive(Serialize)]
struct Verdict {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<Value>,
    // Not through `Value`: numbers are to come out digit for digit.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<Vec<Problem>>,
}

impl From<Vec<Problem>> for Verdict {
    fn from(problems: Vec<Problem>) -> Self {
        Self { status: 422, accepted: None, detail: Some(problems) }
    }
}

impl From<Problems> for Verdict {
    fn from(problems: Problems) -> Self {
        problems.into_answer().into()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let contract = ward::contract::load(&[])?;
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line?)?;
        let verdict = judge(&contract, &asked)?.unwrap_or_else(|refused| refused);
        serde_json::to_writer(&mut out, &verdict)?;
        writeln!(out)?;
    }
    Ok(())
}

fn judge(contract: &Contract, asked: &Value) -> Result<Result<Verdict, Verdict>, Box<dyn Error>> {
    let operation =
        asked["operation"].as_str().and_then(|id| contract.operation(id)).ok_or("no such operation")?;
    let body = STANDARD.decode(asked["body"].as_str().unwrap_or_default())?;
    Ok((|| {
        let parsed = match validate::parse(asked["content_type"].as_str(), &body, 128) {
            Ok(parsed) => parsed,
            Err(BodyRefused::NotUtf8) => return Err(Verdict { status: 400, accepted: None, detail: None }),
            Err(BodyRefused::Problems(problems)) => return Err(problems.into()),
        };
        let query = validate::query(operation, asked["query"].as_str())?;
        let body = validate::body(operation, &parsed)?.value;
        Ok(Verdict { status: 200, accepted: Some(json!({ "query": query, "body": body })), detail: None })
    })())
}
