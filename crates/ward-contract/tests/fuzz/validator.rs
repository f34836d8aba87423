//! The contract validator, compared with `jsonschema` and with the guarantees on its errors.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use ward_contract::validate::{self, Json, Loc, ParsedBody, Problem};
use ward_contract::{Contract, Operation, Rule, RuleProblem};

use crate::instances::{SECRET, Tape, body_schema, document, instance, plain};

/// Rules like those of a product: one on a text that many schemas share, one on a secret, and one on whole objects.
const RULES: &[(&str, Rule)] = &[
    ("#/components/schemas/StrippedNonemptyString", not_odd),
    ("#/components/schemas/SecretInput/properties/value", not_odd),
    ("#/components/schemas/EndpointConfigWithSecrets", not_four_fields),
];

fn not_odd(value: &Value) -> Vec<RuleProblem> {
    let odd = value.as_str().is_some_and(|text| text.len() % 2 == 1);
    if odd { vec![RuleProblem::here("has an odd length")] } else { Vec::new() }
}

fn not_four_fields(value: &Value) -> Vec<RuleProblem> {
    let four =
        value.as_object().is_some_and(|fields| fields.values().filter(|it| !it.is_null()).count() == 4);
    if four { vec![RuleProblem::here("has four fields")] } else { Vec::new() }
}

fn contract(rules: &[(&str, Rule)]) -> Contract {
    Contract::read(&document(), Bytes::new(), &[], rules).unwrap()
}

fn tape() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u32>(), 0..160)
}

fn judge(operation: &Operation, given: &Value) -> Result<Value, Vec<Problem>> {
    // The value is serialized, because requests arrive as text.
    let parsed = validate::parse(Some("application/json"), given.to_string().as_bytes(), 128).unwrap();
    validate::body(operation, &parsed).map(|body| body.value).map_err(validate::Problems::into_answer)
}

/// `jsonschema` has no value rules, so this test has none either.
#[test]
fn it_takes_and_refuses_what_jsonschema_does() {
    let (document, contract) = (document(), contract(&[]));
    for operation in contract.operations().filter(|operation| operation.body.is_some()) {
        let schema = body_schema(&document, &operation.path, operation.method.as_str());
        let whole = json!({ "allOf": [schema], "components": document["components"] });
        let validator = jsonschema::options().should_validate_formats(true).build(&whole).unwrap();
        let (taken, refused) = (crate::Count::default(), crate::Count::default());
        proptest!(crate::config(150), |(tape in tape(), odds in 2..60_usize)| {
            let given = instance(&document, schema, &mut Tape::new(&tape), odds);
            let judged = judge(operation, &given);
            let problems: Vec<String> = validator.iter_errors(&given).map(|error| format!("{}: {error}", error.instance_path())).collect();
            prop_assert_eq!(judged.is_ok(), problems.is_empty(), "{} {:#}\nward: {:?}\njsonschema: {:?}", operation.id, given, judged, problems);
            if judged.is_ok() { taken.one_more() } else { refused.one_more() }
        });
        let (taken, refused) = (taken.get(), refused.get());
        assert!(taken >= 5 && refused >= 5, "{}: {taken} taken, {refused} refused", operation.id);
    }
}

/// The position of a problem as numbers, in declared order and then in the order of the request.
fn place(document: &Value, schema: &Value, given: &Value, loc: &[Loc]) -> Vec<usize> {
    let (mut schema, mut given, mut place) = (schema, given, Vec::new());
    for step in loc {
        schema = plain(document, schema).0;
        match step {
            Loc::Index(index) => {
                place.push(*index);
                (schema, given) = (&schema["items"], &given[*index]);
            }
            Loc::Key(key) => {
                let declared = schema["properties"]
                    .as_object()
                    .and_then(|fields| fields.keys().position(|field| field == key));
                let own = || given.as_object().unwrap().keys().position(|field| field == key).unwrap();
                place.push(declared.unwrap_or_else(own));
                schema = schema["properties"].get(&**key).unwrap_or(&schema["additionalProperties"]);
                given = given.get(&**key).unwrap_or(&Value::Null);
            }
        }
    }
    place
}

/// The value at a location of the request.
fn at<'g>(given: &'g Value, loc: &[Loc]) -> &'g Value {
    loc.iter().fold(given, |given, step| match step {
        Loc::Index(index) => &given[*index],
        Loc::Key(key) => given.get(&**key).unwrap_or(&Value::Null),
    })
}

