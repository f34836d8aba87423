//! The cost of the worst bodies and queries: counted work, and the size of the answer.
//!
//! The bodies are built from the document, so the tests cover a new operation as soon as it is declared.
//! They count work ([`super::work`]) and do not measure time.

use bytes::Bytes;
use serde_json::{Value, json};

use super::work::spent_by;
use super::*;
use crate::{Contract, Operation, Rule, RuleProblem};

const KIB: usize = 1024;
const SIZES: [usize; 3] = [16 * KIB, 64 * KIB, 256 * KIB];
/// The work per byte that is still linear: each byte is read, measured, shown and counted a few times.
const WORK_PER_BYTE: usize = 24;
/// The work that does not depend on the body's size: an answer of full length, shown and measured.
const WORK_OF_AN_ANSWER: usize = 4 * LONGEST_ANSWER;

fn document() -> Value {
    serde_json::from_str(include_str!("../../../../contract/openapi.json")).unwrap()
}

/// A step from a value to one of its parts.
#[derive(Clone)]
enum Step {
    Field(String),
    Item,
    Entry,
}

fn plain<'d>(document: &'d Value, mut schema: &'d Value) -> &'d Value {
    loop {
        if let Some(target) = schema["$ref"].as_str() {
            schema = document.pointer(&target[1..]).unwrap();
        } else if let Some(first) = schema["anyOf"].get(0) {
            schema = first;
        } else {
            return schema;
        }
    }
}

/// Every place in a schema, with the schema that is declared there.
fn places<'d>(document: &'d Value, schema: &'d Value, way: &[Step], found: &mut Vec<(Vec<Step>, &'d Value)>) {
    let schema = plain(document, schema);
    found.push((way.to_vec(), schema));
    let mut below = |step: Step, part: &'d Value| {
        let way: Vec<Step> = way.iter().cloned().chain([step]).collect();
        places(document, part, &way, found);
    };
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        below(Step::Field(name.clone()), part);
    }
    if schema["items"].is_object() {
        below(Step::Item, &schema["items"]);
    }
    if schema["additionalProperties"].is_object() {
        below(Step::Entry, &schema["additionalProperties"]);
    }
}

/// A small value that the schema accepts, as far as the schema alone decides it.
fn least(document: &Value, schema: &Value) -> Value {
    let schema = plain(document, schema);
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("string") => json!("Call.view"),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), least(document, &schema["properties"][name]))).collect()
        }
        _ => Value::Null,
    }
}

/// A JSON text with `inner` at `way`. The fields at the top come from the example, and all others are
/// absent.
fn embedded(way: &[Step], inner: String, example: &Value) -> String {
    let mut text = inner;
    for (depth, step) in way.iter().enumerate().rev() {
        text = match step {
            Step::Item => format!("[{text}]"),
            Step::Entry => format!("{{\"k\":{text}}}"),
            Step::Field(name) => {
                let siblings = example.as_object().into_iter().flatten().filter(|_| depth == 0);
                let mut fields: Vec<String> = siblings
                    .filter(|(sibling, _)| *sibling != name)
                    .map(|(sibling, value)| format!("{}:{value}", json!(sibling)))
                    .collect();
                fields.push(format!("{}:{text}", json!(name)));
                format!("{{{}}}", fields.join(","))
            }
        };
    }
    text
}

fn list(item: &str, size: usize) -> String {
    let count = size / (item.len() + 1);
    format!("[{}]", vec![item; count.max(1)].join(","))
}

fn map(entry: impl Fn(usize) -> String, size: usize) -> String {
    let mut text = String::from("{");
    for index in 0.. {
        if text.len() >= size {
            break;
        }
        if index > 0 {
            text.push(',');
        }
        text.push_str(&entry(index));
    }
    text + "}"
}

/// A value nested `depth` deep under names of `name` characters, with a NUL at its end.
fn deep(depth: usize, name: usize) -> String {
    let open = format!("{{\"{}\":", "n".repeat(name));
    format!("{}\"\\u0000\"{}", open.repeat(depth), "}".repeat(depth))
}

