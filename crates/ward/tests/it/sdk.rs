//! The platform's TypeScript SDK in four versions. `tests/clients/sdk.json` records the requests of each,
//! with the fields and types that its users' code reads. The SDK itself is in no package registry.

use std::collections::HashMap;

use reqwest::Method;
use serde_json::{Map, Value, json};
use ward_test::{Actor, Answer, Fields as _, Sending, Server, both, fresh_slug};

use crate::support::pages;

/// The calls and types of the SDK, as recorded.
fn recording() -> Value {
    serde_json::from_str(include_str!("../clients/sdk.json")).unwrap()
}

/// An actor that sends the recorded headers. The actor itself adds `authorization`, and `content-type` only with a body, as the
/// SDK does.
fn as_recorded(actor: &Actor, recording: &Value) -> Actor {
    let headers = recording["headers"].as_object().unwrap();
    assert_eq!(headers["authorization"], "Bearer {key}");
    assert_eq!(headers["content-type"].as_str(), Sending::json(&json!({})).content_type);
    let of_fetch = headers
        .iter()
        .filter(|(name, _)| !["about", "authorization", "content-type"].contains(&name.as_str()));
    let of_fetch: Vec<(&str, &str)> =
        of_fetch.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    assert_eq!(of_fetch.len(), 5);
    actor.with(&of_fetch)
}

/// One version of the SDK on its walk through the recorded calls.
struct Client<'a> {
    age: &'a str,
    shapes: &'a Value,
    /// The values of the names in braces, which occur in recorded paths and bodies.
    known: HashMap<String, String>,
}

impl Client<'_> {
    /// A recorded text with the names filled in.
    fn filled(&self, text: &str) -> String {
        self.known
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
    }

    /// Sends a recorded call as the SDK does, and reads its answer by the SDK's types.
    async fn walk(&mut self, actor: &Actor, call: &Value) -> Option<Answer> {
        if !call.list("ages").iter().any(|age| age == self.age) {
            return None;
        }
        let method: Method = call.text("method").parse().unwrap();
        let path = self.filled(call.text("path"));
        // `content-type` is sent only with a body.
        let body =
            call.get("body").map(|body| serde_json::from_str(&self.filled(&body.to_string())).unwrap());
        let sending = body.as_ref().map(Sending::json).unwrap_or_default();
        let answer = actor.send(method, &path, sending).await;
        let what = format!("{} of {}", call["call"], self.age);
        assert_eq!(answer.status.as_u16(), call["status"], "{what}: {}", answer.text);
        assert!(!answer.header("x-request-id").is_empty(), "{what} has no x-request-id");
        if let Some(reads) = call.get("reads") {
            let body: Value = serde_json::from_str(&answer.text).unwrap();
            self.reads(reads, &body, &what);
            for (field, name) in call.get("keep").and_then(Value::as_object).unwrap_or(&Map::new()) {
                let kept = body[field].as_str().unwrap().to_owned();
                self.known.insert(name.as_str().unwrap().to_owned(), kept);
            }
        }
        Some(answer)
    }

    /// Checks a value against the type that the SDK declares for it.
    fn reads(&self, declared: &Value, value: &Value, place: &str) {
        match declared {
            Value::String(name) if name.starts_with('@') => {
                self.reads(&self.shapes[&name[1..]], value, place);
            }
            Value::String(kinds) => {
                assert!(kinds.split('|').any(|kind| is(kind, value)), "{place} is {value}, not {kinds}");
            }
            Value::Array(of) => {
                let items = value.as_array().unwrap_or_else(|| panic!("{place} is {value}, not a list"));
                for (index, item) in items.iter().enumerate() {
                    self.reads(&of[0], item, &format!("{place}[{index}]"));
                }
            }
            Value::Object(fields) => {
                for (name, declared) in fields {
                    let (name, optional) =
                        name.strip_suffix('?').map_or((name.as_str(), false), |name| (name, true));
                    match value.get(name) {
                        Some(value) => self.reads(declared, value, &format!("{place}.{name}")),
                        None => assert!(optional, "{place} has no {name}: {value}"),
                    }
                }
            }
            other => panic!("{other} declares nothing"),
        }
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "any" => true,
        other => panic!("{other} is no type"),
    }
}

