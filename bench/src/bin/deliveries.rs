//! The rates of calls and deliveries, as ratios to the engine's durable writes, and the influence of history on their
//! cost.
//!
//! `bench/deliveries` takes about six minutes. It prints a section in Markdown and, with `--out`, writes it to a
//! file. The measured Ward is the built binary as a separate process. Both engines flush: SQLite with
//! `synchronous=FULL`, and a temporary PostgreSQL server with `fsync` on. The receiver answers every request with 201
//! at once.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

#[path = "../deliveries/receiver.rs"]
mod receiver;
#[path = "../deliveries/server.rs"]
mod server;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::task::JoinSet;
use ward_db::{Db, Options};
use ward_test_db::postgres;

use receiver::Receiver;
use server::{Tenant, Ward};

/// An error that ends a measurement: a sentence for a person.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const CLIENTS: usize = 64;
/// The number of workspaces in the measurement of many workspaces.
const SPREAD: usize = 16;
/// The smaller of the two histories of settled deliveries.
const SMALL: u64 = 1_000;
/// How long deliveries may take to arrive.
const PATIENCE: Duration = Duration::from_mins(5);
/// Settings with which a temporary PostgreSQL server waits for the disk, as in production.
const DURABLE: [&str; 5] =
    ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "wal_level=replica", "autovacuum=on"];

/// Measures calls that are reported to Ward, and the deliveries that follow from them.
#[derive(Parser)]
struct Plan {
    /// The `ward` binary, built with the release profile.
    #[arg(long)]
    ward: PathBuf,
    /// A folder for databases and logs. Its content is deleted.
    #[arg(long)]
    data: PathBuf,
    /// The database engines to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres")]
    engines: Vec<Engine>,
    /// The duration of each measurement of a rate, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// The number of rounds; each round measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The number of deliveries in the larger of the two compared histories.
    #[arg(long, default_value_t = 1_000_000)]
    history: u64,
    /// The file for the section. Its content is replaced.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// SQLite, with the data in a file.
    Sqlite,
    /// PostgreSQL, with the data on a server.
    Postgres,
}

