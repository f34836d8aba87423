//! Calls and their deliveries with the real binary: commands, exit codes, metrics and shutdown.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ward::app::{App, CommandAccess};
use ward::config::{Config, MasterKey};

use crate::client::Call;
use crate::fleet::Tenant;
use crate::support::{Server, get, run, text};

const TESTER: &str = "+15550100001";
const PATIENT: &str = "+15550100002";

/// An EHR that accepts everything, refuses everything, or accepts slowly.
struct Ehr {
    address: SocketAddr,
    refuses: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
}

impl Ehr {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ehr = Self {
            address: listener.local_addr().unwrap(),
            refuses: Arc::default(),
            slow: Arc::default(),
            asked: Arc::default(),
            taken: Arc::default(),
        };
        let (refuses, slow, asked, taken) =
            (ehr.refuses.clone(), ehr.slow.clone(), ehr.asked.clone(), ehr.taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (refuses, slow, asked, taken) =
                    (refuses.clone(), slow.clone(), asked.clone(), taken.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let (mut heard, mut chunk) = (Vec::new(), [0; 16 << 10]);
                    while let Ok(read @ 1..) = stream.read(&mut chunk) {
                        heard.extend_from_slice(&chunk[..read]);
                        if !is_whole(&heard) {
                            continue;
                        }
                        heard.clear();
                        asked.fetch_add(1, Ordering::SeqCst);
                        if slow.load(Ordering::SeqCst) {
                            std::thread::sleep(Duration::from_millis(500));
                        }
                        let answer = if refuses.load(Ordering::SeqCst) {
                            "HTTP/1.1 422 X\r\ncontent-length: 0\r\n\r\n".to_owned()
                        } else {
                            let id = taken.fetch_add(1, Ordering::SeqCst);
                            format!(
                                "HTTP/1.1 201 X\r\nlocation: /fhir/Communication/{id}\r\ncontent-length: 0\r\n\r\n"
                            )
                        };
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        ehr
    }

    fn until_asked(&self, times: usize) {
        until(|| self.asked.load(Ordering::SeqCst) >= times);
    }
}

fn is_whole(heard: &[u8]) -> bool {
    let text = String::from_utf8_lossy(heard);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_mins(1), "the expected state is not reached");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server that may call local addresses, and a tenant whose connector is this EHR.
fn connected(ehr: &Ehr) -> (Server, Tenant) {
    let server = Server::start(&[
        "--metrics-listen",
        "127.0.0.1:0",
        "--outbound-allow",
        "127.0.0.0/8",
        "--outbound-plain-http",
        "on",
    ]);
    let at = server.address;
    let tenant = Tenant::new(at, "acme");
    let done = |call: Call| {
        let answer = call.by(&tenant.key).ask(at);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let workspace = format!("/v1/workspaces/{}", tenant.id);
    done(Call::put(format!("{workspace}/test-caller-numbers"), json!({ "numbers": [TESTER] })));
    done(Call::patch(&*workspace, json!({ "connector_type": "fhir_store" })));
    done(Call::post(format!("{workspace}/provision"), json!({})));
    let listed = done(Call::get(format!("/v1/{}/integrations", tenant.id)));
    let id = listed.body["items"][0]["id"].as_str().unwrap().to_owned();
    let change = json!({ "base_url": format!("http://{}/fhir", ehr.address), "auth": null, "enabled": true });
    done(Call::put(format!("/v1/{}/integrations/{id}", tenant.id), change));
    (server, tenant)
}

fn report(server: &Server, tenant: &Tenant, sid: &str, caller: &str) {
    let body = json!({ "status": "completed", "caller_id": caller, "direction": "inbound" });
    let path = format!("/v1/{}/calls/{sid}", tenant.id);
    assert_eq!(Call::put(path, body).by(&tenant.key).ask(server.address).status, 200);
}

fn printed(folder: &Path, arguments: &[&str]) -> Value {
    let done = run(folder, &[arguments, &["--json"]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn metrics(server: &Server) -> String {
    let place = server.welcome.split_whitespace().find(|word| word.ends_with("/metrics")).unwrap();
    get(place.trim_start_matches("http://").trim_end_matches("/metrics").parse().unwrap(), "/metrics")
}

#[test]
fn the_operator_sees_and_steers_deliveries() {
    let ehr = Ehr::start();
    let (server, tenant) = connected(&ehr);
    let folder = server.folder.path();
    ehr.refuses.store(true, Ordering::SeqCst);
    report(&server, &tenant, "CA1", PATIENT);
    report(&server, &tenant, "CA2", TESTER);
    let queue = || printed(folder, &["sync", "status", "acme"])[0].clone();
    until(|| queue()["failed"] == 1);

    let table = run(folder, &["sync", "status", "acme"]);
    assert!(text(&table.stdout).contains("fhir_store"), "{}", text(&table.stdout));
    assert_eq!(printed(folder, &["sync", "hold", "acme", "fhir_store"])[0]["held"], true);
    assert_eq!(printed(folder, &["sync", "retry", "acme"])["retried"], 1);
    ehr.refuses.store(false, Ordering::SeqCst);
    assert_eq!(printed(folder, &["sync", "hold", "acme", "fhir_store", "--release"])[0]["held"], false);
    until(|| queue()["synced"] == 1);

    ehr.refuses.store(true, Ordering::SeqCst);
    report(&server, &tenant, "CA3", PATIENT);
    until(|| queue()["failed"] == 1);
    let path = format!("/v1/{}/deliveries?state=failed", tenant.id);
    let failed = Call::get(path).by(&tenant.key).ask(server.address);
    let id = failed.body["items"][0]["id"].as_str().unwrap();
    let neither = run(folder, &["sync", "resolve", "acme", id]);
    assert_eq!(neither.status.code(), Some(2), "{neither:?}");
    let resolve = ["sync", "resolve", "acme", id, "--in-ehr", "--location", "Communication/7"];
    assert_eq!(printed(folder, &resolve)["state"], "synced");
    let again = run(folder, &["sync", "resolve", "acme", id, "--in-ehr"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("already in the EHR"), "{}", text(&again.stderr));
    // The first finding was wrong, so the delivery goes back into its queue.
    assert_eq!(printed(folder, &["sync", "resolve", "acme", id, "--not-in-ehr"])["state"], "pending");
    for wrong in [
        &["sync", "status", "nobody"][..],
        &["sync", "retry", "acme", "nothing"],
        &["sync", "hold", "acme", "epic"],
    ] {
        assert_eq!(run(folder, wrong).status.code(), Some(1), "{wrong:?}");
    }
}

#[test]
fn a_proof_of_exclusion_is_printed_and_fails_when_it_is_none() {
    let ehr = Ehr::start();
    let (server, tenant) = connected(&ehr);
    let folder = server.folder.path();
    report(&server, &tenant, "CA-real", PATIENT);
    report(&server, &tenant, "CA-test", TESTER);
    ehr.until_asked(1);
    let prove = ["calls", "prove-exclusion", "acme", "--from", "2020-01-01", "--to", "2100-01-01"];
    let proof = printed(folder, &prove);
    assert_eq!((&proof["violations"], &proof["others_looked_at"]), (&json!(0), &json!(1)));
    assert_eq!(proof["calls"][0]["call_sid"], "CA-test");
    let table = text(&run(folder, &prove).stdout);
    assert!(table.contains("CA-test") && table.contains("1 test calls, 0 of them not excluded"), "{table}");

    // The calls were tampered with.
    let config = Config {
        database: format!("sqlite:{}", folder.join("ward.db").display()),
        master_key: MasterKey::File { path: folder.join("ward.key"), create: false },
        ..Config::default()
    };
    let app = App::open_beside(config, CommandAccess::Seal).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let changed = format!("UPDATE calls SET caller = '{TESTER}' WHERE call_sid = 'CA-real'");
    let changed = runtime.block_on(app.db.write("test.tamper", move |tx| tx.execute(&changed, &[])));
    assert_eq!(changed.unwrap(), 1);
    runtime.block_on(app.shutdown());
    let failed = run(folder, &prove);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stdout).contains("1 other calls, 1 of them from test callers"), "{failed:?}");
    assert!(text(&failed.stderr).contains("please report it"), "{failed:?}");
}

#[test]
fn metrics_tell_of_deliveries_and_name_nobody() {
    let ehr = Ehr::start();
    let (server, tenant) = connected(&ehr);
    assert!(metrics(&server).contains("ward_sync_stopped_total 0"), "{}", metrics(&server));
    report(&server, &tenant, "CA-secret", PATIENT);
    ehr.until_asked(1);
    let counted = "ward_sync_attempts_total{outcome=\"synced\"} 1";
    until(|| metrics(&server).contains(counted));
    let page = metrics(&server);
    for line in [
        "# HELP ward_sync_queue_depth ",
        "# HELP ward_sync_queue_oldest_seconds ",
        "# HELP ward_sync_attempts_total ",
        "# HELP ward_sync_delivery_seconds ",
        "ward_sync_queue_depth 0",
        "ward_sync_queue_oldest_seconds 0",
        "ward_sync_delivery_seconds_bucket{le=\"86400\"} 1",
        "ward_sync_delivery_seconds_count 1",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("ward_sync_")).collect();
    for line in &lines {
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
        let known = ["", "outcome=\"synced\""].contains(&labels) || labels.starts_with("le=\"");
        assert!(known, "an unexpected label: {line}");
    }
    for private in ["acme", &tenant.id, PATIENT, "CA-secret"] {
        assert!(!page.contains(private), "{private}");
    }
}

#[test]
fn a_server_told_to_stop_settles_what_it_is_sending() {
    let ehr = Ehr::start();
    let (mut server, tenant) = connected(&ehr);
    ehr.slow.store(true, Ordering::SeqCst);
    report(&server, &tenant, "CA1", PATIENT);
    ehr.until_asked(1);
    server.signal("TERM");
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    let queue = printed(server.folder.path(), &["sync", "status", "acme"])[0].clone();
    assert_eq!((&queue["synced"], &queue["pending"]), (&json!(1), &json!(0)), "{log}");
    assert_eq!(ehr.taken.load(Ordering::SeqCst), 1);
}