/// Values of about `size` bytes that are wrong in every way that costs work.
fn fillers(item: &Value, size: usize) -> Vec<String> {
    let item = item.to_string();
    let text = |unit: &str| format!("\"{}\"", unit.repeat(size / unit.len()));
    let mut fillers: Vec<String> =
        ["1", "{}", "[]", "null", "\"x\"", "\"\"", "\"a b\"", "\"\\u0000\"", "1e400", &item]
            .iter()
            .map(|item| list(item, size))
            .collect();
    fillers.extend([
        list(&format!("\"{}\"", "\\u0001".repeat(600)), size),
        list(&"7".repeat(5_000), size),
        list(&"[".repeat(100).chars().chain("]".repeat(100).chars()).collect::<String>(), size),
        list(&deep(100, 1), size),
        list(&deep(60, 1_000), size),
        map(|index| format!("\"k{index}\":1"), size),
        map(|index| format!("\"k{index}\":\"x\""), size),
        map(|index| format!("\"a b{index}\":\"x\""), size),
        map(|index| format!("\"\\u0000{index}\":\"\\u0000\""), size),
        map(|index| format!("\"{}{index}\":null", "\\u0001".repeat(300)), size),
        map(|_| "\"name\":[1,{}]".to_owned(), size),
        text("a"),
        text("\\u0001"),
        text("\\u0000"),
        text("\\\""),
        text("é"),
        "9".repeat(size),
        format!("1{}", "0".repeat(size)),
        format!("0.{}", "0".repeat(size)),
        format!("\"{}\"", "1_0".repeat(size / 3)),
    ]);
    fillers
}

/// Parses and validates a body like that of a request, and returns the problems of the answer.
fn answer(operation: &Operation, text: &str) -> Option<Vec<Problem>> {
    let problems = match parse(Some("application/json"), text.as_bytes(), 128) {
        Ok(parsed) => body(operation, &parsed).err()?.into_answer(),
        Err(BodyRefused::Problems(problems)) => Problems::from(problems).into_answer(),
        Err(BodyRefused::NotUtf8) => return None,
    };
    Some(problems)
}

/// Validates a body, asserts that the cost fits the body's size, and returns the cost.
fn check(what: &str, operation: &Operation, text: &str) -> usize {
    let (problems, mut spent) = spent_by(|| answer(operation, text));
    let start: String = text.chars().take(60).collect();
    let most = WORK_PER_BYTE * text.len() + WORK_OF_AN_ANSWER;
    assert!(spent <= most, "{what}: {} bytes cost {spent}, more than {most}: {start}", text.len());
    if let Some(problems) = problems {
        let said = serde_json::to_string(&json!({ "detail": problems })).unwrap();
        assert!(said.len() <= LONGEST_ANSWER, "{what}: answered {} bytes to {start}", said.len());
        spent += said.len();
        assert!(problems.len() <= MOST_LISTED + 1, "{what}: {} problems", problems.len());
        let last = problems.last().unwrap();
        assert_eq!(
            problems.len() > MOST_LISTED,
            problems.len() == MOST_LISTED + 1 && last.kind == "too_many_problems"
        );
    }
    spent
}

/// Tries every place of every request schema with every filler at 1 KiB. The two costliest bodies of each
/// operation are tried again at 16, 64 and 256 KiB.
#[test]
fn the_worst_bodies_of_every_operation_cost_no_more_than_their_size() {
    let document = document();
    let contract = contract(&document);
    let mut checked = 0;
    for operation in contract.operations().filter(|operation| operation.body.is_some()) {
        let declared = &document["paths"][&operation.path][operation.method.as_str().to_lowercase()];
        let schema = &declared["requestBody"]["content"]["application/json"]["schema"];
        let mut found = Vec::new();
        places(&document, schema, &[], &mut found);
        let made = |place: usize, size: usize| {
            let (way, schema) = &found[place];
            let fillers = fillers(&least(&document, &schema["items"]), size);
            fillers.into_iter().map(|text| embedded(way, text, &declared["x-example"])).collect::<Vec<_>>()
        };
        checked += cost_of_the_worst(operation, &operation.id, found.len(), made);
    }
    assert!(checked > 1_000, "only {checked} bodies");
}

