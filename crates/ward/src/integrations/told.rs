//! The audit's view of an integration's configuration: its destinations, and the differences that a change makes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::secrets::origin;
use super::{AuthConfig, Endpoint, IntegrationConfig, own_base_url};

/// The most endpoints whose destinations or changes an audit event names, and the most headers of one.
const MOST_DESTINATIONS: usize = 100;

/// The origins that an integration calls, for the audit: scheme, host and port hold no secret, as paths and queries can.
pub(super) fn destinations(config: &IntegrationConfig) -> Value {
    let own = |url: Option<&str>| url.and_then(origin).map_or(Value::Null, Value::from);
    let mut destinations = Map::new();
    let mut note = |place: String, url: Option<&str>, auth: Option<&AuthConfig>| {
        if url.is_some_and(|url| !url.is_empty()) {
            destinations.insert(format!("{place}base_url"), own(url));
        }
        if let Some(token_url) = auth.and_then(|auth| auth.token_url.as_deref()) {
            destinations.insert(format!("{place}token_url"), own(Some(token_url)));
        }
    };
    note(String::new(), Some(&config.base_url), config.auth.as_ref());
    for endpoint in config.endpoints.iter().take(MOST_DESTINATIONS) {
        note(format!("endpoints/{}/", endpoint.name), own_base_url(endpoint), endpoint.auth.as_ref());
    }
    note("mcp/".to_owned(), config.mcp.mcp_url.as_deref(), None);
    Value::Object(destinations)
}

/// The names of the fields that differ: their values could be anything, and some are nearly secrets.
pub(super) fn differences(from: &IntegrationConfig, to: &IntegrationConfig) -> Vec<&'static str> {
    [
        ("display_name", from.display_name != to.display_name),
        ("protocol", from.protocol != to.protocol),
        ("base_url", from.base_url != to.base_url),
        ("auth", from.auth != to.auth),
        ("endpoints", from.endpoints != to.endpoints),
        ("mcp", from.mcp != to.mcp),
        ("delivery", from.delivery != to.delivery),
        ("enabled", from.enabled != to.enabled),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

/// The differences by the endpoint's name: `added`, `removed`, or the names of the fields, with each header as
/// `headers/NAME`. Values are left out, because a header's can be nearly a secret. The number of both is bounded.
pub(super) fn endpoint_differences(from: &[Endpoint<AuthConfig>], to: &[Endpoint<AuthConfig>]) -> Value {
    let by_name = |of: &[Endpoint<AuthConfig>]| -> BTreeMap<String, Value> {
        of.iter().map(|endpoint| (endpoint.name.clone(), json!(endpoint))).collect()
    };
    let (from, to) = (by_name(from), by_name(to));
    let names = from.keys().chain(to.keys().filter(|name| !from.contains_key(*name)));
    let changed = names.filter_map(|name| {
        let what = match (from.get(name), to.get(name)) {
            (None, _) => json!("added"),
            (_, None) => json!("removed"),
            (Some(from), Some(to)) if from == to => return None,
            (Some(from), Some(to)) => json!(field_differences(from, to)),
        };
        Some((name.clone(), what))
    });
    Value::Object(changed.take(MOST_DESTINATIONS).collect())
}

/// The names of the fields that differ, and which of the headers.
fn field_differences(from: &Value, to: &Value) -> Vec<String> {
    let differing = |from: &Value, to: &Value| -> Vec<String> {
        let names = |of: &Value| of.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        let (before, after): (BTreeSet<String>, BTreeSet<String>) = (names(from), names(to));
        before.union(&after).filter(|name| from[name.as_str()] != to[name.as_str()]).cloned().collect()
    };
    let fields = differing(from, to).into_iter().flat_map(|field| match field.as_str() {
        "headers" => {
            let headers = differing(&from["headers"], &to["headers"]).into_iter();
            headers.take(MOST_DESTINATIONS).map(|header| format!("headers/{header}")).collect()
        }
        _ => vec![field],
    });
    fields.collect()
}
