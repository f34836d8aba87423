//! Instances of request schemas, generated from a list of numbers, so that they shrink with the list.
//!
//! The schemas come from the document itself, so the tests cover a new operation as soon as it is declared.

use serde_json::{Map, Value, json};

/// The text of generated secrets. A test that finds it in an answer has found a leak.
pub const SECRET: &str = "S3CR3T";

/// The numbers that decide the generated values. After the last number all are zero.
pub struct Tape<'t> {
    numbers: &'t [u32],
    at: usize,
}

impl<'t> Tape<'t> {
    pub fn new(numbers: &'t [u32]) -> Self {
        Self { numbers, at: 0 }
    }

    pub fn below(&mut self, most: usize) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        number as usize % most
    }

    fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == odds - 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

pub fn document() -> Value {
    serde_json::from_str(include_str!("../../../../contract/openapi.json")).unwrap()
}

/// The schema of the body that an operation accepts.
pub fn body_schema<'d>(document: &'d Value, path: &str, method: &str) -> &'d Value {
    &document["paths"][path][method.to_lowercase()]["requestBody"]["content"]["application/json"]["schema"]
}

/// A schema without its references, and whether null is valid too.
pub fn plain<'d>(document: &'d Value, schema: &'d Value) -> (&'d Value, bool) {
    let (mut schema, mut nullable) = (schema, false);
    loop {
        if let Some(target) = schema["$ref"].as_str() {
            schema = document.pointer(&target[1..]).unwrap();
        } else if let Some(first) = schema["anyOf"].get(0) {
            (schema, nullable) = (first, true);
        } else {
            return (schema, nullable);
        }
    }
}

/// A generated instance: one in `odds` of its parts has another type or is out of bounds. Values that the reference
/// coerces or trims are not generated, because there `jsonschema` and Ward differ on purpose.
pub fn instance(document: &Value, schema: &Value, tape: &mut Tape<'_>, odds: usize) -> Value {
    let (schema, nullable) = plain(document, schema);
    if nullable && tape.one_in(4) {
        return Value::Null;
    }
    let wrong = tape.one_in(odds);
    if let Some(values) = schema["enum"].as_array() {
        return if wrong { stranger(tape) } else { tape.pick(values) };
    }
    match schema["type"].as_str() {
        Some("string") => string(schema, tape, wrong),
        Some("integer") => whole(schema, tape, wrong),
        Some("number") if wrong => tape.pick(&[json!(-0.5), json!("x"), json!([]), json!(864_000.5)]),
        Some("number") => tape.pick(&[json!(0.5), json!(1), json!(0), json!(864_000), json!(12.25)]),
        Some("boolean") if wrong => tape.pick(&[json!("x"), json!([]), json!({}), json!(7), json!(2.5)]),
        Some("boolean") => tape.pick(&[json!(true), json!(false)]),
        Some("array") => {
            let most = schema["maxItems"].as_u64().map_or(3, |most| usize::try_from(most).unwrap());
            if wrong && tape.one_in(2) {
                return stranger(tape);
            }
            let length = if wrong { most + 1 } else { tape.below(4).min(most) };
            (0..length).map(|_| instance(document, &schema["items"], tape, odds)).collect()
        }
        Some("object") if wrong => stranger(tape),
        Some("object") => object(document, schema, tape, odds),
        _ => tape.pick(&[json!(null), json!(1), json!("x"), json!([{ "a": [1, "b"] }]), json!({ "a": {} })]),
    }
}

fn object(document: &Value, schema: &Value, tape: &mut Tape<'_>, odds: usize) -> Value {
    let mut fields = Map::new();
    let required = schema["required"].as_array();
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        let must = required.is_some_and(|required| required.iter().any(|one| one == name));
        if if must { !tape.one_in(odds) } else { tape.one_in(3) } {
            fields.insert(name.clone(), instance(document, part, tape, odds));
        }
    }
    let more = &schema["additionalProperties"];
    if more.is_object() || more == &Value::Bool(true) {
        for _ in 0..tape.below(3) {
            let name = tape.pick(&["a", "x-key", "é", ""]);
            fields.insert(name.to_owned(), instance(document, more, tape, odds));
        }
    } else if tape.one_in(6) {
        fields.insert("undeclared".to_owned(), json!([1, { "b": null }]));
    }
    if tape.one_in(4) {
        fields = fields.into_iter().rev().collect();
    }
    Value::Object(fields)
}

/// A value that no scalar schema of the document accepts. Only objects or lists would accept it as an item.
fn stranger(tape: &mut Tape<'_>) -> Value {
    tape.pick(&[json!(7.5), json!(-3), json!("?"), json!(false), json!(12_345_678_901_234_567_890_u64)])
}

fn whole(schema: &Value, tape: &mut Tape<'_>, wrong: bool) -> Value {
    let least = schema["minimum"].as_f64().map_or(-5, |least| format!("{least:.0}").parse().unwrap());
    let most = schema["maximum"].as_f64().map_or(least + 500, |most| format!("{most:.0}").parse().unwrap());
    let bounded = |keyword: &str| !schema[keyword].is_null();
    if !wrong {
        return json!(tape.pick(&[least, most, least + 1, i64::midpoint(least, most)]));
    }
    let mut choices = vec![json!("x"), json!([]), json!({}), json!(1.5), json!("1.5"), json!("")];
    choices.extend(bounded("minimum").then(|| json!(least - 1)));
    choices.extend(bounded("maximum").then(|| json!(most + 1)));
    tape.pick(&choices)
}

fn string(schema: &Value, tape: &mut Tape<'_>, wrong: bool) -> Value {
    if schema["x-secret"] == true {
        let length = if wrong { 300 } else { 2 };
        return if wrong && tape.one_in(2) { json!([SECRET]) } else { json!(SECRET.repeat(length)) };
    }
    if wrong && tape.one_in(2) {
        return tape.pick(&[json!(7), json!(true), json!([]), json!({}), json!(1.5)]);
    }
    match schema["format"].as_str() {
        Some("uuid") if wrong => return json!("not-a-uuid"),
        Some("uuid") => return json!("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
        Some("date-time") if wrong => return tape.pick(&[json!("yesterday"), json!("2026-02-30T00:00:00Z")]),
        Some("date-time") => {
            return tape.pick(&[json!("2026-04-18T12:00:00Z"), json!("2026-04-18T12:00:00.5+02:00")]);
        }
        _ => {}
    }
    let bound = |keyword: &str| schema[keyword].as_u64().map(|bound| usize::try_from(bound).unwrap());
    let mut choices: Vec<String> = [
        "a",
        "ab",
        "acme-health",
        "a@b.example",
        "+15550100001",
        "member",
        "/notes",
        "é🏥",
        "https://ehr.example",
        "A_b",
        "-x",
        "x y",
        "AC00000000000000000000000000000000",
        "Workspace.view",
        "Communication/1",
    ]
    .map(str::to_owned)
    .to_vec();
    choices.extend(bound("maxLength").into_iter().flat_map(|most| ["a".repeat(most), "é".repeat(most + 1)]));
    choices.extend(bound("minLength").map(|least| "b".repeat(least.saturating_sub(1))));
    json!(tape.pick(&choices))
}
