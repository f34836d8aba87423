//! The types of bodies and answers have the fields of the schema that has their name.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use super::sources;

/// Types that have another name than their schema.
const RENAMED: [(&str, &str); 4] = [
    ("AuditEventResponse", "src__routes__audit__AuditEventResponse"),
    ("Endpoint", "EndpointConfig"),
    ("Retry", "RetryConfig"),
    ("Workspace", "WorkspaceResponse"),
];

/// A field of a type that serde reads or writes.
struct Field {
    /// The name in JSON, after a `rename`.
    name: String,
    /// The type, if the field stands for the fields of that type.
    flattened: Option<String>,
}

/// The fields of each type with names that serde reads or writes.
fn wire_types() -> BTreeMap<String, Vec<Field>> {
    let item = Regex::new(
        r"(?ms)^#\[derive\(([^\]]*)\)\]\n(?:#\[[^\n]*\n)*(?:pub(?:\(\w+\))? )?struct (\w+)(?:<\w+>)? \{\n(.*?)^\}",
    );
    let item = item.unwrap();
    let field =
        Regex::new(r"((?: {4}#\[serde\([^\n]*\n)*) {4}(?:pub(?:\(\w+\))? )?(?:r#)?(\w+): ([^\n]*),\n")
            .unwrap();
    let renamed = Regex::new(r#"rename = "(\w+)""#).unwrap();
    let mut found = BTreeMap::new();
    // `urls.rs` looks only for URLs in stored texts.
    for source in sources("crates/ward/src").iter().filter(|source| !source.path.ends_with("/urls.rs")) {
        for item in item.captures_iter(&source.text).filter(|item| item[1].contains("erialize")) {
            let fields = field.captures_iter(&item[3]).filter(|field| !field[1].contains("serde(skip)"));
            let fields = fields.map(|field| Field {
                name: renamed
                    .captures(&field[1])
                    .map_or(&field[2], |name| name.get(1).unwrap().as_str())
                    .to_owned(),
                flattened: field[1].contains("flatten").then(|| field[3].to_owned()),
            });
            found.insert(item[2].to_owned(), fields.collect());
        }
    }
    found
}

fn names(types: &BTreeMap<String, Vec<Field>>, of: &str) -> BTreeSet<String> {
    let fields = types[of].iter().flat_map(|field| match &field.flattened {
        Some(inner) => names(types, inner),
        None => BTreeSet::from([field.name.clone()]),
    });
    fields.collect()
}

#[test]
fn wire_types_have_the_fields_of_their_schemas() {
    let document: Value = serde_json::from_str(include_str!("../../../../contract/openapi.json")).unwrap();
    let types = wire_types();
    let mut compared = 0;
    for of in types.keys() {
        let schema = RENAMED.iter().find(|(name, _)| name == of).map_or(of.as_str(), |(_, schema)| schema);
        let Some(properties) = document["components"]["schemas"][schema]["properties"].as_object() else {
            continue;
        };
        let declared: BTreeSet<String> = properties.keys().cloned().collect();
        assert_eq!(names(&types, of), declared, "{of} and the schema {schema}");
        compared += 1;
    }
    assert!(compared >= 60, "the search finds only {compared} types");
    // The types of all requests with a body have the contract's names.
    for schema in document["components"]["schemas"].as_object().unwrap().keys() {
        let without = ["ReportCallRequest", "ResendInvitationRequest"].contains(&schema.as_str());
        assert!(
            !schema.ends_with("Request") || without || types.contains_key(schema),
            "{schema} has no type"
        );
    }
}