/// Validates all bodies at 1 KiB, then the costliest ones at every size. The result is the number of
/// bodies.
fn cost_of_the_worst(
    operation: &Operation,
    what: &str,
    places: usize,
    made: impl Fn(usize, usize) -> Vec<String>,
) -> usize {
    let mut costs = Vec::new();
    for place in 0..places {
        for (filler, text) in made(place, KIB).into_iter().enumerate() {
            costs.push((check(what, operation, &text) * KIB / text.len(), place, filler));
        }
    }
    costs.sort_unstable_by(|one, other| other.cmp(one));
    for (_, place, filler) in costs.iter().take(2) {
        let mut smaller = None;
        for size in SIZES {
            let spent = check(what, operation, &made(*place, size)[*filler]);
            let growth = smaller.is_none_or(|smaller| spent <= 5 * smaller + WORK_OF_AN_ANSWER);
            assert!(growth, "{what}: {size} bytes cost {spent}, a quarter of them {smaller:?}");
            smaller = Some(spent);
        }
    }
    costs.len()
}

/// A rule that refuses a value and each of its direct parts.
fn each(value: &Value) -> Vec<RuleProblem> {
    let wrong = |at: Vec<Loc>| RuleProblem { at, message: "is wrong".to_owned() };
    match value {
        Value::Array(items) => (0..items.len()).map(|index| wrong(vec![index.into()])).collect(),
        Value::Object(fields) => fields.keys().map(|key| wrong(vec![key.clone().into()])).collect(),
        _ => vec![RuleProblem::here("is wrong")],
    }
}

/// The contract of a document, with a rule that refuses every value on each named schema of a request.
fn contract(document: &Value) -> Contract {
    let read = |rules: &[(&str, Rule)]| Contract::read(document, Bytes::new(), &[], rules);
    let names = document["components"]["schemas"].as_object().unwrap().keys();
    let pointers: Vec<String> = names.map(|name| format!("#/components/schemas/{name}")).collect();
    let rules: Vec<(&str, Rule)> = pointers.iter().map(|pointer| (pointer.as_str(), each as Rule)).collect();
    // A pointer that leads to no request schema is refused.
    let rules: Vec<_> = rules.into_iter().filter(|rule| read(&[*rule]).is_ok()).collect();
    assert!(rules.len() > 10, "{} rules", rules.len());
    read(&rules).unwrap()
}

/// The walk itself is linear for every schema and every rule. The document's bounds do not help here.
#[test]
fn unbounded_schemas_and_rules_that_refuse_everything_cost_no_more_than_the_body() {
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": text});
    let dict = json!({"type": "object", "additionalProperties": text});
    let model = json!({"type": "object", "required": ["a", "b", "c"], "properties": {
        "a": text, "b": text, "c": texts, "s": {"type": "string", "x-secret": true}}});
    let rules: &[(&str, Rule)] = &[("#/schema", each)];
    for (schema, rules) in [
        (texts, rules),
        (dict, rules),
        (json!({"type": "array", "items": model}), &[][..]),
        (json!({"type": "object", "additionalProperties": model}), &[][..]),
        (model, rules),
        (json!({}), &[][..]),
    ] {
        let document = json!({"paths": {"/": {"post": {
            "operationId": "do", "security": [], "responses": {},
            "requestBody": {"required": true, "content": {"application/json": {"schema": {"$ref": "#/schema"}}}}
        }}}, "schema": schema});
        let operation = Contract::operations_of(&document, rules).unwrap().remove(0);
        let made = |_: usize, size: usize| fillers(&json!({"a": "x", "b": 1}), size);
        cost_of_the_worst(&operation, &schema.to_string(), 1, made);
    }
}

#[test]
fn a_query_of_thousands_of_parameters_is_read_once() {
    let contract = contract(&document());
    for operation in contract.operations().filter(|operation| !operation.query.is_empty()) {
        let names = operation.query.iter().map(|parameter| parameter.name.as_str());
        for name in names.chain(["unknown"]) {
            for value in ["%00", "%01%01x"] {
                let query = |size: usize| vec![format!("{name}={value}"); size / 4].join("&");
                let long = format!("{name}={}", value.repeat(16 * KIB));
                for query in [4 * KIB, SIZES[1]].map(query).iter().chain([&long]) {
                    let (problems, spent) = spent_by(|| super::query(operation, Some(query)).err());
                    let most = WORK_PER_BYTE * query.len() + WORK_OF_AN_ANSWER;
                    assert!(spent <= most, "{}: {} bytes cost {spent}", operation.id, query.len());
                    let said = serde_json::to_vec(&problems.map(Problems::into_answer)).unwrap();
                    assert!(said.len() <= LONGEST_ANSWER, "{}: answered {} bytes", operation.id, said.len());
                }
            }
        }
    }
}

