//! Calls in, deliveries out: how fast, as ratios to what the engine can make durable at all, and whether history costs.
//!
//! `cargo run --release -p bench --bin sync` (about six minutes) prints a section in Markdown and, with `--out`, writes it.
//! Everything runs in one process on this machine, with real flushes on both engines: SQLite with `synchronous=FULL`,
//! PostgreSQL, a throw-away server, with `fsync` on. The receiver answers 201 to everything at once.

#![expect(clippy::doc_markdown, reason = "SQLite and PostgreSQL are names, not code")]
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use ward::deliveries::worker::{Options, Worker};
use ward_ehr::{Limits, Outbound, Tokens};
use ward_test::{Engine, Server, Tenant};
use ward_test_db::postgres;

/// Clients at once.
const CLIENTS: usize = 64;
/// Workspaces that calls are spread over, where they are.
const SPREAD: usize = 16;
/// Settled deliveries that the queue's cost is compared at.
const HISTORIES: [u64; 2] = [1_000, 1_000_000];
/// What makes a throw-away PostgreSQL server wait for the disk as one in earnest does.
const DURABLE: [&str; 5] =
    ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "wal_level=replica", "autovacuum=on"];

/// What to measure.
#[derive(Parser)]
struct Plan {
    /// `sqlite` or `postgres`; both, when absent.
    engines: Vec<String>,
    /// How long each rate is taken, seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each thing is measured, in turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The larger of the two histories that are compared.
    #[arg(long, default_value_t = HISTORIES[1])]
    history: u64,
    /// A file to write the section to, over what it holds.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() {
    let plan = Plan::parse();
    let asked = |name: &str| plan.engines.is_empty() || plan.engines.iter().any(|one| one == name);
    let mut section = String::from(
        "# Calls in, deliveries out\n\nWritten by `bench`'s `sync`; what it measures is in \
         [bench/README.md](../bench/README.md).\n",
    );
    for (name, engine) in [("SQLite", Engine::Sqlite), ("PostgreSQL", Engine::Postgres)] {
        if !asked(&name.to_lowercase().replace("postgresql", "postgres")) {
            continue;
        }
        let (plan, section) = (&plan, &mut section);
        ward_test_db::run(engine, 2, || async move {
            let place = Place::of(engine);
            rates(name, &place, plan, section).await;
            histories(engine, &place, plan, section).await;
        });
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = write!(
        section,
        "\nMachine: {cores} cores, shared by Ward, its clients, the receiver and the database. Medians of {} rounds; \
         a ratio is taken within its round. Command: `cargo run --release -p bench --bin sync -- --seconds {} \
         --rounds {} --history {}`\n",
        plan.rounds, plan.seconds, plan.rounds, plan.history
    );
    println!("{section}");
    if let Some(out) = &plan.out {
        std::fs::write(out, section).expect("the file can be written");
    }
}

/// Where fresh databases come from.
enum Place {
    /// Each is a file of its server's own.
    Files,
    /// A server that waits for the disk.
    Durable(postgres::Server),
}

/// A server on a fresh database.
struct Fresh {
    server: Server,
    tenant: Tenant,
    worker: Worker,
    /// How many writes the receiver took.
    taken: Arc<AtomicU64>,
    /// Where the receiver is.
    url: String,
    /// Dropped last.
    _database: Option<postgres::Database>,
}

impl Place {
    fn of(engine: Engine) -> Self {
        match engine {
            Engine::Sqlite => Self::Files,
            Engine::Postgres => Self::Durable(postgres::Server::start(&DURABLE, |_| ())),
        }
    }

