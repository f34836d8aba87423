//! Calls in, deliveries out: how fast, as ratios to what the engine can make durable at all, and whether history costs.
//!
//! `cargo run --release -p bench --bin sync -- sqlite` (or `postgres`, or both). Everything runs in one process on this
//! machine, with real flushes; the receiver answers 201 to everything at once.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use ward::sync::worker::{Options, Worker};
use ward_ehr::{Limits, Outbound, Tokens};
use ward_test::{Engine, Server, Tenant};

/// Clients at once.
const CLIENTS: usize = 64;
/// How long each measurement takes.
const SPAN: Duration = Duration::from_secs(5);
/// Settled deliveries that the queue's cost is compared at.
const HISTORIES: [u64; 2] = [1_000, 1_000_000];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    if asked("sqlite") {
        ward_test_db::run(Engine::Sqlite, 2, || measure("sqlite"));
    }
    if asked("postgres") {
        ward_test_db::run(Engine::Postgres, 2, || measure("postgres"));
    }
}

/// Runs `work` from many tasks for a while; how often it was done in a second.
async fn rate<F>(work: impl Fn(u64) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (began, mut next, mut running) = (Instant::now(), 0, JoinSet::new());
    let mut done = 0_u32;
    while began.elapsed() < SPAN {
        while running.len() < CLIENTS {
            running.spawn(work(next));
            next += 1;
        }
        if let Some(Ok(())) = running.join_next().await {
            done += 1;
        }
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    running.join_all().await;
    rate
}

/// A receiver that takes everything at once: its base URL, and how many writes it took.
async fn receiver() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/fhir", listener.local_addr().expect("an address"));
    let taken = Arc::new(AtomicU64::new(0));
    let counted = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let counted = counted.clone();
            tokio::spawn(async move {
                let (mut buffer, mut chunk) = (Vec::new(), [0; 16 << 10]);
                while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                    buffer.extend_from_slice(&chunk[..read]);
                    while let Some(whole) = whole_request(&buffer) {
                        buffer.drain(..whole);
                        let id = counted.fetch_add(1, Ordering::Relaxed);
                        let answer = format!(
                            "HTTP/1.1 201 Created\r\nlocation: /fhir/Communication/{id}\r\ncontent-length: 0\r\n\r\n"
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (url, taken)
}

/// The length of the first request in `buffer`, if it is there to its end.
fn whole_request(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let whole = head + length.unwrap_or(0);
    (buffer.len() >= whole).then_some(whole)
}

async fn measure(engine: &'static str) {
    let options = ward_db::Options { serve_lock: true, ..ward_db::Options::default() };
    let server = Server::on(|_| {}, options).await;
    let (url, taken) = receiver().await;
    let tenant = server.tenant("bench").await;
    connect(&server, &tenant, &url).await;

    let db = server.app.db.clone();
    server.sql("CREATE TABLE bench_ceiling (id bigint NOT NULL PRIMARY KEY, body text NOT NULL)").await;
    let ceiling = rate(move |number| {
        let db = db.clone();
        async move {
            let number = i64::try_from(number).unwrap_or_default();
            let written = db.write("bench.ceiling", move |tx| {
                tx.execute("INSERT INTO bench_ceiling (id, body) VALUES ($1, 'x')", &[number.into()])
            });
            let _: Result<u64, ward_db::Error> = written.await;
        }
    })
    .await;
    println!("{engine}: durable one-row writes     {ceiling:>9.0}/s   1.00");

    let client = reqwest::Client::builder().pool_max_idle_per_host(CLIENTS).build().expect("a client");
    let key = tenant.owner.bearer.clone().expect("a key");
    let root = format!("{}{}", server.url(), tenant.path("/calls"));
    let calls = rate(move |number| {
        let (client, key, url) = (client.clone(), key.clone(), format!("{root}/CA{number}"));
        async move {
            let body = json!({ "status": "completed", "caller_id": "+15550100002", "direction": "inbound" });
            let answer = client.put(url).bearer_auth(key).json(&body).send().await;
            assert!(answer.is_ok_and(|answer| answer.status().is_success()), "a call was not taken");
        }
    })
    .await;
    println!("{engine}: calls ingested over HTTP   {calls:>9.0}/s   {:.2}", calls / ceiling);

    let worker = worker(&server);
    let owed = server.count("SELECT count(*) FROM delivery_queue").await;
    let (began, before) = (Instant::now(), taken.load(Ordering::Relaxed));
    while began.elapsed() < SPAN && worker.turn().await > 0 {}
    let sent = f64::from(u32::try_from(taken.load(Ordering::Relaxed) - before).unwrap_or(u32::MAX));
    let deliveries = sent / began.elapsed().as_secs_f64();
    println!(
        "{engine}: deliveries to one receiver {deliveries:>9.0}/s   {:.2}   ({owed} were owed)",
        deliveries / ceiling
    );
    while worker.turn().await > 0 {}

    let mut times = Vec::new();
    for history in HISTORIES {
        settle(&server, &tenant, engine, history).await;
        let (idle, busy) = look(&server, &tenant, &worker, history).await;
        println!(
            "{engine}: with {history:>9} settled: an idle look {idle:>7.0} us, one delivery {busy:>7.0} us"
        );
        times.push((idle, busy));
    }
    println!(
        "{engine}: a thousand times the history costs {:.2} times the look, {:.2} times the delivery",
        times[1].0 / times[0].0,
        times[1].1 / times[0].1
    );
}

async fn connect(server: &Server, tenant: &Tenant, url: &str) {
    let patch = json!({ "connector_type": "fhir_store" });
    tenant.owner.patch(&tenant.workspace(""), patch).await.expect(reqwest::StatusCode::OK);
    tenant.owner.post(&tenant.workspace("/provision"), json!({})).await.expect(reqwest::StatusCode::OK);
    server.sql(format!("UPDATE integrations SET base_url = '{url}', auth = NULL, enabled = true")).await;
}

fn worker(server: &Server) -> Worker {
    let limits = Limits {
        allow: vec!["127.0.0.0/8".parse().expect("a network")],
        plain_http: true,
        concurrency: 16,
        ..Limits::default()
    };
    let outbound = Outbound::new(limits).expect("a client");
    let options = Options { batch: 64, concurrency: 16, ..Options::default() };
    Worker::new(server.app.clone(), outbound, Tokens::default(), options)
}

/// Fills the tables with calls whose deliveries are settled, up to so many.
async fn settle(server: &Server, tenant: &Tenant, engine: &str, history: u64) {
    let id = |kind: u8| match engine {
        "postgres" => format!("('{kind}0000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid"),
        _ => format!("'{kind}0000000-0000-7000-8000-' || printf('%012d', i)"),
    };
    let present = server.count("SELECT count(*) FROM deliveries").await;
    let from = server.count("SELECT count(*) FROM calls WHERE call_sid LIKE 'old-%'").await;
    let more = i64::try_from(history).unwrap_or(i64::MAX) - present;
    if more <= 0 {
        return;
    }
    let numbers = format!(
        "WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {from} + {more} - 1)"
    );
    let one = "(SELECT * FROM calls WHERE call_sid = 'CA0')";
    server
        .sql(format!(
            "INSERT INTO calls (workspace_id, id, call_sid, direction, reported_direction, reported_by, caller_form, \
                    list_version, status, finished, started_at, details, first_reported_at, updated_at) \
             {numbers} SELECT c.workspace_id, {}, 'old-' || i, 'inbound', 'inbound', 'runtime', 'withheld', 0, 'completed', \
                    true, c.started_at, c.details, c.first_reported_at, c.updated_at FROM n, {one} AS c",
            id(1)
        ))
        .await;
    server
        .sql(format!(
            "INSERT INTO deliveries (workspace_id, id, integration_id, call_id, direction, state, attempts, maybe_sent, \
                    position, created_at, settled_at) \
             {numbers} SELECT d.workspace_id, {}, d.integration_id, {}, 'inbound', 'synced', 1, false, i + 1, \
                    d.created_at, d.created_at FROM n, (SELECT * FROM deliveries WHERE workspace_id = '{}' LIMIT 1) AS d",
            id(2),
            id(1),
            tenant.id
        ))
        .await;
}

/// Microseconds of a look that finds nothing, and of one delivery from owed to settled.
async fn look(server: &Server, tenant: &Tenant, worker: &Worker, history: u64) -> (f64, f64) {
    const LOOKS: u32 = 2_000;
    const DELIVERIES: u32 = 300;
    let began = Instant::now();
    for _ in 0..LOOKS {
        worker.turn().await;
    }
    let idle = began.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKS);
    let began = Instant::now();
    for number in 0..DELIVERIES {
        let body = json!({ "status": "completed", "caller_id": Value::Null, "direction": "inbound" });
        let path = tenant.path(&format!("/calls/CB-{history}-{number}"));
        tenant.owner.put(&path, body).await.expect(reqwest::StatusCode::OK);
        worker.turn().await;
    }
    let busy = began.elapsed().as_secs_f64() * 1e6 / f64::from(DELIVERIES);
    assert_eq!(server.count("SELECT count(*) FROM delivery_queue").await, 0);
    (idle, busy)
}
