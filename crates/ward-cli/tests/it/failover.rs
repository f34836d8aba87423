//! The database's primary dies, or freezes, and its standby takes over, while replicas read and write.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ward_test_db::postgres_only;
use ward_test_db::replicated::Pair;

use crate::client::Call;
use crate::fleet::{Tenant, new_workspace, replica};
use crate::replicas::report;

const WRITERS: usize = 6;

/// The answers that the writers got.
#[derive(Default)]
struct Observations {
    /// The slug, the id and the time of each acknowledged creation.
    done: Mutex<Vec<(String, String, Instant)>>,
    count: AtomicUsize,
    unavailable: AtomicUsize,
    unknown: AtomicUsize,
    replayed: AtomicUsize,
    /// The number of reads that succeeded.
    read: AtomicUsize,
    /// The number of reads that were told to retry.
    unread: AtomicUsize,
}

/// Reads acknowledged workspaces until stopped: each is there, or the database is unavailable.
fn read(addresses: &[std::net::SocketAddr], tenant: &Tenant, seen: &Observations, stop: &AtomicBool) {
    for round in 0..1_000_000 {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let Some(id) = seen.done.lock().unwrap().last().map(|(_, id, _)| id.clone()) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let call = Call::get(format!("/v1/workspaces/{id}")).by(&tenant.key);
        let answer = call.ask(addresses[round % addresses.len()]);
        match answer.status {
            200 => seen.read.fetch_add(1, Ordering::Relaxed),
            503 => {
                assert!(answer.has("retry-after"), "{answer:?}");
                std::thread::sleep(Duration::from_millis(50));
                seen.unread.fetch_add(1, Ordering::Relaxed)
            }
            _ => panic!("a wrong answer: {answer:?}"),
        };
    }
}

/// Creates workspaces until stopped, retrying each creation with its key until it has a final answer.
fn write(
    writer: usize,
    addresses: &[std::net::SocketAddr],
    tenant: &Tenant,
    seen: &Observations,
    stop: &AtomicBool,
) {
    for number in 0..100_000 {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let slug = format!("own-{writer}-{number}");
        let call = Call::post("/v1/me/workspaces", new_workspace(&slug))
            .by(&tenant.key)
            .repeatable(format!("{slug}-once-and-once-only"));
        let answered = (0..1_000).find_map(|round| {
            let answer = call.ask(addresses[(writer + number + round) % addresses.len()]);
            match answer.status {
                201 => Some(answer),
                503 => {
                    assert!(answer.has("retry-after"), "{answer:?}");
                    let unknown = answer.body["error_code"] == "outcome_unknown";
                    if unknown { &seen.unknown } else { &seen.unavailable }.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                    None
                }
                _ => panic!("a wrong answer: {answer:?}"),
            }
        });
        let answer = answered.expect("an end of the interruption");
        if answer.has("idempotency-replayed") {
            seen.replayed.fetch_add(1, Ordering::Relaxed);
        }
        seen.done.lock().unwrap().push((slug, answer.text("id").to_owned(), Instant::now()));
        seen.count.fetch_add(1, Ordering::SeqCst);
    }
}

postgres_only!(a_failover_loses_no_acknowledged_write_and_doubles_none, blocking);
fn a_failover_loses_no_acknowledged_write_and_doubles_none() {
    fail_over("killed", |pair| pair.primary.kill());
}

postgres_only!(a_frozen_primary_holds_nobody_up_once_its_standby_is_promoted, blocking);
fn a_frozen_primary_holds_nobody_up_once_its_standby_is_promoted() {
    // Its connections stay, and its operating system accepts more for it, but no process answers them.
    fail_over("frozen", |pair| pair.primary.freeze());
}

/// Ends the primary under load, promotes the standby, and looks for the acknowledged writes.
fn fail_over<T>(how: &str, end: impl Fn(&Pair) -> T) {
    let pair = Pair::start();
    pair.primary.sql("CREATE DATABASE ward");
    let servers =
        [replica(&pair.url("ward"), "127.0.0.1:0", 0), replica(&pair.url("ward"), "127.0.0.1:0", 0)];
    let addresses = servers.each_ref().map(|server| server.address);
    let tenant = Tenant::new(addresses[0], "acme");
    let (seen, stop) = (Observations::default(), AtomicBool::new(false));
    let more = |than: usize| {
        (0..12_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            seen.count.load(Ordering::SeqCst) >= than
        })
    };
    let killed = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (addresses, tenant, seen, stop) = (&addresses, &tenant, &seen, &stop);
            scope.spawn(move || write(writer, addresses, tenant, seen, stop));
        }
        for _ in 0..2 {
            let (addresses, tenant, seen, stop) = (&addresses, &tenant, &seen, &stop);
            scope.spawn(move || read(addresses, tenant, seen, stop));
        }
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(more(100), "the writers are stuck before the failover");
            let killed = Instant::now();
            let ended = end(&pair);
            // No server takes writes now: the writers must be told so instead of hanging.
            let told = (0..12_000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                let told = seen.unavailable.load(Ordering::Relaxed) + seen.unknown.load(Ordering::Relaxed);
                told > 0 && seen.unread.load(Ordering::Relaxed) > 0
            });
            assert!(told, "no answer says that the database is not there");
            pair.promote();
            let (wrote, read) = (seen.count.load(Ordering::SeqCst), seen.read.load(Ordering::SeqCst));
            assert!(more(wrote + 100), "the writers are stuck after the failover");
            // A read that was running when the primary froze ends at its own time limit, after many writes.
            let reads = (0..12_000).any(|_| {
                std::thread::sleep(Duration::from_millis(5));
                seen.read.load(Ordering::SeqCst) > read
            });
            assert!(reads, "no read succeeds after the failover");
            drop(ended);
            killed
        }));
        stop.store(true, Ordering::SeqCst);
        work.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let mut done = seen.done.into_inner().unwrap();
    done.sort_by_key(|(_, _, at)| *at);
    let gap = done.windows(2).map(|pair| pair[1].2 - pair[0].2).max().unwrap();
    let first_after =
        done.iter().find(|(_, _, at)| *at > killed + gap / 2).map_or(gap, |(_, _, at)| *at - killed);

    // Every acknowledged creation is there as acknowledged, and each was done once.
    let mut there = std::collections::HashMap::new();
    let mut token = 0;
    for _ in 0..10_000 {
        let path = format!("/v1/workspaces?limit=20&continuation_token={token}");
        let page = Call::get(path).by(&tenant.key).ask(addresses[1]);
        assert_eq!(page.status, 200, "{page:?}");
        for item in page.body["items"].as_array().unwrap() {
            let id = item["id"].as_str().unwrap().to_owned();
            assert_eq!(there.insert(item["slug"].as_str().unwrap().to_owned(), id), None);
        }
        match page.body["continuation_token"].as_i64() {
            Some(next) => token = next,
            None => break,
        }
    }
    for (slug, id, _) in &done {
        assert_eq!(there.get(slug), Some(id), "{slug} was acknowledged");
    }
    assert_eq!(there.len(), done.len() + 1, "a creation that was not acknowledged");
    report(&format!(
        "failover, primary {how}: longest write gap {gap:?}, first write {first_after:?} after that; {} acknowledged, none lost, \
         none doubled; {} answers said 503, {} outcome unknown; {} repeats found their first done; {} reads were right, {} said 503",
        done.len(),
        seen.unavailable.into_inner(),
        seen.unknown.into_inner(),
        seen.replayed.into_inner(),
        seen.read.into_inner(),
        seen.unread.into_inner()
    ));
    assert!(servers.iter().all(|server| server.log().contains("serving")));
}
