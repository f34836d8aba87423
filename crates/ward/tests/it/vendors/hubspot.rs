//! `HubSpot` (`docs/connectors/hubspot.md`): a private app's token, known properties only, a required timestamp, and
//! contacts that are found by their number.

use serde_json::{Value, json};
use ward_test::vendor::{ClientAuth, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Fields as _, both};

use super::Practice;
use crate::calls::connect;
use crate::deliveries::PATIENT;
use crate::outbound::open_server;

const TOKEN: &str = "pat-na1-a-token-of-a-private-app";

/// The properties of calls that every portal has, as far as Ward uses them.
const PROPERTIES: [&str; 8] = [
    "hs_timestamp",
    "hs_call_direction",
    "hs_call_status",
    "hs_call_duration",
    "hs_call_title",
    "hs_call_body",
    "hs_call_from_number",
    "hs_call_to_number",
];

fn rules(has_property: bool) -> impl Fn(&VendorRequest, &mut Vec<Value>) -> VendorAnswer {
    let invalid = |message: String| {
        let body = json!({ "status": "error", "category": "VALIDATION_ERROR", "message": message });
        (400, Vec::new(), body)
    };
    move |asked, kept| match asked.path.as_str() {
        "/crm/v3/objects/contacts/search" => {
            let body = asked.json();
            let groups = body["filterGroups"].as_array().unwrap().clone();
            let fits = |contact: &&Value| {
                groups.iter().any(|group| {
                    let filter = &group["filters"][0];
                    filter["operator"] == "EQ"
                        && contact["properties"][filter.text("propertyName")] == filter["value"]
                })
            };
            let found: Vec<&Value> =
                kept.iter().filter(|one| one["kind"] == "contact").filter(fits).collect();
            (200, Vec::new(), json!({ "total": found.len(), "results": found }))
        }
        "/crm/v3/objects/calls/search" => {
            let wanted = asked.json()["filterGroups"][0]["filters"][0].clone();
            let found: Vec<&Value> = kept
                .iter()
                .filter(|one| one["properties"][wanted.text("propertyName")] == wanted["value"])
                .collect();
            (200, Vec::new(), json!({ "total": found.len(), "results": found }))
        }
        "/crm/v3/objects/calls" if asked.method == "POST" => {
            let call = asked.json();
            let properties = call["properties"].as_object().unwrap();
            let known = |name: &str| PROPERTIES.contains(&name) || has_property && name == "ward_call_id";
            if let Some(unknown) = properties.keys().find(|name| !known(name)) {
                return invalid(format!("Property \"{unknown}\" does not exist (PROPERTY_DOESNT_EXIST)"));
            }
            if !properties.contains_key("hs_timestamp") {
                return invalid("hs_timestamp is required".to_owned());
            }
            for association in call["associations"].as_array().into_iter().flatten() {
                let to = &association["to"]["id"];
                let is_contact = kept.iter().any(|one| one["kind"] == "contact" && one["id"] == *to);
                if association["types"][0]["associationTypeId"] != 194 || !is_contact {
                    return invalid("the association is not valid".to_owned());
                }
            }
            let mut call = call;
            call["id"] = json!(format!("{}", 1_000 + kept.len()));
            let id = call["id"].clone();
            kept.push(call);
            (201, Vec::new(), json!({ "id": id, "properties": {} }))
        }
        _ => (404, Vec::new(), json!({ "status": "error" })),
    }
}

async fn practice(has_property: bool) -> Practice {
    let vendor = Vendor::start(ClientAuth::Bearer(TOKEN), rules(has_property)).await;
    let token = json!({ "bearer_token_value": { "value": TOKEN } });
    Practice::of("hubspot", vendor, token, json!({})).await
}

fn contact(id: &str, property: &str, number: &str) -> Value {
    json!({ "kind": "contact", "id": id, "properties": { property: number } })
}

both!(a_call_belongs_to_the_one_contact_with_its_number, async || {
    let practice = practice(true).await;
    practice.vendor.keep(contact("501", "mobilephone", PATIENT));
    let delivery = practice.deliver("CA1", json!({})).await;
    assert_eq!(delivery["state"], "synced", "{delivery}");
    let calls = |vendor: &Vendor| -> Vec<Value> {
        vendor.kept().into_iter().filter(|one| one["kind"] != "contact").collect()
    };
    assert_eq!(calls(&practice.vendor)[0]["associations"][0]["to"]["id"], "501");
    // Two contacts have the number, so none is chosen; the call itself is written.
    practice.vendor.keep(contact("502", "phone", PATIENT));
    practice.deliver("CA2", json!({})).await;
    assert!(calls(&practice.vendor)[1].get("associations").is_none());
    // A contact that the runtime reported needs no search.
    let before = practice.vendor.asked().len();
    practice.deliver("CA3", json!({ "patient_id": "502" })).await;
    assert_eq!(calls(&practice.vendor)[2]["associations"][0]["to"]["id"], "502");
    assert_eq!(practice.vendor.asked().len(), before + 1);
});

both!(a_missing_property_is_named_and_holds_the_queue, async || {
    let practice = practice(false).await;
    let delivery = practice.deliver("CA1", json!({})).await;
    assert_eq!(delivery["attempts"][0]["outcome"], "misconfigured", "{delivery}");
    assert!(delivery.to_string().contains("no property ward_call_id"), "{delivery}");
    assert_ne!(delivery["state"], "failed", "the call is not lost");
});

both!(hubspot_cannot_be_enabled_without_a_token, async || {
    let server = open_server().await;
    let tenant = server.tenant("acme").await;
    connect(&tenant, "hubspot").await;
    let row = tenant.get("/integrations").await.ok()["items"][0].clone();
    let path = tenant.path(&format!("/integrations/{}", row.text("id")));
    for change in [json!({ "enabled": true }), json!({ "enabled": true, "auth": null })] {
        let refused = tenant.owner.put(&path, change).await;
        assert!(refused.text.contains("no credentials"), "{}", refused.text);
        refused.refused_as(409, "integration_unfinished");
    }
    let auth = json!({ "type": "bearer_token", "bearer_token_value": { "value": TOKEN } });
    tenant.owner.put(&path, json!({ "enabled": true, "auth": auth })).await.ok();
});
