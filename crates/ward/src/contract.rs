//! The document that Ward serves and validates requests against, adjusted to the operator's settings.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Value, json};
use ward_contract::{Contract, ContractError, Rule};

use crate::config::Platform;

/// The document in its served form, unless settings change it.
const DOCUMENT: &str = include_str!("../../../contract/openapi.json");

/// The text of the document before any setting changes it, for programs that offer its operations.
pub const fn built_in() -> &'static str {
    DOCUMENT
}

/// The nine operations of the given contract. Only their ids are used here.
static GIVEN_IDS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let given: Value =
        serde_json::from_str(include_str!("../../../contract/workspaces.openapi.json")).unwrap_or_default();
    let items = given["paths"].as_object().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object().into_iter().flatten());
    operations.filter_map(|(_, operation)| operation["operationId"].as_str()).map(str::to_owned).collect()
});

/// The contract's bound, which the settings raise.
const GIVEN: u64 = 20;

/// The contract with these value rules, under the settings that do not change the document.
pub fn load(rules: &[(&str, Rule)]) -> Result<Contract, ContractError> {
    load_for(rules, &Platform::default())
}

/// The contract with these value rules, under these settings.
pub fn load_for(rules: &[(&str, Rule)], platform: &Platform) -> Result<Contract, ContractError> {
    let fault = |error: serde_json::Error| ContractError::new("#", error.to_string());
    let mut document: Value = serde_json::from_str(DOCUMENT).map_err(fault)?;
    let text = if adjust(&mut document, platform) {
        serde_json::to_vec_pretty(&document).map_err(fault)?.into()
    } else {
        Bytes::from_static(DOCUMENT.as_bytes())
    };
    Contract::read(&document, text, &GIVEN_IDS, rules)
}

/// Applies the settings to the document. Returns whether they change it.
fn adjust(document: &mut Value, platform: &Platform) -> bool {
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

fn parameters(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut());
    operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut()).flatten()
}

#[cfg(test)]
mod tests {
    use ward_contract::Access;

    use super::*;

    #[test]
    fn the_built_in_document_loads() {
        let contract = load(&[]).unwrap();
        assert_eq!(contract.operations().count(), DOCUMENT.matches("\"operationId\": ").count());
        let claim = contract.operation("create-api-key").unwrap();
        let permission = Some("ApiKey.create".to_owned());
        assert_eq!(claim.access, Access::Key { permission, role: None, caller: None, or_anonymous: true });
        assert!(claim.idempotent && !claim.sparse && claim.body.is_some());
        assert_eq!(claim.statuses.first(), Some(&201));
        assert!(contract.operation("update-workspace").unwrap().sparse);
        assert!(contract.operation("no-such").is_none());
        assert_eq!(contract.operations().filter(|operation| operation.given).count(), 9);
    }

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
