//! A replica is killed in the middle of its work.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ward_test_db::postgres_only;

use crate::client::Call;
use crate::fleet::{Fleet, Tenant, new_key, new_workspace};
use crate::replicas::report;

const WRITERS: usize = 8;
const EACH: usize = 40;

postgres_only!(a_replica_killed_in_a_storm_of_writes_loses_nothing_and_leaves_nothing_half_done, blocking);
fn a_replica_killed_in_a_storm_of_writes_loses_nothing_and_leaves_nothing_half_done() {
    let mut fleet = Fleet::start(&[0, 0, 0]);
    let addresses: Vec<_> = fleet.servers.iter().map(|server| server.address).collect();
    let tenant = Tenant::new(addresses[0], "acme");
    let (acknowledged, cut) = (Mutex::new(HashMap::new()), AtomicUsize::new(0));
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (addresses, tenant, acknowledged, cut, answered) =
                (&addresses, &tenant, &acknowledged, &cut, &answered);
            scope.spawn(move || {
                for number in 0..EACH {
                    let name = format!("storm-{writer}-{number}");
                    let call = if number % 2 == 0 {
                        Call::post("/v1/me/workspaces", new_workspace(&name))
                    } else {
                        Call::post(tenant.keys(), new_key("viewer"))
                    };
                    let call = call.by(&tenant.key).repeatable(format!("{name}-once-and-once-only"));
                    let answer = (0..10).find_map(|round| {
                        let answer = call.attempt(addresses[(writer + number + round) % 3]).ok();
                        cut.fetch_add(usize::from(answer.is_none()), Ordering::Relaxed);
                        answer
                    });
                    let answer = answer.expect("a replica that is left");
                    assert_eq!(answer.status, 201, "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                    acknowledged.lock().unwrap().insert(name, answer.body);
                }
            });
        }
        let busy = (0..6_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            answered.load(Ordering::Relaxed) > WRITERS * EACH / 4
        });
        let killed = fleet.servers.first_mut().map(|server| server.child.kill());
        assert!(busy && matches!(killed, Some(Ok(()))));
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let cut = cut.into_inner();
    assert!(cut > 0, "it was killed too late");
    let half = WRITERS * EACH / 2;
    for answer in acknowledged.values() {
        let there = if let Some(key) = answer["api_key"].as_str() {
            Call::get("/v1/auth/me").by(key).ask(addresses[1])
        } else {
            let path = format!("/v1/workspaces/{}", answer["id"].as_str().unwrap());
            Call::get(path).by(&tenant.key).ask(addresses[2])
        };
        assert_eq!(there.status, 200, "acknowledged and lost: {answer}");
    }
    // There is exactly what was acknowledged and nothing else: no retry ran twice, and nothing is half done.
    let expected = i64::try_from(half).unwrap() + 1;
    for (table, rows) in [
        ("workspaces", expected),
        ("slugs", expected),
        ("api_keys", expected),
        ("memberships", 2 * expected - 1),
        ("principals", expected),
        ("audit_events", 2 * expected),
        ("idempotency WHERE status = 201 AND body IS NOT NULL", 2 * expected - 2),
        ("idempotency", 2 * expected - 2),
        ("workspaces w JOIN slugs s ON s.workspace_id = w.id AND s.slug = w.slug", expected),
        (
            "memberships m JOIN api_keys k ON k.principal_id = m.principal_id AND k.workspace_id = m.workspace_id",
            expected,
        ),
    ] {
        assert_eq!(fleet.count(&format!("SELECT count(*) FROM {table}")), rows, "{table}");
    }
    report(&format!(
        "replica killed: {} writes acknowledged, none lost, {cut} cut and repeated",
        acknowledged.len()
    ));
}
