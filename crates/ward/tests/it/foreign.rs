//! A run against a foreign FHIR R4 server: Medplum's router, repository and validator, from npm.

use serde_json::Value;
use ward_test::{Fields as _, Server, both};

use crate::calls::{finished, put};
use crate::chosen::{every_end, set_delivery};
use crate::crash::{finish, killed_at};
use crate::deliveries::{PATIENT, TESTER, connected};
use crate::support::PublishedServer;

both!(a_foreign_server_ends_with_one_resource_per_real_call, threads = 2, async || {
    let Some(foreign) = PublishedServer::start("fhir", "@medplum/fhir-router", None).await else { return };
    let url = format!("http://127.0.0.1:{}/fhir", foreign.port);
    for (connector, kind) in [("fhir_store", "Communication"), ("cerner", "DocumentReference")] {
        let server = Server::start().await;
        let tenant = connected(&server, connector, &url).await;
        set_delivery(&tenant, every_end()).await.ok();
        for index in 0..12 {
            let mut body = finished(if index % 3 == 0 { TESTER } else { PATIENT });
            body["patient_id"] = "pat-1".into();
            body["status"] = ["completed", "no-answer", "busy"][index % 3].into();
            put(&tenant, &format!("CA{index}"), body).await;
        }
        // Two workers are killed after they received answers and before they stored them. A third one finishes.
        assert!(!killed_at(&server, "Sent", 2, 0).await.success());
        assert!(!killed_at(&server, "Sent", 1, 2).await.success());
        finish(&server, 4).await;
        assert_eq!(server.count("SELECT count(*) FROM deliveries WHERE state = 'synced'").await, 8);
        let client = reqwest::Client::new();
        let mut real = 0;
        for index in 0..12 {
            let call = tenant.get(&format!("/calls/CA{index}")).await.ok();
            let identifier = format!("urn:uuid:{}|{}", tenant.id, call.text("entity_id"));
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("identifier", &identifier)
                .finish();
            let found: Value =
                client.get(format!("{url}/{kind}?{query}")).send().await.unwrap().json().await.unwrap();
            let expected = u64::from(call["direction"] != "test");
            assert_eq!(found["total"].as_u64().unwrap(), expected, "{call} {found}");
            real += expected;
        }
        assert_eq!(real, 8);
    }
});