impl Engine {
    const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command's failure goes to the person who ran it")]
fn main() -> ExitCode {
    let plan = Plan::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(run(&plan))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("deliveries: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(plan: &Plan) -> Result<(), Failure> {
    let mut section = String::from(
        "# Calls in, deliveries out\n\nWritten by `bench/deliveries`; [bench/README.md](../../bench/README.md) says what it \
         measures.\n",
    );
    for engine in &plan.engines {
        let place = Place::of(*engine, plan)?;
        rates(&place, plan, &mut section).await?;
        histories(&place, plan, &mut section).await?;
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = write!(
        section,
        "\nMachine: {cores} cores, shared by Ward, its clients, the receiver and the database. Medians of {} rounds; \
         a ratio is taken within its round. Command: `bench/deliveries --seconds {} --rounds {} --history {}`\n",
        plan.rounds, plan.seconds, plan.rounds, plan.history
    );
    println!("{section}");
    if let Some(out) = &plan.out {
        std::fs::write(out, section)?;
    }
    Ok(())
}

/// The source of empty databases of one engine.
struct Place {
    engine: Engine,
    folder: PathBuf,
    postgres: Option<postgres::Server>,
}

/// A server with one tenant, and the EHR that it delivers to. The fields are dropped in this order.
struct Fresh {
    ward: Ward,
    tenant: Tenant,
    receiver: Receiver,
    url: String,
    folder: PathBuf,
    _database: Option<postgres::Database>,
}

impl Place {
    fn of(engine: Engine, plan: &Plan) -> Result<Self, Failure> {
        let folder = plan.data.join(engine.name().to_lowercase());
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::fs::create_dir_all(&folder)?,
        }
        let postgres = (engine == Engine::Postgres).then(|| postgres::Server::start(&DURABLE, |_| ()));
        Ok(Self { engine, folder, postgres })
    }

    /// The URL of an empty database. The database exists as long as the second part of the result.
    fn database(&self, name: &str) -> (String, Option<postgres::Database>) {
        let database = self.postgres.as_ref().map(postgres::Server::database);
        let file = || format!("sqlite:{}", self.folder.join(format!("{name}.db")).display());
        (database.as_ref().map_or_else(file, |database| database.url.clone()), database)
    }

    async fn fresh(&self, name: &str, plan: &Plan) -> Result<Fresh, Failure> {
        let (url, database) = self.database(name);
        let folder = self.folder.join(name);
        let ward = Ward::start(&plan.ward, &url, &folder).await?;
        let receiver = Receiver::start().await?;
        let tenant = ward.tenant("bench", &receiver.url).await?;
        Ok(Fresh { ward, tenant, receiver, url, folder, _database: database })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `work` in many tasks for the time `span`. The result is the rate per second. `work` gets numbers from `next`
/// on, which afterwards is the first unused number.
async fn rate<F>(span: Duration, next: &mut u64, work: impl Fn(u64) -> F) -> Result<f64, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (began, mut running) = (Instant::now(), JoinSet::new());
    let mut done = 0_u32;
    while began.elapsed() < span {
        while running.len() < CLIENTS {
            running.spawn(work(*next));
            *next += 1;
        }
        if let Some(ended) = running.join_next().await {
            ended??;
            done += 1;
        }
    }
    let rate = f64::from(done) / began.elapsed().as_secs_f64();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(rate)
}

/// Reports finished calls for a while, to each workspace in turn. The result is the number of calls per second.
async fn ingest(
    ward: &Arc<Ward>,
    tenants: &Arc<[Tenant]>,
    span: Duration,
    next: &mut u64,
) -> Result<f64, Failure> {
    rate(span, next, |number| {
        let (ward, tenants) = (ward.clone(), tenants.clone());
        async move {
            let at = usize::try_from(number)? % tenants.len();
            ward.report(&tenants[at], &format!("CA{number}")).await
        }
    })
    .await
}

/// Releases the deliveries that the tenants' calls owe. The result is their rate per second between the first and the
/// last arrival.
async fn deliver(ward: &Ward, tenants: &[Tenant], receiver: &Receiver, owed: u64) -> Result<f64, Failure> {
    let before = receiver.accepted();
    for tenant in tenants {
        ward.hold(tenant, false).await?;
    }
    let began = Instant::now();
    let mut first = None;
    while receiver.accepted() - before < owed {
        if began.elapsed() > PATIENCE {
            return Err(format!("{} of {owed} deliveries arrived", receiver.accepted() - before).into());
        }
        if first.is_none() && receiver.accepted() > before {
            first = Some((Instant::now(), receiver.accepted() - before));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (first, counted) = first.unwrap_or((began, 0));
    for tenant in tenants {
        ward.hold(tenant, true).await?;
    }
    Ok(f64::from(u32::try_from(owed - counted)?) / first.elapsed().as_secs_f64())
}

/// Measures durable writes, calls and deliveries per second, in turns.
async fn rates(place: &Place, plan: &Plan, section: &mut String) -> Result<(), Failure> {
    let span = Duration::from_secs(plan.seconds);
    let Fresh { ward, tenant, receiver, _database, .. } = place.fresh("rates", plan).await?;
    // The ceiling is measured in a separate database on the same disk or the same server.
    let (ceiling_url, _ceiling) = place.database("ceiling");
    let db = Arc::new(Db::open(&ceiling_url, Options::default())?);
    db.write("bench.ceiling", |tx| {
        tx.execute("CREATE TABLE bench_ceiling (id bigint NOT NULL PRIMARY KEY, body text NOT NULL)", &[])
    })
    .await
    .map_err(|error: ward_db::Error| error)?;
    let mut many = vec![];
    for number in 0..SPREAD {
        many.push(ward.tenant(&format!("bench-{number}"), &receiver.url).await?);
    }
    let (one, many): (Arc<[Tenant]>, Arc<[Tenant]>) = ([tenant].into(), many.into());
    for tenant in one.iter().chain(&*many) {
        ward.hold(tenant, true).await?;
    }
    let ward = Arc::new(ward);
    let (mut rows, mut calls) = (0, 0);
    let mut measured = [const { Vec::new() }; 5];
    for round in 1..=plan.rounds {
        let ceiling = rate(span, &mut rows, |number| {
            let db = db.clone();
            async move {
                let number = i64::try_from(number)?;
                let written = db.write("bench.ceiling", move |tx| {
                    tx.execute("INSERT INTO bench_ceiling (id, body) VALUES ($1, 'x')", &[number.into()])
                });
                written.await.map(drop).map_err(|error: ward_db::Error| error.into())
            }
        })
        .await?;
        let mut found = [ceiling, 0.0, 0.0, 0.0, 0.0];
        for (at, tenants) in [&one, &many].into_iter().enumerate() {
            let before = calls;
            found[1 + at] = ingest(&ward, tenants, span, &mut calls).await?;
            found[3 + at] = deliver(&ward, tenants, &receiver, calls - before).await?;
        }
        let [_, taking, taking_many, sending, sending_many] = found;
        println!(
            "{}, round {round}: {ceiling:.0} rows; {taking:.0} calls, {sending:.0} deliveries; in many workspaces \
             {taking_many:.0} calls, {sending_many:.0} deliveries a second",
            place.engine.name()
        );
        for (all, rate) in measured.iter_mut().zip(found) {
            all.push((rate, rate / ceiling));
        }
    }
    tokio::task::spawn_blocking(move || db.close()).await?;
    let _ = write!(
        section,
        "\n## {}\n\n| what, {CLIENTS} at once | a second | of the ceiling |\n|---|---:|---:|\n",
        place.engine.name()
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
    Ok(())
}

/// Measures a read of the queue and a delivery with a small and a large history, in turns.
async fn histories(place: &Place, plan: &Plan, section: &mut String) -> Result<(), Failure> {
    let sizes = [SMALL, plan.history];
    let mut both = Vec::new();
    for size in sizes {
        let fresh = place.fresh(&format!("history-{size}"), plan).await?;
        both.push(settle(fresh, place.engine, size, plan).await?);
    }
    let mut looks = [Vec::new(), Vec::new()];
    let mut deliveries = [Vec::new(), Vec::new()];
    for round in 0..=plan.rounds {
        for (index, fresh) in both.iter().enumerate() {
            let (look, delivery) = costs(fresh, round).await?;
            // The first round is only a warm-up.
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
         | a look into the queue, in the database, µs | {:.0} | {:.0} | {:.2} |\n\
         | one delivery: from the answer to the call's report until the EHR has it, µs | {:.0} | {:.0} | {:.2} |\n",
        sizes[0],
        sizes[1],
        median(looks[0].clone()),
        median(looks[1].clone()),
        ratio(&looks),
        median(deliveries[0].clone()),
        median(deliveries[1].clone()),
        ratio(&deliveries)
    );
    Ok(())
}

/// Reports one call and waits for its delivery. The result is the time between the answer to the report and the
/// delivery.
async fn one_delivery(fresh: &Fresh, call: &str) -> Result<Duration, Failure> {
    let before = fresh.receiver.accepted();
    fresh.ward.report(&fresh.tenant, call).await?;
    let began = Instant::now();
    while fresh.receiver.accepted() == before {
        if began.elapsed() > PATIENCE {
            return Err("a delivery did not arrive in time".into());
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    Ok(began.elapsed())
}

/// Fills the tables with calls whose deliveries are settled, each with one attempt. Ward is stopped meanwhile.
async fn settle(fresh: Fresh, engine: Engine, history: u64, plan: &Plan) -> Result<Fresh, Failure> {
    let id = |kind: u8| match engine {
        Engine::Postgres => format!("('{kind}0000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid"),
        Engine::Sqlite => format!("unhex(printf('{kind}0000000000070008000%012d', i))"),
    };
    // The other rows are copies of this delivery's rows.
    one_delivery(&fresh, "CAfirst").await?;
    while !fresh.ward.has_settled(&fresh.tenant).await? {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Dropping the server ends its process.
    let Fresh { ward, tenant, receiver, url, folder, _database: database } = fresh;
    drop(ward);
    // The copied row is read once. A read for every new row would search through the new rows too.
    let numbers =
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})", history - 1);
    let calls = format!(
        "INSERT INTO calls (workspace_id, id, call_sid, direction, reported_direction, reported_by, caller_form, \
                list_version, status, finished, started_at, details, first_reported_at, updated_at) \
         {numbers}, c AS MATERIALIZED (SELECT * FROM calls WHERE call_sid = 'CAfirst') \
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
                    ON CONFLICT (workspace_id, delivery_id, number) DO NOTHING"
        .to_owned();
    let options = Options {
        create: false,
        // These statements take longer than any statement of the product.
        statement_time: Duration::from_mins(10),
        closure_time: Duration::from_mins(10),
        ..Options::default()
    };
    let db = Db::open(&url, options)?;
    let analyze = || "ANALYZE".to_owned();
    // The plan for the check of a foreign key depends on the last ANALYZE of the table.
    let mut settled = 0;
    for statement in [calls, analyze(), deliveries, analyze(), attempts, analyze()] {
        let written = db.write("bench.fill", move |tx| tx.execute(&statement, &[])).await;
        settled = settled.max(written.map_err(|error: ward_db::Error| error)?);
    }
    tokio::task::spawn_blocking(move || db.close()).await?;
    if settled + 1 != history {
        return Err(format!("{settled} settled deliveries were inserted instead of {}", history - 1).into());
    }
    let ward = Ward::start(&plan.ward, &url, &folder).await?;
    Ok(Fresh { ward, tenant, receiver, url, folder, _database: database })
}

/// Microseconds for a read of the queue, as Ward measures it, and for one delivery after its report.
async fn costs(fresh: &Fresh, round: usize) -> Result<(f64, f64), Failure> {
    const DELIVERIES: u32 = 100;
    let (looks, seconds) = fresh.ward.looks().await?;
    let mut spent = Duration::ZERO;
    for number in 0..DELIVERIES {
        spent += one_delivery(fresh, &format!("CB-{round}-{number}")).await?;
    }
    let (looks_after, seconds_after) = fresh.ward.looks().await?;
    let look = (seconds_after - seconds) * 1e6 / (looks_after - looks).max(1.0);
    Ok((look, spent.as_secs_f64() * 1e6 / f64::from(DELIVERIES)))
}
