//! The operator's views and controls on the command line.

use serde_json::json;
use ward::operator;
use ward_test::ehr::Act;
use ward_test::{Server, both};

use crate::calls::{finished, put, set_test_callers};
use crate::deliveries::{PATIENT, Scene, TESTER, connected, forge_a_delivery_of_a_test_call};

both!(the_operator_sees_retries_and_holds, async || {
    let Scene { server, tenant, ehr, worker } = Scene::of("fhir_store").await;
    ehr.script([Act::Say(422, json!(null), "")]);
    put(&tenant, "CA1", finished(PATIENT)).await;
    worker.turn().await;
    let lanes = operator::sync_status(&server.app, &tenant.slug).await.unwrap();
    assert_eq!((lanes[0].failed, lanes[0].pending), (1, 0));
    let lanes = operator::sync_hold(&server.app, &tenant.slug, "fhir_store", true).await.unwrap();
    assert!(lanes[0].held);
    let retried = operator::sync_retry(&server.app, &tenant.slug, None).await.unwrap();
    assert_eq!(retried.retried, 1);
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 0);
    operator::sync_hold(&server.app, &tenant.slug, "fhir_store", false).await.unwrap();
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 1);
    let lanes = operator::sync_status(&server.app, &tenant.slug).await.unwrap();
    assert_eq!((lanes[0].synced, lanes[0].pending), (1, 0));
    assert!(operator::sync_hold(&server.app, &tenant.slug, "epic", true).await.is_err());
});

both!(the_exclusion_of_a_periods_test_calls_can_be_proven, async || {
    let Scene { server, tenant, .. } = Scene::of("fhir_store").await;
    for (index, day) in ["2026-03-31", "2026-04-01", "2026-04-30", "2026-05-01"].into_iter().enumerate() {
        for (who, caller) in [("test", TESTER), ("real", PATIENT)] {
            let mut body = finished(caller);
            body["started_at"] = json!(format!("{day}T23:59:59Z"));
            put(&tenant, &format!("{who}-{index}"), body).await;
        }
    }
    // The list has changed since; the list that decided is kept.
    set_test_callers(&tenant, &[PATIENT]).await;
    let proof =
        operator::prove_exclusion(&server.app, &tenant.slug, "2026-04-01", "2026-04-30").await.unwrap();
    let sids: Vec<&str> = proof.calls.iter().map(|call| call.call_sid.as_str()).collect();
    assert_eq!(sids, ["test-1", "test-2"]);
    for call in &proof.calls {
        assert_eq!((call.list_version, call.deliveries, call.attempts), (1, 0, 0));
        assert!(call.caller_on_list && call.excluded);
    }
    assert_eq!((proof.violations, proof.deliveries_of_unreal_calls), (0, 0));
    assert_eq!((proof.others_looked_at, proof.missed.len()), (2, 0));
    let looked = tenant.audit().await;
    assert!(
        looked
            .iter()
            .any(|event| event["action"] == "calls.prove_exclusion" && event["phi_accessed"] == true)
    );
    for (from, to) in [("2026-04-30", "2026-04-01"), ("2026-02-30", "2026-04-01"), ("April", "May")] {
        assert!(operator::prove_exclusion(&server.app, &tenant.slug, from, to).await.is_err());
    }
});

both!(a_proof_that_fails_says_where, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    for (sid, caller) in [("CA-test", TESTER), ("CA-real", PATIENT)] {
        let mut body = finished(caller);
        body["started_at"] = json!("2026-04-01T12:00:00Z");
        put(&tenant, sid, body).await;
    }
    let prove = async || {
        operator::prove_exclusion(&server.app, &tenant.slug, "2026-04-01", "2026-04-01").await.unwrap()
    };
    assert_eq!(prove().await.violations, 0);
    // This is a test call that was treated as real: its caller was on the list that decided.
    server.sql(format!("UPDATE calls SET caller = '{TESTER}' WHERE call_sid = 'CA-real'")).await;
    let proof = prove().await;
    assert_eq!((proof.violations, proof.missed[0].call_sid.as_str()), (1, "CA-real"));
    assert_eq!((proof.missed[0].deliveries, proof.missed[0].excluded), (1, false));
    // This is a real call that was treated as a test.
    server.sql(format!("UPDATE calls SET caller = '{PATIENT}'")).await;
    let proof = prove().await;
    assert_eq!((proof.violations, proof.missed.len(), proof.calls[0].excluded), (1, 0, false));
    server.sql(format!("UPDATE calls SET caller = '{TESTER}' WHERE call_sid = 'CA-test'")).await;
    assert_eq!(prove().await.violations, 0);
    // This is a delivery of a test call, in a database without its constraints.
    let server = Server::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    forge_a_delivery_of_a_test_call(&server, &tenant).await;
    let proof =
        operator::prove_exclusion(&server.app, &tenant.slug, "2020-01-01", "2100-01-01").await.unwrap();
    assert_eq!((proof.violations, proof.calls[0].deliveries, proof.deliveries_of_unreal_calls), (1, 1, 1));
});

both!(dead_letters_are_raised_a_thousand_at_a_time, async || {
    let Scene { server, tenant, ehr, .. } = Scene::of("fhir_store").await;
    ehr.always(Some(Act::Say(422, json!(null), "")));
    for index in 0..1_003 {
        put(&tenant, &format!("CA{index}"), finished(PATIENT)).await;
    }
    // According to the database, all of them are refused.
    server.sql("UPDATE deliveries SET state = 'failed', reason = 'refused'").await;
    server.sql("DELETE FROM delivery_queue").await;
    let path = tenant.path("/deliveries/retry-failed");
    let first = tenant.owner.post(&path, json!({})).await.ok();
    assert_eq!(first, json!({ "retried": 1_000, "has_more": true }));
    let second = tenant.owner.post(&path, json!({})).await.ok();
    assert_eq!(second, json!({ "retried": 3, "has_more": false }));
    assert_eq!(server.count("SELECT count(*) FROM delivery_queue").await, 1_003);
});
