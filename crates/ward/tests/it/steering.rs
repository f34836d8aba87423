//! What the operator sees and steers from the command line.

use std::time::Duration;

use serde_json::json;
use ward::operator;
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Server, both};

use crate::calls::{finished, put, set_test_callers};
use crate::deliveries::{PATIENT, TESTER, connected, worker};

both!(the_operator_sees_retries_and_holds);
async fn the_operator_sees_retries_and_holds() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    let worker = worker(&server.app, Duration::from_millis(500));
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
}

both!(the_exclusion_of_a_periods_test_calls_can_be_proven);
async fn the_exclusion_of_a_periods_test_calls_can_be_proven() {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    for (index, day) in ["2026-03-31", "2026-04-01", "2026-04-30", "2026-05-01"].into_iter().enumerate() {
        for (who, caller) in [("test", TESTER), ("real", PATIENT)] {
            let mut body = finished(caller);
            body["started_at"] = json!(format!("{day}T23:59:59Z"));
            put(&tenant, &format!("{who}-{index}"), body).await;
        }
    }
    // The list is another by now; the one that decided is kept.
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
    let looked = tenant.audit().await;
    assert!(
        looked
            .iter()
            .any(|event| event["action"] == "calls.prove_exclusion" && event["phi_accessed"] == true)
    );
    for (from, to) in [("2026-04-30", "2026-04-01"), ("2026-02-30", "2026-04-01"), ("April", "May")] {
        assert!(operator::prove_exclusion(&server.app, &tenant.slug, from, to).await.is_err());
    }
}