    async fn fresh(&self) -> Fresh {
        let options = ward_db::Options {
            serve_lock: true,
            // A history is filled by statements longer than any of the product's.
            statement_time: Duration::from_mins(10),
            closure_time: Duration::from_mins(10),
            ..ward_db::Options::default()
        };
        let database = match self {
            Self::Files => None,
            Self::Durable(server) => Some(server.database()),
        };
        let url = database.as_ref().map(|database| database.url.clone());
        let server = Server::on(
            |config| {
                if let Some(url) = url {
                    config.database = url;
                }
            },
            options,
        )
        .await;
        let (url, taken) = receiver().await;
        let tenant = server.tenant("bench").await;
        connect(&server, &tenant, &url).await;
        let worker = worker(&server);
        Fresh { server, tenant, worker, taken, url, _database: database }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `work` from many tasks for a while; how often it was done in a second. `work` is given numbers from `next` on,
/// which is left behind the last one.
async fn rate<F>(span: Duration, next: &mut u64, work: impl Fn(u64) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (began, mut running) = (Instant::now(), JoinSet::new());
    let mut done = 0_u32;
    while began.elapsed() < span {
        while running.len() < CLIENTS {
            running.spawn(work(*next));
            *next += 1;
        }
        if let Some(ended) = running.join_next().await {
            ended.expect("what is measured succeeds");
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

/// Where a call is reported: the URL of a workspace's calls, and a key for it.
type Target = (String, String);

/// Reports finished calls for a while, to one workspace after the other; how many in a second.
async fn ingest(client: &reqwest::Client, targets: &Arc<[Target]>, span: Duration, next: &mut u64) -> f64 {
    let (client, targets) = (client.clone(), Arc::clone(targets));
    rate(span, next, move |number| {
        let (client, targets) = (client.clone(), Arc::clone(&targets));
        async move {
            let at = usize::try_from(number).expect("a small number") % targets.len();
            let (root, key) = &targets[at];
            let body = json!({ "status": "completed", "caller_id": "+15550100002", "direction": "inbound" });
            let sending = client.put(format!("{root}/CA{number}")).bearer_auth(key).json(&body).send();
            assert!(sending.await.is_ok_and(|answer| answer.status().is_success()), "a call was not taken");
        }
    })
    .await
}

/// Sends what is owed for a while; how many in a second. The rest is sent before it returns.
async fn deliver(worker: &Worker, taken: &AtomicU64, span: Duration) -> f64 {
    let (began, before) = (Instant::now(), taken.load(Ordering::Relaxed));
    while began.elapsed() < span && worker.turn().await > 0 {}
    let sent = u32::try_from(taken.load(Ordering::Relaxed) - before).expect("not that many");
    let rate = f64::from(sent) / began.elapsed().as_secs_f64();
    while worker.turn().await > 0 {}
    rate
}

/// Durable writes, calls and deliveries in a second, in turns on one database.
async fn rates(engine: &str, place: &Place, plan: &Plan, section: &mut String) {
    let span = Duration::from_secs(plan.seconds);
    let Fresh { server, tenant, worker, taken, url, _database } = &place.fresh().await;
    server.sql("CREATE TABLE bench_ceiling (id bigint NOT NULL PRIMARY KEY, body text NOT NULL)").await;
    let client = reqwest::Client::builder().pool_max_idle_per_host(CLIENTS).build().expect("a client");
    let target = |tenant: &Tenant| {
        (format!("{}{}", server.url(), tenant.path("/calls")), tenant.owner.bearer.clone().expect("a key"))
    };
    let one: Arc<[Target]> = [target(tenant)].into();
    let mut many = vec![];
    for number in 0..SPREAD {
        let tenant = server.tenant(&format!("bench-{number}")).await;
        connect(server, &tenant, url).await;
        many.push(target(&tenant));
    }
    let many: Arc<[Target]> = many.into();
    let (mut rows, mut calls) = (0, 0);
    let mut measured = [const { Vec::new() }; 5];
    for round in 1..=plan.rounds {
        let db = server.app.db.clone();
        let ceiling = rate(span, &mut rows, move |number| {
            let db = db.clone();
            async move {
                let number = i64::try_from(number).expect("a small number");
                let written = db.write("bench.ceiling", move |tx| {
                    tx.execute("INSERT INTO bench_ceiling (id, body) VALUES ($1, 'x')", &[number.into()])
                });
                let written: Result<u64, ward_db::Error> = written.await;
                written.expect("a row is written");
            }
        })
        .await;
        let taking = ingest(&client, &one, span, &mut calls).await;
        let sending = deliver(worker, taken, span).await;
        let taking_many = ingest(&client, &many, span, &mut calls).await;
        let sending_many = deliver(worker, taken, span).await;
        println!(
            "{engine}, round {round}: {ceiling:.0} rows; {taking:.0} calls, {sending:.0} deliveries; in many workspaces \
             {taking_many:.0} calls, {sending_many:.0} deliveries a second"
        );
        let found = [ceiling, taking, taking_many, sending, sending_many];
        for (all, rate) in measured.iter_mut().zip(found) {
            all.push((rate, rate / ceiling));
        }
    }
    let _ = write!(
        section,
        "\n## {engine}\n\n| what, {CLIENTS} at once | a second | of the ceiling |\n|---|---:|---:|\n"
    );
    let many = format!("the same in {SPREAD} workspaces");
    for (what, all) in [
        "ceiling: one-row writes, each durable when it is answered",
        "finished calls over HTTP in one workspace, each with its delivery and audit",
        &many,
        "deliveries of one integration, leased, sent, settled",
        &format!("the same of {SPREAD}"),
    ]
    .into_iter()
    .zip(&measured)
    {
        let (rates, ratios): (Vec<f64>, Vec<f64>) = all.iter().copied().unzip();
        let _ = writeln!(section, "| {what} | {:.0} | {:.2} |", median(rates), median(ratios));
    }
}

/// What a look and a delivery cost beside a small and a large history, in turns.
async fn histories(engine: Engine, place: &Place, plan: &Plan, section: &mut String) {
    let sizes = [HISTORIES[0], plan.history];
    let (small, large) = (place.fresh().await, place.fresh().await);
    for (size, fresh) in sizes.iter().zip([&small, &large]) {
        settle(fresh, engine, *size).await;
    }
    let mut looks = [Vec::new(), Vec::new()];
    let mut deliveries = [Vec::new(), Vec::new()];
    for round in 0..=plan.rounds {
        for (index, fresh) in [&small, &large].into_iter().enumerate() {
            let (look, delivery) = costs(fresh, round).await;
            // The first round only warms up.
            if round > 0 {
                looks[index].push(look);
                deliveries[index].push(delivery);
            }
        }
    }
    let ratio =
        |of: &[Vec<f64>; 2]| median(of[1].iter().zip(&of[0]).map(|(large, small)| large / small).collect());
    let _ = write!(
        section,
        "\n| settled deliveries, with their calls and tries | {} | {} | ratio |\n|---|---:|---:|---:|\n\
         | a look that finds nothing, µs | {:.0} | {:.0} | {:.2} |\n\
         | one delivery: lane taken, leased, sent, settled, lane left, µs | {:.0} | {:.0} | {:.2} |\n",
        sizes[0],
        sizes[1],
        median(looks[0].clone()),
        median(looks[1].clone()),
        ratio(&looks),
        median(deliveries[0].clone()),
        median(deliveries[1].clone()),
        ratio(&deliveries)
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

/// Reports a finished call.
async fn owe(fresh: &Fresh, sid: &str) {
    let body = json!({ "status": "completed", "caller_id": Value::Null, "direction": "inbound" });
    let path = fresh.tenant.path(&format!("/calls/{sid}"));
    fresh.tenant.owner.put(&path, body).await.expect(reqwest::StatusCode::OK);
}

/// Fills the tables with calls whose deliveries are settled, until there are so many, each with its one try.
async fn settle(fresh: &Fresh, engine: Engine, history: u64) {
    let id = |kind: u8| match engine {
        Engine::Postgres => format!("('{kind}0000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid"),
        Engine::Sqlite => format!("unhex(printf('{kind}0000000000070008000%012d', i))"),
    };
    // One real one, by which the others are made.
    owe(fresh, "first").await;
    while fresh.worker.turn().await > 0 {}
    // What is copied is read once: read again for every row, it is looked for among the new ones too.
    let numbers =
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})", history - 1);
    let calls = format!(
        "INSERT INTO calls (workspace_id, id, call_sid, direction, reported_direction, reported_by, caller_form, \
                list_version, status, finished, started_at, details, first_reported_at, updated_at) \
         {numbers}, c AS MATERIALIZED (SELECT * FROM calls WHERE call_sid = 'first') \
         SELECT c.workspace_id, {}, 'old-' || i, 'inbound', 'inbound', 'runtime', 'withheld', 0, 'completed', \
                true, c.started_at, c.details, c.first_reported_at, c.updated_at \
         FROM n, c",
        id(1)
    );
    let deliveries = format!(
        "INSERT INTO deliveries (workspace_id, id, integration_id, call_id, direction, state, attempts, maybe_sent, \
                position, created_at, settled_at) \
         {numbers}, d AS MATERIALIZED (SELECT * FROM deliveries LIMIT 1) \
         SELECT d.workspace_id, {}, d.integration_id, {}, 'inbound', 'synced', 1, false, i, d.created_at, \
                d.settled_at FROM n, d",
        id(2),
        id(1)
    );
    let attempts = "INSERT INTO delivery_attempts (workspace_id, delivery_id, number, outcome, status, started_at, ended_at) \
                    SELECT workspace_id, id, 1, 'synced', 201, created_at, settled_at FROM deliveries WHERE true \
                    ON CONFLICT (workspace_id, delivery_id, number) DO NOTHING";
    // A foreign key is looked up by the plan that was made for the table as it was last analyzed: one row, read in whole.
    for statement in [&calls, "ANALYZE", &deliveries, "ANALYZE", attempts, "ANALYZE"] {
        fresh.server.sql(statement).await;
    }
    let settled = fresh.server.count("SELECT count(*) FROM delivery_attempts").await;
    assert_eq!(u64::try_from(settled), Ok(history));
}

/// Microseconds of a look that finds nothing, and of one delivery from its lane's turn to its end. Reporting the call is
/// not part of it.
async fn costs(fresh: &Fresh, round: usize) -> (f64, f64) {
    const LOOKS: u32 = 1_000;
    const DELIVERIES: u32 = 100;
    let began = Instant::now();
    for _ in 0..LOOKS {
        fresh.worker.turn().await;
    }
    let look = began.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKS);
    let mut spent = Duration::ZERO;
    for number in 0..DELIVERIES {
        owe(fresh, &format!("CB-{round}-{number}")).await;
        let began = Instant::now();
        assert_eq!(fresh.worker.turn().await, 1);
        spent += began.elapsed();
    }
    (look, spent.as_secs_f64() * 1e6 / f64::from(DELIVERIES))
}
