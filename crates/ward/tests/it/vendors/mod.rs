//! Each connector against a stand-in that enforces what the vendor's public documents require. The pages below
//! `docs/connectors/` name the documents. No vendor's own system was called.

mod allscripts;
mod athenahealth;
mod cerner;
mod epic;
mod fhir_store;
mod held;
mod hubspot;
mod reviews;
pub mod twilio;

use std::time::Duration;

use serde_json::{Value, json};
use ward::deliveries::worker::Worker;
use ward_test::vendor::{CLIENT, Vendor, VendorAnswer, VendorRequest};
use ward_test::{Fields as _, Server, Tenant};

use crate::calls::{connect, finished, put};
use crate::deliveries::{PATIENT, worker};
use crate::outbound::open_server;

/// A practice whose connector is a stand-in.
struct Practice {
    server: Server,
    tenant: Tenant,
    vendor: Vendor,
    worker: Worker,
    /// The path of the connector's integration.
    integration: String,
}

impl Practice {
    /// Sets the connector up as its page says. `auth` replaces fields of the seeded authentication.
    async fn of(connector: &str, vendor: Vendor, auth: Value, delivery: Value) -> Self {
        let server = open_server().await;
        let tenant = server.tenant("acme").await;
        connect(&tenant, connector).await;
        let row = tenant.get("/integrations").await.ok()["items"][0].clone();
        let integration = tenant.path(&format!("/integrations/{}", row.text("id")));
        let mut wanted = row["auth"].clone();
        wanted.as_object_mut().unwrap().extend(auth.as_object().unwrap().clone());
        if wanted["token_url"].is_string() {
            wanted["token_url"] = json!(vendor.token_url());
        }
        let signs = ["smart_backend_services", "oauth2_jwt_bearer"].contains(&wanted.text("type"));
        let set = json!({ "base_url": vendor.url(), "auth": wanted, "delivery": delivery });
        tenant.owner.put(&integration, set).await.ok();
        if signs {
            tenant.owner.post(&format!("{integration}/keys"), json!({})).await.created();
            vendor.register(format!("{}{integration}/jwks.json", server.url()));
        }
        tenant.owner.put(&integration, json!({ "enabled": true })).await.ok();
        let worker = worker(&server.app);
        Self { server, tenant, vendor, worker, integration }
    }

    /// A SMART backend app at this connector.
    async fn smart(connector: &str, vendor: Vendor, delivery: Value) -> Self {
        Self::of(connector, vendor, json!({ "client_id": CLIENT }), delivery).await
    }

    /// Finishes a real call with these further fields, and lets the worker have one turn. Gives the delivery.
    async fn deliver(&self, sid: &str, more: Value) -> Value {
        let mut body = finished(PATIENT);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let call = put(&self.tenant, sid, body).await;
        self.worker.turn().await;
        self.delivery(call["sync"].text("delivery_id")).await
    }

    async fn delivery(&self, id: &str) -> Value {
        self.tenant.get(&format!("/deliveries/{id}")).await.ok()
    }

    async fn hour(&self) {
        self.server.clock.advance(Duration::from_hours(1));
        self.worker.turn().await;
    }
}

/// A refusal as FHIR servers write it.
fn outcome(status: u16, code: &str, text: &str) -> VendorAnswer {
    let issue = json!({ "severity": "error", "code": code, "diagnostics": text });
    (status, Vec::new(), json!({ "resourceType": "OperationOutcome", "issue": [issue] }))
}

/// A complete page of a search.
fn searchset<'r>(found: impl IntoIterator<Item = &'r Value>) -> VendorAnswer {
    let entry: Vec<Value> = found.into_iter().map(|resource| json!({ "resource": resource })).collect();
    (
        200,
        Vec::new(),
        json!({ "resourceType": "Bundle", "type": "searchset", "total": entry.len(), "entry": entry }),
    )
}

/// Keeps a resource, and names it as a FHIR server does for `return=minimal`.
fn created(asked: &VendorRequest, kept: &mut Vec<Value>) -> VendorAnswer {
    let mut resource = asked.json();
    let id = format!("r{}", kept.len() + 1);
    resource["id"] = json!(id);
    let kind = resource.text("resourceType").to_owned();
    kept.push(resource);
    (201, vec![("location", format!("https://vendor.example/{kind}/{id}/_history/1"))], Value::Null)
}

/// The resources with the identifier of the query.
fn identified<'k>(asked: &VendorRequest, kept: &'k [Value]) -> Vec<&'k Value> {
    let wanted = asked.field("identifier").unwrap_or_default();
    let (system, value) = wanted.split_once('|').unwrap_or_default();
    let is = |resource: &&Value| {
        resource["identifier"][0]["system"] == system && resource["identifier"][0]["value"] == value
    };
    kept.iter().filter(is).collect()
}

/// The faults of a `DocumentReference` in every EHR (FHIR R4, 2.43; US Core `DocumentReference` Profile 6.1.0).
fn wrong_document(document: &Value) -> Option<&'static str> {
    let coding = &document["type"]["coding"][0];
    let attachment = &document["content"][0]["attachment"];
    [
        (document["status"] == "current", "status"),
        (coding["system"] == "http://loinc.org" && coding["code"] == "34748-4", "type"),
        (document["category"][0]["coding"][0]["code"] == "clinical-note", "category"),
        (document["subject"].text("reference").starts_with("Patient/"), "subject"),
        (
            attachment["data"].is_string() && attachment.text("contentType").starts_with("text/plain"),
            "content",
        ),
        (document["context"]["period"]["end"].is_string(), "context.period"),
    ]
    .into_iter()
    .find_map(|(right, field)| (!right).then_some(field))
}
