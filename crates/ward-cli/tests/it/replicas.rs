//! Several real servers on one real database agree with each other.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ward_test_db::postgres::shared;
use ward_test_db::postgres_only;

use crate::client::{Answer, Call, NoAnswer};
use crate::fleet::{Fleet, MASTER_KEY, Tenant, at_once, new_key, new_workspace, replica, tally};
use crate::support::{text, ward};

/// Writes past the test harness, which hides the output of passing tests.
pub fn report(figure: &str) {
    let _ = std::io::stderr().write_all(format!("\n{figure}\n").as_bytes());
}

postgres_only!(a_key_that_one_replica_ended_is_refused_by_the_others_next_answer, blocking);
fn a_key_that_one_replica_ended_is_refused_by_the_others_next_answer() {
    let fleet = Fleet::start(&[0, 0, 0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let me = |key: &str, at: usize| Call::get("/v1/auth/me").by(key).ask(fleet.at(at)).status;
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let minted = tenant.mint(fleet.at(round), "viewer");
        let (mut key, path) =
            (minted.text("api_key").to_owned(), format!("{}/{}", tenant.keys(), minted.text("key_id")));
        // Every replica has seen the key several times, so each has cached all that it ever caches of it.
        (0..6).for_each(|at| assert_eq!(me(&key, at), 200));

        let rotation = Call::post(format!("{path}/rotate"), json!({ "duration_days": 1 })).by(&tenant.key);
        let rotated = rotation.ask(fleet.at(round));
        let answered = Instant::now();
        assert_eq!([me(&key, round + 1), me(&key, round + 2), me(&key, round)], [401; 3]);
        longest = longest.max(answered.elapsed());
        rotated.text("api_key").clone_into(&mut key);
        (0..3).for_each(|at| assert_eq!(me(&key, at), 200));

        assert_eq!(Call::delete(&*path).by(&tenant.key).ask(fleet.at(round + 1)).status, 204);
        let answered = Instant::now();
        assert_eq!([me(&key, round + 2), me(&key, round), me(&key, round + 1)], [401; 3]);
        longest = longest.max(answered.elapsed());
    }
    report(&format!(
        "revocation: refused by every replica's next answer, 40 times of 40; all three had refused within {longest:?}"
    ));
}

postgres_only!(one_slug_and_one_claim_have_one_winner_over_all_replicas, blocking);
fn one_slug_and_one_claim_have_one_winner_over_all_replicas() {
    let fleet = Fleet::start(&[0, 0, 0]);
    let create = Call::post("/v1/workspaces", new_workspace("wanted"));
    let answers = at_once((0..30).collect(), |index| create.ask(fleet.at(index)));
    assert_eq!(tally(&answers, [201, 409]), [1, 29]);
    let created = answers.iter().find(|answer| answer.status == 201).unwrap();
    let path = format!("/v1/{}/api-keys", created.text("id"));
    let claim = Call::post(&*path, json!({ "duration_days": 1 }));
    let answers = at_once((0..30).collect(), |index| claim.ask(fleet.at(index)));
    assert_eq!(tally(&answers, [201, 401]), [1, 29]);
    assert_eq!(fleet.count("SELECT count(*) FROM memberships"), 1);
    assert_eq!(fleet.count("SELECT count(*) FROM workspaces"), 1);
    assert_eq!(fleet.count("SELECT sum(used)::bigint FROM bootstrap_slots"), 0);
}

/// Reads a list page by page until `done` and the end; returns the entries in order.
fn follow(at: SocketAddr, list: &str, key: &str, name: &str, done: &AtomicBool) -> Vec<String> {
    let (mut seen, mut token) = (Vec::new(), 0);
    for _ in 0..100_000 {
        // This is read before the page: a page that is read after the last creation is the last one.
        let last = done.load(Ordering::SeqCst);
        let page = Call::get(format!("{list}?limit=3&continuation_token={token}")).by(key).ask(at);
        assert_eq!(page.status, 200, "{page:?}");
        let more = page.body["has_more"] == true;
        if more || last {
            let items = page.body["items"].as_array().unwrap();
            seen.extend(items.iter().map(|item| item[name].as_str().unwrap().to_owned()));
        }
        if more {
            token = page.body["continuation_token"].as_i64().unwrap();
        } else if last {
            return seen;
        }
    }
    panic!("the list has no end");
}

postgres_only!(lists_have_no_gaps_though_the_clocks_of_two_replicas_differ, blocking);
fn lists_have_no_gaps_though_the_clocks_of_two_replicas_differ() {
    let fleet = Fleet::start(&[1_800, -1_800]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let (done, left) = (AtomicBool::new(false), AtomicUsize::new(4));
    std::thread::scope(|scope| {
        for creator in 0..4 {
            let (fleet, tenant, done, left) = (&fleet, &tenant, &done, &left);
            scope.spawn(move || {
                for index in 0..20 {
                    let at = fleet.at(creator + index);
                    let workspace = new_workspace(&format!("own-{creator}-{index}"));
                    let created = Call::post("/v1/me/workspaces", workspace).by(&tenant.key).ask(at);
                    assert_eq!(created.status, 201, "{created:?}");
                    tenant.mint(at, "viewer");
                }
                if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    done.store(true, Ordering::SeqCst);
                }
            });
        }
        for at in 0..2 {
            let (fleet, tenant, done) = (&fleet, &tenant, &done);
            scope.spawn(move || {
                for (list, name) in [("/v1/workspaces".to_owned(), "slug"), (tenant.keys(), "key_id")] {
                    let seen = follow(fleet.at(at), &list, &tenant.key, name, done);
                    let once: HashSet<&String> = seen.iter().collect();
                    assert_eq!((seen.len(), once.len()), (81, 81), "{list}: {seen:?}");
                }
            });
        }
    });
    // Without a real difference of the clocks, the test proves nothing.
    assert!(
        fleet.count("SELECT extract(epoch FROM max(created_at) - min(created_at))::bigint FROM api_keys")
            > 3_000
    );
}

postgres_only!(twenty_rotations_of_one_key_at_once_leave_one_secret, blocking);
fn twenty_rotations_of_one_key_at_once_leave_one_secret() {
    let fleet = Fleet::start(&[0, 0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let minted = tenant.mint(fleet.at(0), "viewer");
    let path = format!("{}/{}/rotate", tenant.keys(), minted.text("key_id"));
    let rotate = Call::post(path, json!({ "duration_days": 1 })).by(&tenant.key);
    let answers = at_once((0..20).collect(), |index| rotate.ask(fleet.at(index)));
    assert_eq!(tally(&answers, [200]), [20]);
    let alive =
        |answer: &&Answer| Call::get("/v1/auth/me").by(answer.text("api_key")).ask(fleet.at(1)).status == 200;
    assert_eq!(answers.iter().filter(alive).count(), 1);
    assert_eq!(fleet.count("SELECT count(*) FROM audit_events WHERE action = 'api_key.rotate'"), 20);
    no_deadlock(&fleet);
}

postgres_only!(thirty_keys_minted_while_the_workspace_is_archived_are_there_or_refused, blocking);
fn thirty_keys_minted_while_the_workspace_is_archived_are_there_or_refused() {
    let fleet = Fleet::start(&[0, 0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let mint = Call::post(tenant.keys(), new_key("viewer")).by(&tenant.key);
    let path = format!("/v1/workspaces/{}/archive", tenant.id);
    let archive = Call::post(path, json!({ "slug": "acme" })).by(&tenant.key);
    let mut answers = at_once((0..31).collect(), |index| {
        if index == 15 { archive.ask(fleet.at(0)) } else { mint.ask(fleet.at(index)) }
    });
    let archived = answers.remove(15);
    assert!(matches!(archived.status, 200 | 204), "{archived:?}");
    let [minted, _] = tally(&answers, [201, 401]);
    assert_eq!(fleet.count("SELECT count(*) FROM api_keys"), i64::try_from(minted).unwrap() + 1);
    for answer in answers.iter().filter(|answer| answer.status == 201) {
        assert_eq!(Call::get("/v1/auth/me").by(answer.text("api_key")).ask(fleet.at(1)).status, 401);
    }
    no_deadlock(&fleet);
}

postgres_only!(a_hundred_workspaces_created_by_one_user_at_once_are_all_there, blocking);
fn a_hundred_workspaces_created_by_one_user_at_once_are_all_there() {
    let fleet = Fleet::start(&[0, 0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let answers = at_once((0..100).collect(), |index| {
        let create = Call::post("/v1/me/workspaces", new_workspace(&format!("own-{index}")));
        create.by(&tenant.key).ask(fleet.at(index))
    });
    assert_eq!(tally(&answers, [201]), [100]);
    let seen = follow(fleet.at(1), "/v1/workspaces", &tenant.key, "slug", &AtomicBool::new(true));
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 101);
    no_deadlock(&fleet);
}

/// Deadlocks are broken and run again, so no answer mentions them; the database's log does.
fn no_deadlock(fleet: &Fleet) {
    let (mine, log) = (format!(" {}: ", fleet.database.name), shared().log());
    let told: Vec<&str> =
        log.lines().filter(|line| line.contains(&mine) && line.contains("deadlock detected")).collect();
    assert_eq!(told, Vec::<&str>::new());
}

const REPEAT: &str = "repeated-on-another-replica";

postgres_only!(the_same_request_on_two_replicas_at_the_same_moment_is_done_once, blocking);
fn the_same_request_on_two_replicas_at_the_same_moment_is_done_once() {
    let fleet = Fleet::start(&[0, 0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    for round in 0..10 {
        let slug = format!("own-{round}");
        let repeat = format!("{REPEAT}-{round}");
        let calls = [
            Call::post("/v1/workspaces", new_workspace(&format!("open-{round}"))),
            Call::post("/v1/me/workspaces", new_workspace(&slug)).by(&tenant.key),
            Call::post(tenant.keys(), new_key("viewer")).by(&tenant.key),
        ];
        for call in calls {
            let call = call.repeatable(&*repeat);
            let answers = at_once((0..4).collect(), |index| call.ask(fleet.at(index)));
            assert_eq!(tally(&answers, [201]), [4]);
            assert!(answers.iter().all(|answer| answer.body == answers[0].body), "{answers:?}");
            assert_eq!(answers.iter().filter(|answer| !answer.has("idempotency-replayed")).count(), 1);
        }
    }
    assert_eq!(fleet.count("SELECT count(*) FROM api_keys"), 11);
    assert_eq!(fleet.count("SELECT count(*) FROM workspaces"), 21);
}

postgres_only!(an_answer_lost_after_the_commit_is_given_again_by_another_replica, blocking);
fn an_answer_lost_after_the_commit_is_given_again_by_another_replica() {
    let fleet = Fleet::start(&[0, 0]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let committed = |call: &Call, query: &str| {
        let before = fleet.count(query);
        call.cut(fleet.at(0), || {
            // This is not a time measurement, but a limit on a wait that ends with the commit.
            let done = (0..3_000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                fleet.count(query) > before
            });
            assert!(done, "it is never committed");
        });
        let again = call.ask(fleet.at(1));
        assert!(again.has("idempotency-replayed"), "{again:?}");
        assert_eq!(fleet.count(query), before + 1, "it was done twice");
        again
    };
    let events = "SELECT count(*) FROM audit_events";
    let create = Call::post("/v1/workspaces", new_workspace("open")).repeatable(REPEAT);
    let created = committed(&create, events);
    let claim = Call::post(format!("/v1/{}/api-keys", created.text("id")), json!({ "duration_days": 1 }));
    let claimed = committed(&claim.repeatable(REPEAT), events);
    assert_eq!(Call::get("/v1/auth/me").by(claimed.text("api_key")).ask(fleet.at(0)).status, 200);
    let mint = Call::post(tenant.keys(), new_key("owner")).by(&tenant.key).repeatable(REPEAT);
    let minted = committed(&mint, events);
    // This is the hardest case: the retry uses the secret that the lost answer ended.
    let old = minted.text("api_key");
    let path = format!("{}/{}/rotate", tenant.keys(), minted.text("key_id"));
    let rotate = Call::post(path, json!({ "duration_days": 1 })).by(old).repeatable(REPEAT);
    let rotated = committed(&rotate, events);
    assert_eq!(Call::get("/v1/auth/me").by(rotated.text("api_key")).ask(fleet.at(0)).status, 200);
    assert_eq!(Call::get("/v1/auth/me").by(old).ask(fleet.at(0)).status, 401);
}

postgres_only!(replicas_that_start_at_once_on_an_empty_database_migrate_it_once, blocking);
fn replicas_that_start_at_once_on_an_empty_database_migrate_it_once() {
    let database = shared().database();
    let applied = at_once((0..3).collect(), |_: i32| {
        let folder = tempfile::tempdir().unwrap();
        let done = ward(folder.path(), &["migrate", "--json"])
            .env("WARD_DATABASE", &database.url)
            .env("WARD_MASTER_KEY", MASTER_KEY)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let said: Value = serde_json::from_slice(&done.stdout).unwrap();
        (said["applied"].as_array().unwrap().len(), said["present"].as_u64().unwrap())
    });
    let steps = database.number("SELECT count(*) FROM schema_steps");
    let by_all: usize = applied.iter().map(|(applied, _)| applied).sum();
    assert_eq!(i64::try_from(by_all).unwrap(), steps, "{applied:?}");

    let fleet = Fleet::start(&[0, 0, 0]);
    assert_eq!(fleet.count("SELECT count(*) FROM schema_steps"), steps);
    assert_eq!(fleet.count("SELECT count(*) FROM bootstrap_slots"), 16);
    let tenant = Tenant::new(fleet.at(0), "acme");
    (0..3).for_each(|at| assert_eq!(Call::get("/v1/auth/me").by(&tenant.key).ask(fleet.at(at)).status, 200));
}

postgres_only!(a_replica_with_another_master_key_does_not_start, blocking);
fn a_replica_with_another_master_key_does_not_start() {
    let fleet = Fleet::start(&[0]);
    let folder = tempfile::tempdir().unwrap();
    let mut other = ward(folder.path(), &["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off"]);
    other
        .env("WARD_DATABASE", &fleet.database.url)
        .env("WARD_MASTER_KEY", MASTER_KEY.replace("AAEC", "AAAA"));
    let refused = other.output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = text(&refused.stderr);
    assert!(said.contains("the master key is not the one that this database was first used with"), "{said}");
}

postgres_only!(provisioned_on_two_replicas_at_once_a_workspace_is_provisioned_once, blocking);
fn provisioned_on_two_replicas_at_once_a_workspace_is_provisioned_once() {
    let fleet = Fleet::start(&[0, 30]);
    let tenant = Tenant::new(fleet.at(0), "acme");
    let workspace = format!("/v1/workspaces/{}", tenant.id);
    let mut first = None;
    for (round, connector) in ["epic", "hubspot", "epic"].into_iter().enumerate() {
        let patch = Call::patch(&*workspace, json!({ "connector_type": connector })).by(&tenant.key);
        assert_eq!(patch.ask(fleet.at(round)).status, 200);
        let provision = Call::post(format!("{workspace}/provision"), json!({})).by(&tenant.key);
        let answers = at_once((0..20).collect(), |index| provision.ask(fleet.at(index)));
        assert_eq!(tally(&answers, [200]), [20]);
        let read = |at: usize| Call::get(&*workspace).by(&tenant.key).ask(fleet.at(at));
        let at = read(0).text("provisioned_at").to_owned();
        assert_eq!(read(1).text("provisioned_at"), at);
        let rows = i64::try_from(round + 1).unwrap().min(2);
        assert_eq!(fleet.count("SELECT count(*) FROM integrations"), rows);
        // The first row and the provisioning make one event, and the second row makes another.
        let told = "SELECT count(*) FROM audit_events WHERE action = 'workspace.provision'";
        assert_eq!(fleet.count(told), rows);
        assert_eq!(*first.get_or_insert_with(|| at.clone()), at, "it is set once, by the first");
    }
    no_deadlock(&fleet);
}

postgres_only!(a_rolling_upgrade_drops_no_request, blocking);
fn a_rolling_upgrade_drops_no_request() {
    let mut fleet = Fleet::start(&[0, 0, 0]);
    let addresses: Vec<SocketAddr> = fleet.servers.iter().map(|server| server.address).collect();
    let tenant = Tenant::new(addresses[0], "acme");
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..4_usize {
            let (addresses, tenant, stop, answered) = (&addresses, &tenant, &stop, &answered);
            scope.spawn(move || {
                let mut next = client;
                for number in 0..1_000_000 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let call = match number % 3 {
                        0 => {
                            Call::post("/v1/me/workspaces", new_workspace(&format!("own-{client}-{number}")))
                        }
                        1 => Call::get("/v1/workspaces"),
                        _ => Call::get(format!("/v1/workspaces/{}", tenant.id)),
                    };
                    let call = call.by(&tenant.key);
                    let answer = (0..addresses.len()).find_map(|_| {
                        next += 1;
                        match call.attempt(addresses[next % addresses.len()]) {
                            Ok(answer) => Some(answer),
                            Err(NoAnswer::Refused) => None,
                            Err(NoAnswer::Cut) => panic!("a request that was sent got no answer"),
                        }
                    });
                    let answer = answer.expect("a replica that listens");
                    assert_eq!(answer.status, if number % 3 == 0 { 201 } else { 200 }, "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The clients are stopped even after a failure here, because the scope waits for them.
        let rolled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (index, address) in addresses.iter().enumerate() {
                let enough = answered.load(Ordering::Relaxed) + 40;
                let busy = (0..3_000).any(|_| {
                    std::thread::sleep(Duration::from_millis(10));
                    answered.load(Ordering::Relaxed) >= enough
                });
                assert!(busy, "the clients are stuck");
                fleet.servers.remove(index).stopped();
                if index == 1 {
                    // A newer binary changes the schema while older ones still use it.
                    migrate_as_a_newer_binary_would(&fleet);
                }
                fleet.servers.insert(index, replica(&fleet.database.url, &address.to_string(), 0));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        rolled.unwrap();
    });
    let slugs = fleet.count("SELECT count(*) FROM slugs");
    assert!(slugs > 30, "{slugs}");
    report(&format!("rolling upgrade: {} requests answered, none dropped", answered.into_inner()));
}

fn migrate_as_a_newer_binary_would(fleet: &Fleet) {
    let step = "WITH step AS (INSERT INTO schema_steps VALUES ('9999_newer', 1, '', '0.1.0', now()) RETURNING 1) \
                SELECT count(*) FROM step";
    assert_eq!(fleet.count(step), 1);
    fleet.database.run("ALTER TABLE workspaces ADD COLUMN newer text");
    fleet.database.run("ALTER TABLE api_keys ADD COLUMN newer text");
}