fn first(schema: &Value, sent: &str) -> Value {
    let document = json!({"paths": {"/": {"post": {
        "operationId": "do", "security": [], "responses": {},
        "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}}
    }}}});
    let operation = Contract::operations_of(&document, &[]).unwrap().remove(0);
    serde_json::to_value(answer(&operation, sent).unwrap()).unwrap()
}

#[test]
fn an_echo_is_cut_at_four_kibibytes_and_says_how_much_is_missing() {
    let integer = json!({"type": "integer"});
    let echo = |sent: &str| first(&integer, sent)[0]["input"].clone();
    assert_eq!(echo(&format!("\"{}\"", "a".repeat(4096))), json!("a".repeat(4096)));
    assert_eq!(
        echo(&format!("\"{}\"", "a".repeat(5000))),
        json!(format!("{}…(+904 bytes)", "a".repeat(4096)))
    );
    let control = echo(&format!("\"{}\"", "\\u0001".repeat(5000)));
    assert_eq!(control, json!(format!("{}…(+4318 bytes)", "\u{1}".repeat(682))), "cut by its length as JSON");
    let numbers = echo(&format!("[{}]", vec!["1"; 3000].join(",")));
    assert_eq!(
        numbers,
        json!(format!("[{}1…(+1905 bytes)", "1,".repeat(2047))),
        "a list is cut as JSON text"
    );
    assert_eq!(echo("[1,2]"), json!([1, 2]));
    for long in ["9".repeat(5000), "1e400".to_owned(), "9".repeat(400)] {
        let said = first(&json!({"type": "string"}), &long);
        assert!(said[0]["input"].is_string(), "common parsers refuse {long}");
    }
}

#[test]
fn secrets_stay_masked_where_an_echo_is_cut() {
    let secret = json!({"type": "object", "required": ["big", "x"], "properties": {"x": {"type": "string"},
        "big": {"type": "string"}, "token": {"type": "string", "x-secret": true}}});
    let sent = json!({"token": "hunter2", "big": "b".repeat(5000), "more": {"token": "shown"}});
    let said = first(&secret, &sent.to_string()).to_string();
    assert!(said.contains("**********") && said.contains("bytes)") && !said.contains("hunter2"), "{said}");
    let said = first(&secret, &json!([sent]).to_string());
    assert_eq!(said[0]["input"], "**********");
}

#[test]
fn a_long_name_and_a_long_way_are_cut_in_the_loc() {
    let dict = json!({"type": "object", "additionalProperties": {"type": "integer"}});
    let said = first(&dict, &format!("{{\"{}\":\"x\"}}", "k".repeat(9_000)));
    assert_eq!(said[0]["loc"][1], json!(format!("{}…(+8744 bytes)", "k".repeat(256))));
    let said = first(&json!({}), &deep(100, 50));
    let loc = said[0]["loc"].as_array().unwrap();
    assert!(loc.len() < 30 && loc.last().unwrap().as_str().unwrap().ends_with("steps)"), "{loc:?}");
}

#[test]
fn an_answer_lists_a_hundred_problems_and_counts_the_others() {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let listed = first(&texts, &list("1", 200));
    assert_eq!(listed.as_array().unwrap().len(), 100, "as many as there are");
    let said = first(&texts, &list("1", 400));
    assert_eq!(said.as_array().unwrap().len(), 101);
    assert_eq!(said[99]["loc"], json!(["body", 99]));
    let more = json!({"type": "too_many_problems", "loc": ["body"], "msg": "100 more problems are not listed",
                      "input": null, "ctx": {"listed": 100, "more": 100}});
    assert_eq!(said[100], more);
}
