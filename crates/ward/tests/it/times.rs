//! Times in requests: one rule for every time of the document, in bodies and in queries.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward_contract::Operation;
use ward_test::{Answer, Sending, Server, Tenant, both};

/// A place in a request that holds a time.
struct TimeField {
    operation: std::sync::Arc<Operation>,
    name: String,
    in_query: bool,
    /// Whether it holds a day (`format: date`).
    is_day: bool,
}

fn places(server: &Server) -> Vec<TimeField> {
    let document: Value = serde_json::from_slice(server.app.contract.document()).unwrap();
    let format = |schema: &Value| {
        let schema = if schema["anyOf"].is_null() { schema } else { &schema["anyOf"][0] };
        schema["format"].as_str().map(str::to_owned).filter(|format| format.starts_with("date"))
    };
    let mut places = Vec::new();
    for operation in server.app.contract.operations() {
        let declared = &document["paths"][&operation.path][operation.method.as_str().to_lowercase()];
        let mut add = |name: &str, in_query: bool, schema: &Value| {
            if let Some(format) = format(schema) {
                let (operation, name) = (operation.clone(), name.to_owned());
                places.push(TimeField { operation, name, in_query, is_day: format == "date" });
            }
        };
        for parameter in declared["parameters"].as_array().into_iter().flatten() {
            add(parameter["name"].as_str().unwrap_or_default(), true, &parameter["schema"]);
        }
        let body = &declared["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let body = body.as_str().and_then(|at| document.pointer(&at[1..])).cloned().unwrap_or_default();
        for (name, schema) in body["properties"].as_object().into_iter().flatten() {
            add(name, false, schema);
        }
    }
    places
}

impl TimeField {
    async fn sent(&self, tenant: &Tenant, value: &Value) -> Answer {
        let target = tenant.target(tenant.owner_key_id());
        let path = target.path(&self.operation);
        if self.in_query {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return tenant.owner.get(&format!("{path}?{}={}", self.name, text.replace('+', "%2B"))).await;
        }
        let mut body = target.body(&self.operation).unwrap();
        body[&self.name] = value.clone();
        let method = Method::from_bytes(self.operation.method.as_str().as_bytes()).unwrap();
        tenant.owner.send(method, &path, Sending::json(&body)).await
    }
}

both!(every_time_of_a_request_says_its_offset_and_only_periods_take_days, async || {
    let (server, tenant) = Server::with_tenant().await;
    let places = places(&server);
    assert!(places.len() >= 14, "{} places", places.len());
    for place in &places {
        let at = format!("{} {}", place.operation.id, place.name);
        let part = if place.in_query { "query" } else { "body" };
        let unzoned = (format!("{part}.{}", place.name), "Input should have timezone info".to_owned());
        // The end of a rule must not be past. An answer that says so has read the time.
        let is_past = |answer: &Answer| answer.text.contains("expires_in_the_past");
        let is_invalid =
            |answer: &Answer| answer.status == StatusCode::UNPROCESSABLE_ENTITY && !is_past(answer);
        let is_unzoned = |answer: &Answer| is_invalid(answer) && answer.problems().contains(&unzoned);
        for open in [
            json!("2026-04-18T00:00:00"),
            json!("2026-04-18 00:00"),
            json!("1776470400"),
            json!("1776470400000"),
            json!(1_776_470_400),
        ] {
            let answer = place.sent(&tenant, &open).await;
            assert!(is_unzoned(&answer), "{at} {open}: {}", answer.text);
        }
        let answer = place.sent(&tenant, &json!("2026-04-18T00:00:00Z")).await;
        assert!(!is_invalid(&answer), "{at}: {}", answer.text);
        let elsewhere = place.sent(&tenant, &json!("2026-04-18T00:00:00+02:00")).await;
        let refused = elsewhere.status == StatusCode::UNPROCESSABLE_ENTITY && place.in_query;
        assert_eq!(refused, place.is_day, "{at}: {}", elsewhere.text);
        assert!(!is_unzoned(&elsewhere), "{at}: {}", elsewhere.text);
        let day = place.sent(&tenant, &json!("2026-04-18")).await;
        let takes_days = place.name.starts_with("date_");
        assert_eq!(is_unzoned(&day), !takes_days, "{at}: {}", day.text);
        assert!(day.status != StatusCode::UNPROCESSABLE_ENTITY || !takes_days, "{at}: {}", day.text);
    }
});

both!(an_export_of_a_day_has_the_events_that_the_list_of_the_day_has, async || {
    let folder = tempfile::tempdir().unwrap();
    let exports = ward::config::Exports::Folder(folder.path().to_owned());
    let server = Server::with(|config| config.exports = Some(exports)).await;
    let tenant = server.tenant("acme").await;
    let today = server.app.clock.now().to_string()[..10].to_owned();
    let listed = tenant.get(&format!("/audit?date_from={today}&date_to={today}")).await.ok();
    let order = json!({ "date_from": today, "date_to": today });
    let ordered = tenant.post("/audit/export", order).await.ok();
    assert!(listed["total"].as_i64().unwrap() > 0);
    assert_eq!(ordered["row_count"], listed["total"]);
});
