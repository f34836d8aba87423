//! Changes that the operator's settings make to the document before it is compiled and served.

use serde_json::{Value, json};

use crate::config::Platform;

/// The contract's bound, which the settings raise.
const GIVEN: u64 = 20;

/// Applies the settings to the document. Returns whether they change it.
pub(super) fn adjust(document: &mut Value, platform: &Platform) -> bool {
    let Platform { region, list_limit_max, test_caller_limit, .. } = platform;
    let mut changed = false;
    if u64::from(*list_limit_max) != GIVEN {
        for parameter in parameters(document).filter(|parameter| parameter["name"] == "limit") {
            let schema = &mut parameter["schema"];
            if schema["maximum"].as_f64() == Some(20.0) {
                schema["maximum"] = json!(list_limit_max);
                changed = true;
            }
        }
    }
    let schemas = &mut document["components"]["schemas"];
    if u64::from(*test_caller_limit) != GIVEN {
        schemas["TestCallerNumbersRequest"]["properties"]["numbers"]["maxItems"] = json!(test_caller_limit);
        changed = true;
    }
    if let Some(region) = region {
        schemas["CreateWorkspaceRequest"]["properties"]["region"]["default"] = json!(region);
        changed = true;
    }
    changed
}

/// Every parameter of every operation.
fn parameters(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::DOCUMENT;
    use super::*;

    #[test]
    fn the_settings_of_the_contract_change_nothing() {
        let given: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut document = given.clone();
        assert!(!adjust(&mut document, &Platform::default()));
        assert_eq!(document, given);
    }

    #[test]
    fn every_list_of_twenty_is_raised_and_no_other_bound() {
        let mut document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let limits = |document: &mut Value| -> Vec<Option<f64>> {
            let limits = parameters(document).filter(|parameter| parameter["name"] == "limit");
            limits.map(|parameter| parameter["schema"]["maximum"].as_f64()).collect()
        };
        let before = limits(&mut document);
        let platform = Platform { list_limit_max: 64, ..Platform::default() };
        assert!(adjust(&mut document, &platform));
        let expected: Vec<_> =
            before.iter().map(|limit| if *limit == Some(20.0) { Some(64.0) } else { *limit }).collect();
        assert!(before.contains(&Some(20.0)) && before.contains(&Some(100.0)), "{before:?}");
        assert_eq!(limits(&mut document), expected);
    }
}
