//! Workers as real processes, killed at every step: no delivery is lost and none is doubled.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use ward::app::App;
use ward::clock::Clock;
use ward::config::{Config, MasterKey};
use ward::deliveries::worker::{Options, Step};
use ward_db::Db;
use ward_test::ehr::{Act, ScriptedEhr};
use ward_test::{Fields as _, Server, both};

use crate::calls::{finished, put};
use crate::deliveries::{AMPLE, PATIENT, TESTER, connected, worker, worker_with};

/// Ends the process like `kill -9`: no destructor runs, no buffer is written, no transaction ends.
fn die() {
    let id = std::process::id().to_string();
    let _ = Command::new("kill").args(["-9", &id]).status();
    std::thread::sleep(Duration::from_secs(5));
}

/// Not a test by itself, but the process that `killed_at` starts: a worker that dies at the given occurrence of a step.
#[test]
#[ignore = "is run by the tests of this file, in processes of its own"]
fn worker_process() {
    let Ok(plan) = std::env::var("WARD_TEST_WORKER") else { return };
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config {
            database: plan.text("database").to_owned(),
            master_key: MasterKey::Given([7; 32].into()),
            ..Config::default()
        };
        let options = ward_db::Options { create: false, ..ward_db::Options::default() };
        let db = Db::open(&config.database, options).unwrap();
        let clock = Clock::default();
        clock.advance(Duration::from_secs(plan["hours"].as_u64().unwrap() * 3_600));
        let app = App::on(config, db, clock).unwrap();
        let (step, after) = (plan.text("step").to_owned(), plan["after"].as_u64().unwrap());
        let left = AtomicUsize::new(usize::try_from(after).unwrap());
        let on_step = move |now: Step| {
            let counts = step == "any" || format!("{now:?}") == step;
            if counts && left.fetch_sub(1, Ordering::SeqCst) == 1 {
                die();
            }
        };
        let options = Options { batch: 3, on_step: Some(Arc::new(on_step)), ..Options::default() };
        let worker = worker_with(&app, AMPLE, options);
        while worker.turn().await > 0 {}
    });
}

fn worker_process_of(server: &Server, step: &str, after: usize, hours: u64) -> Command {
    let plan =
        json!({ "database": server.app.config.database, "step": step, "after": after, "hours": hours });
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::worker_process", "--ignored", "--nocapture"]);
    command.env("WARD_TEST_WORKER", plan.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts a worker process and waits until it ends.
pub async fn killed_at(server: &Server, step: &str, after: usize, hours: u64) -> ExitStatus {
    let mut command = worker_process_of(server, step, after, hours);
    tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap()
}

/// Runs a worker until no delivery is queued.
pub async fn finish(server: &Server, hours: u64) {
    server.clock.advance(Duration::from_secs(hours * 3_600));
    let living = worker(&server.app);
    for _ in 0..30 {
        while living.turn().await > 0 {}
        if server.count("SELECT count(*) FROM delivery_queue").await == 0 {
            break;
        }
        server.clock.advance(Duration::from_mins(61));
    }
}

#[track_caller]
fn one_for_each(ehr: &ScriptedEhr, real: usize) {
    let counts = ehr.counts();
    assert_eq!(counts.len(), real, "{counts:?}");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert!(!ehr.asked().iter().any(|asked| asked.body.contains(TESTER)));
}

both!(a_worker_killed_at_any_step_loses_nothing_and_doubles_nothing, threads = 2, async || {
    // HubSpot has no conditional create, so only the search prevents duplicates.
    for connector in ["fhir_store", "hubspot"] {
        for (step, lost) in [("Leased", true), ("Sent", true), ("Settled", false)] {
            let server = Server::start().await;
            let ehr = ScriptedEhr::start().await;
            let tenant = connected(&server, connector, &ehr.url()).await;
            for index in 0..4 {
                let caller = if index == 2 { TESTER } else { PATIENT };
                put(&tenant, &format!("CA{index}"), finished(caller)).await;
            }
            let ended = killed_at(&server, step, 1, 0).await;
            assert!(!ended.success(), "{step}: it was killed");
            let marked = server.count("SELECT count(*) FROM deliveries WHERE state = 'sending'").await;
            assert_eq!(marked > 0, lost, "{step}");
            // Until the lease expires, no other worker touches its deliveries.
            let before = ehr.asked().len();
            worker(&server.app).turn().await;
            assert_eq!(ehr.asked().len(), before, "{step}");
            finish(&server, 1).await;
            one_for_each(&ehr, 3);
            assert_eq!(
                server.count("SELECT count(*) FROM deliveries WHERE state = 'synced'").await,
                3,
                "{step}"
            );
            let lost_tries = "SELECT count(*) FROM delivery_attempts WHERE outcome = 'lost'";
            assert_eq!(server.count(lost_tries).await, marked, "{step}: each lost attempt is recorded");
        }
    }
});

both!(a_worker_killed_during_its_request_loses_and_doubles_nothing, threads = 2, async || {
    for connector in ["fhir_store", "hubspot"] {
        for (act, taken) in [(Act::TakeAndHang, 1), (Act::Hang, 0)] {
            let server = Server::start().await;
            let ehr = ScriptedEhr::start().await;
            let tenant = connected(&server, connector, &ehr.url()).await;
            ehr.script([act.clone()]);
            put(&tenant, "CA1", finished(PATIENT)).await;
            // The worker dies after it has sent the request and before the answer arrives.
            let mut process = worker_process_of(&server, "none", 1, 0).spawn().unwrap();
            ehr.until_written(1).await;
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!(server.count("SELECT count(*) FROM deliveries WHERE state = 'sending'").await, 1);
            assert_eq!(ehr.kept().len(), taken, "{act:?}");
            finish(&server, 1).await;
            one_for_each(&ehr, 1);
            assert_eq!(ehr.writes(), 2 - taken, "{act:?} {connector}: the search comes first");
        }
    }
});

both!(killed_workers_and_a_failing_ehr_leave_one_resource_per_real_call, threads = 2, async || {
    let server = Server::start().await;
    let ehr = ScriptedEhr::start().await;
    let tenant = connected(&server, "fhir_store", &ehr.url()).await;
    for index in 0..24 {
        let caller = if index % 4 == 0 { TESTER } else { PATIENT };
        put(&tenant, &format!("CA{index}"), finished(caller)).await;
    }
    let moods = [
        Act::Take,
        Act::TakeAndReset,
        Act::Say(500, json!(null), ""),
        Act::Take,
        Act::TakeAndSay(502),
        Act::Reset,
    ];
    ehr.script(moods.iter().cycle().take(30).cloned());
    let mut killed = 0;
    for round in 0..10 {
        let ended = killed_at(&server, "any", 1 + round % 5, 2 * round as u64 + 1).await;
        killed += usize::from(!ended.success());
    }
    assert!(killed >= 3, "{killed}");
    finish(&server, 24).await;
    one_for_each(&ehr, 18);
    assert_eq!(server.count("SELECT count(*) FROM deliveries WHERE state = 'synced'").await, 18);
});
