//! The JSON parser, compared with `serde_json`.
//!
//! The documented differences are these. Ward refuses half of a surrogate pair, which `serde_json` refuses in a value
//! only. Ward refuses nesting beyond its limit. `serde_json` refuses numbers beyond the range of a double.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
use ward_contract::validate::Json;

const DEPTH: usize = 100;

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(&["{", "}", "[", "]", ",", ":", " ", "\n", "\t", "null", "true", "false", "\"a\"", "\"\"", "{}", "[]", "0", "-1"][..]).prop_map(str::to_owned),
        1 => prop::sample::select(&["nul", "NaN", "Infinity", "-Infinity", "'", "//", "\u{feff}", "\u{a0}", "\u{b}", "\u{0}", "tru e", "+1", ".5", "1.", "01", "-", "1e", "1e+"][..]).prop_map(str::to_owned),
        2 => "-?[0-9]{1,25}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
        2 => "\"(\\\\([\"\\\\/bfnrtx]|u[0-9a-fA-F]{3,4}|ud[89ab][0-9a-f]{2}|ud[89ab][0-9a-f]{2}\\\\ud[c-f][0-9a-f]{2})|[a-z\\u{e9}\\u{1f3e5}\\u{1}]){0,5}\"",
    ]
}

fn valid() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((".{0,3}", inner), 0..6)
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
        ]
    });
    (value, any::<bool>()).prop_map(|(value, pretty)| {
        if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() }
    })
}

/// Generates JSON, nearly valid JSON, and any text.
fn text() -> impl Strategy<Value = String> {
    let mangled =
        (valid(), any::<prop::sample::Index>(), token(), 0..3_usize).prop_map(|(text, at, token, lose)| {
            let characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len() + 1);
            let rest = &characters[(at + lose).min(characters.len())..];
            characters[..at].iter().chain(token.chars().collect::<Vec<_>>().iter()).chain(rest).collect()
        });
    let deep = (90..140_usize, any::<bool>(), token()).prop_map(|(depth, lists, token)| {
        let (open, close) = if lists { ("[", "]") } else { ("{\"a\":", "}") };
        format!("{}{token}{}", open.repeat(depth), close.repeat(depth))
    });
    prop_oneof![
        3 => valid(),
        4 => mangled,
        4 => prop::collection::vec(token(), 0..12).prop_map(|tokens| tokens.concat()),
        1 => deep,
        1 => any::<String>(),
    ]
}

/// `serde_json` reads doubles to within a unit in the last place, and `-0` as a double.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(one), Value::Number(other)) => {
            let (a, b) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            one == other || (a - b).abs() <= a.abs() * f64::EPSILON
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(one, other)| same(one, other))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|((a, one), (b, other))| a == b && same(one, other))
        }
        _ => ours == theirs,
    }
}

#[test]
fn it_takes_and_refuses_what_serde_json_does() {
    let (taken, refused) = (crate::Count::default(), crate::Count::default());
    proptest!(crate::config(4_000), |(text in text())| {
        let theirs = serde_json::from_str::<Value>(&text);
        let grammar = serde_json::from_str::<IgnoredAny>(&text);
        match Json::parse(&text, DEPTH) {
            Ok(json) => {
                taken.one_more();
                prop_assert!(grammar.is_ok(), "taken, and no JSON: {:?}", grammar);
                match theirs {
                    Ok(theirs) => prop_assert!(same(&json.to_value(), &theirs), "{:?}\n{:?}", json, theirs),
                    Err(error) => prop_assert!(error.to_string().contains("number out of range"), "{}", error),
                }
                let written = serde_json::to_string(&json).unwrap();
                prop_assert_eq!(Json::parse(&written, DEPTH), Ok(json));
            }
            Err(fault) => {
                refused.one_more();
                prop_assert!(fault.at <= text.chars().count() && !fault.error.is_empty());
                let ours_alone = fault.error == format!("Nested deeper than {DEPTH} levels");
                prop_assert!(theirs.is_err() || ours_alone, "refused, and JSON: {:?}", fault);
                let half = fault.error.starts_with("Unpaired surrogate");
                prop_assert!(grammar.is_err() || ours_alone || half, "refused, and JSON: {:?}", fault);
            }
        }
    });
    let (taken, refused) = (taken.get(), refused.get());
    assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
}

/// A repeated key keeps its first position and its last value, as in `serde_json` with its order preserved.
#[test]
fn of_equal_keys_the_last_value_stands() {
    proptest!(crate::config(500), |(fields in prop::collection::vec(("[ab]{0,1}", any::<u32>()), 0..8))| {
        let written: Vec<String> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let text = format!("{{{}}}", written.join(","));
        let theirs: Value = serde_json::from_str(&text).unwrap();
        let ours = Json::parse(&text, DEPTH).unwrap().to_value();
        prop_assert_eq!(ours.to_string(), theirs.to_string());
    });
}