#[test]
fn its_errors_are_one_per_value_in_declared_order_and_show_what_was_sent_but_no_secret() {
    let (document, contract) = (document(), contract(RULES));
    let seen = crate::Count::default();
    for operation in contract.operations().filter(|operation| operation.body.is_some()) {
        let schema = body_schema(&document, &operation.path, operation.method.as_str());
        proptest!(crate::config(150), |(tape in tape(), odds in 2..60_usize)| {
            let given = instance(&document, schema, &mut Tape::new(&tape), odds);
            let Err(mut problems) = judge(operation, &given) else { return Ok(()) };
            prop_assert!(!problems.is_empty());
            problems.retain(|problem| problem.kind != "too_many_problems");
            prop_assert!(!serde_json::to_string(&problems).unwrap().contains(SECRET), "{:?}", problems);
            let places: Vec<Vec<usize>> = problems
                .iter()
                .map(|problem| place(&document, schema, &given, &problem.loc[1..]))
                .collect();
            prop_assert!(places.is_sorted_by(|one, next| one < next), "{} {:#}\n{:#?}", operation.id, given, problems);
            for problem in &problems {
                seen.one_more();
                prop_assert_eq!(&problem.loc[0], &Loc::from("body"));
                let depth = if problem.kind == "missing" { problem.loc.len() - 1 } else { problem.loc.len() };
                let sent = at(&given, &problem.loc[1..depth]);
                if let Some(start) = cut(&problem.input) {
                    let whole = sent.as_str().map_or_else(|| sent.to_string(), str::to_owned);
                    prop_assert!(whole.len() > start.len(), "{:?}", problem);
                    // Asterisks replace a part with a secret, and a part whose wrong shape hides the places of its
                    // secrets.
                    let hidden = start.contains("**********") || sent.to_string().contains(SECRET);
                    prop_assert!(whole.starts_with(start) || hidden, "{:?}", problem);
                } else if !sent.to_string().contains(SECRET) && !masked(&problem.input) {
                    let shown = serde_json::to_string(&problem.input).unwrap();
                    prop_assert_eq!(shown, sent.to_string(), "{} {:?}", operation.id, problem);
                }
            }
        });
    }
    assert!(seen.get() > 1_000, "only {} problems", seen.get());
}

/// The shortened form of a value that is too long to be echoed.
fn cut(shown: &Json) -> Option<&str> {
    let Json::String(text) = shown else { return None };
    text.strip_suffix(" bytes)")?.rsplit_once("…(+").map(|(start, _)| start)
}

fn masked(shown: &Json) -> bool {
    serde_json::to_string(shown).unwrap().contains("**********")
}

/// An accepted value is accepted again in its normalised form, without any further change.
#[test]
fn what_it_understood_it_understands_the_same_again() {
    let (document, contract) = (document(), contract(RULES));
    for operation in contract.operations().filter(|operation| operation.body.is_some()) {
        let schema = body_schema(&document, &operation.path, operation.method.as_str());
        proptest!(crate::config(60), |(tape in tape(), odds in 40..200_usize)| {
            let given = instance(&document, schema, &mut Tape::new(&tape), odds);
            let Ok(understood) = judge(operation, &given) else { return Ok(()) };
            prop_assert_eq!(judge(operation, &understood), Ok(understood.clone()), "{}", operation.id);
        });
    }
}

/// Any bytes in place of JSON yield a value or problems, and never a panic.
#[test]
fn any_bytes_and_any_query_are_judged() {
    let contract = contract(RULES);
    let operations: Vec<_> = contract.operations().collect();
    let query = "([a-z_]{1,12}|limit|offset|date_from|date_to|enabled|search|phi_only|actor_entity_id|state)=(%[0-9A-Fa-f]{2}|\\PC){0,12}";
    let query = prop::collection::vec(prop_oneof![query.boxed(), any::<String>().boxed()], 0..4)
        .prop_map(|parts| parts.join("&"));
    proptest!(crate::config(2_000), |(
        which in any::<prop::sample::Index>(),
        body in prop_oneof![prop::collection::vec(any::<u8>(), 0..60), any::<String>().prop_map(String::into_bytes)],
        kind in prop::option::of("(application/json|application/[a-z+;= ]{0,9}|\\PC{0,12})"),
        query in query,
    )| {
        let operation = which.get(&operations);
        let parsed = validate::parse(kind.as_deref(), &body, 128).unwrap_or(ParsedBody::Missing);
        if let Err(problems) = validate::body(operation, &parsed) {
            prop_assert!(!problems.is_empty());
        }
        match validate::query(operation, Some(&query)) {
            Ok(read) => prop_assert!(read.keys().all(|name| operation.query.iter().any(|one| one.name == *name))),
            Err(problems) => {
                let problems = problems.into_answer();
                let names: Vec<&Loc> = problems.iter().map(|problem| &problem.loc[1]).collect();
                let declared = operation.query.iter().map(|one| Loc::from(one.name.clone()));
                let expected: Vec<Loc> = declared.filter(|name| names.contains(&name)).collect();
                prop_assert_eq!(names, expected.iter().collect::<Vec<_>>());
            }
        }
    });
}
