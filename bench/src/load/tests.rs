use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;
use crate::seed::{SeedData, Tenant};
use crate::workload::{Answers, Case};

/// Answers every request with this status. `delay` gives the delay for each request number.
fn server(status: &'static str, delay: fn(u64) -> Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let count = Arc::new(AtomicU64::new(0));
        for stream in listener.incoming() {
            let (mut stream, count) = (stream.unwrap(), count.clone());
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                // The requests of these tests have no bodies and arrive in one piece.
                while stream.read(&mut request).is_ok_and(|read| read > 0) {
                    std::thread::sleep(delay(count.fetch_add(1, Ordering::Relaxed)));
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn scripts(connections: usize) -> Vec<Script> {
    let tenant = Tenant { workspace: "w".to_owned(), key: "k".to_owned(), service: "s".to_owned() };
    let seeded = SeedData {
        workspace: "w".to_owned(),
        key: "k".to_owned(),
        revoked: "r".to_owned(),
        tenants: vec![tenant],
    };
    let seeded = Arc::new(seeded);
    (0..connections).map(|number| Script::new(&seeded, Case::Get, Answers::Worked, 0, number)).collect()
}

#[test]
fn percentiles_are_those_of_the_sorted_list() {
    let latencies: Vec<f64> = (0_u32..1000).rev().map(f64::from).collect();
    let found = percentiles(latencies).unwrap();
    assert!((found.p50 - 500.0).abs() < 0.5 && (found.p99 - 990.0).abs() < 0.5, "{found:?}");
    assert!((found.p999 - 999.0).abs() < 0.5, "{found:?}");
    assert!(percentiles(Vec::new()).is_err());
}

#[test]
fn the_edges_of_a_run_come_in_order_and_its_requests_are_counted() {
    let address = server("200 OK", |_| Duration::ZERO);
    let mut edges = Vec::new();
    let done = peak(address, scripts(4), Duration::from_millis(100), |edge| {
        edges.push(edge);
        Ok(())
    });
    let done = done.unwrap();
    assert_eq!(edges, [Edge::Begin, Edge::End, Edge::Idle]);
    assert!(done.requests > 0 && done.time >= Duration::from_millis(100), "{done:?}");
}

#[test]
fn a_wrong_answer_ends_a_run() {
    let address = server("503 Service Unavailable", |_| Duration::ZERO);
    let time = Duration::from_millis(50);
    let refused = peak(address, scripts(2), time, |_| Ok(())).unwrap_err().to_string();
    assert!(refused.contains("GET /v1/workspaces/w") && refused.contains("503"), "{refused}");
    assert!(paced(address, scripts(2), 100, time).is_err());
}

#[test]
fn what_was_due_during_a_stall_is_late() {
    // One connection has a thousand requests per second, and one answer takes half a second. The five hundred
    // requests due meanwhile are late by up to that time. A client that waits for each answer would see only one slow
    // request in a thousand.
    let stall = |number| if number == 20 { Duration::from_millis(500) } else { Duration::ZERO };
    let address = server("200 OK", stall);
    let latency = paced(address, scripts(1), 1_000, Duration::from_secs(1)).unwrap();
    assert!(latency.p99 >= 400_000.0, "{latency:?}");
    assert!(latency.p999 >= latency.p99 && latency.p99 >= latency.p50, "{latency:?}");
}

#[test]
fn so_many_are_due_at_once_after_every_interval() {
    let schedule =
        Schedule { started: Instant::now(), interval: Duration::from_millis(500), at_once: 3, total: 9 };
    let due: Vec<f64> = (0..9).map(|number| schedule.due(number)).collect();
    assert_eq!(due, [0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.5, 1.5, 1.5]);
}