both!(four_ages_of_the_platforms_sdk_read_what_they_declare, async || {
    let server = Server::start().await;
    let recording = recording();
    for age in recording.list("ages").iter().map(|age| age.as_str().unwrap()) {
        let mut client = Client { age, shapes: &recording["shapes"], known: HashMap::new() };
        let slug = fresh_slug();
        client.known.insert("slug".to_owned(), slug.clone());
        // The SDK refuses an empty key, so a caller without a key passes any text.
        let keyless = as_recorded(&server.bearing("none-yet"), &recording);
        for call in recording.list("before_the_claim") {
            client.walk(&keyless, call).await;
        }
        if !client.known.contains_key("workspace_id") {
            let made = server.anonymous().create_workspace(&slug).await;
            client.known.insert("workspace_id".to_owned(), made.text("id").to_owned());
        }

        // Every version sends `authorization`, which makes the claim an ordinary call. A request hook removes
        // the header.
        let keys = client.filled("/v1/{workspace_id}/api-keys");
        let claim = json!({ "duration_days": 90, "name": "the first key" });
        assert_eq!(keyless.post(&keys, claim.clone()).await.refused(401), "unauthorized", "{age}");
        let claimed = server.anonymous().post(&keys, claim).await;
        assert_eq!(claimed.status, 201, "{age}: {}", claimed.text);
        let claimed: Value = serde_json::from_str(&claimed.text).unwrap();
        client.reads(&json!("@new_key"), &claimed, "the claim");
        let owner = as_recorded(&server.bearing(claimed.text("api_key")), &recording);

        let path = client.filled("/v1/{workspace_id}/calls/CA-of-the-sdk");
        let report = json!({ "status": "completed", "caller_id": "+15550100099", "direction": "inbound" });
        let reported = owner.put(&path, report).await;
        assert!(reported.status.is_success(), "{age}: {}", reported.text);
        client.known.insert("call_id".to_owned(), "CA-of-the-sdk".to_owned());

        let mut walked = 0;
        for call in recording.list("calls") {
            walked += usize::from(client.walk(&owner, call).await.is_some());
        }
        assert!(walked > 15, "{age} walked {walked} calls");
    }
});

both!(auto_paging_of_the_sdk_sees_every_workspace_once, async || {
    let (_server, tenant) = Server::with_tenant().await;
    for number in 0..24 {
        let slug = format!("clinic-{number}");
        let body = json!({ "slug": slug, "name": slug, "environment": "development" });
        assert_eq!(tenant.owner.post("/v1/me/workspaces", body).await.status, 201);
    }
    // The SDK continues while `has_more`, from the token of the previous page.
    let pages = pages(&tenant.owner, "/v1/workspaces?limit=10").await;
    let mut seen: Vec<&str> = pages.iter().flat_map(|page| page.texts("items", "slug")).collect();
    let counted = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((counted, seen.len()), (25, 25));
});

both!(auto_paging_of_the_sdk_sees_every_event_once, async || {
    let (_server, tenant) = Server::with_tenant().await;
    for number in 0..4 {
        let body = json!({ "name": format!("Clinic {number}") });
        tenant.owner.patch(&tenant.workspace(""), body).await.ok();
    }
    let me: Value = tenant.owner.get("/v1/me").await.ok();
    let of_me = format!("/audit/entity/{}/access-log", me.text("entity_id"));
    // The SDK goes on while `has_more` and `next_offset`, from that offset.
    for path in ["/audit", of_me.as_str()] {
        let (mut offset, mut seen, mut total) = (json!(0), Vec::new(), json!(0));
        while !offset.is_null() {
            let page = tenant.get(&format!("{path}?limit=2&offset={offset}")).await;
            let page: Value = page.ok();
            seen.extend(page.list("events").iter().map(|event| event["id"].to_string()));
            assert_eq!(page["has_more"], !page["next_offset"].is_null());
            (offset, total) = (page["next_offset"].clone(), page["total"].clone());
        }
        let counted = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!((json!(counted), json!(seen.len())), (total.clone(), total.clone()), "{path}");
        assert!(total.as_u64() > Some(3), "{path}: {total}");
    }
});

both!(the_sdk_reads_rates_as_numbers_and_a_date, async || {
    let server = Server::with(|config| config.rates.enforced = true).await;
    let answer = server.anonymous().post("/v1/workspaces", ward_test::new_workspace("acme")).await;
    assert_eq!(answer.status, 201);
    let number =
        |name: &str| -> i64 { answer.header(name).parse().unwrap_or_else(|_| panic!("{name} is no number")) };
    assert!(number("x-ratelimit-remaining") < number("x-ratelimit-limit"));
    // `rateLimit.reset` is a date made from these seconds: a number of seconds to wait would be a day in
    // 1970.
    let now = server.clock.now().micros() / 1_000_000;
    assert!((now..=now + 3_600).contains(&number("x-ratelimit-reset")), "{}", number("x-ratelimit-reset"));
});
