//! Measures reads and writes on this machine: `cargo run --release -p ward-db --example speed [DIRECTORY]`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "it measures and prints"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ward_db::{Db, Error, Migration, Options, Timestamp, Uuid};

const ROWS: u64 = 100_000;
const SPAN: Duration = Duration::from_secs(3);

const SCHEMA: Migration = Migration {
    name: "0001_speed",
    sql: "-- oldest binary: 0.1.0
create table thing (owner uuid not null, id uuid not null, name text not null, at timestamptz not null,
    primary key (owner, id))",
};

fn owner(number: u64) -> Uuid {
    Uuid::from_u64_pair(number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number)
}

async fn insert(db: &Db, number: u64) {
    let now = Timestamp::from_micros(i64::try_from(number).unwrap());
    db.write("speed.insert", move |tx| {
        tx.execute(
            "insert into thing (owner, id, name, at) values ($1, $2, $3, $4)",
            &[owner(number).into(), owner(number + 1).into(), "a thing of some length".into(), now.into()],
        )
    })
    .await
    .unwrap_or_else(|e: Error| panic!("{e}"));
}

async fn get(db: &Db, number: u64) {
    let (name, _at) = db
        .read("speed.get", move |tx| {
            tx.one(
                "select name, at from thing where owner = $1 and id = $2",
                &[owner(number).into(), owner(number + 1).into()],
                |row| Ok((row.get::<String>(0)?, row.get::<Timestamp>(1)?)),
            )
        })
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert!(!name.is_empty());
}

/// Reads random rows on one task for `SPAN`, and prints the percentiles.
async fn reads(db: &Db, what: &str) {
    let mut times = Vec::new();
    let mut number = 1_u64;
    let started = Instant::now();
    while started.elapsed() < SPAN {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (number >> 20) % ROWS;
        let begun = Instant::now();
        get(db, at).await;
        times.push(begun.elapsed());
        if times.len() % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    times.sort_unstable();
    let micros = |share: usize| times[(times.len() - 1) * share / 100].as_nanos() as f64 / 1e3;
    println!(
        "{what}: p50 {:.2} µs, p90 {:.2} µs, p99 {:.2} µs, {} reads",
        micros(50),
        micros(90),
        micros(99),
        times.len()
    );
}

async fn writes(db: &Db, tasks: u64, next: &Arc<AtomicU64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let before = db.stats();
    let started = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let (db, stop, next) = (db.clone(), Arc::clone(&stop), Arc::clone(next));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    insert(&db, next.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(SPAN).await;
    stop.store(true, Ordering::Relaxed);
    for handle in handles {
        handle.await.unwrap();
    }
    let (after, took) = (db.stats(), started.elapsed().as_secs_f64());
    let rows = (after.writes - before.writes) as f64;
    println!(
        "writes, {tasks} tasks: {:.0} rows/s, {:.0} commits/s, {:.1} per commit",
        rows / took,
        (after.commits - before.commits) as f64 / took,
        rows / (after.commits - before.commits) as f64
    );
}

#[tokio::main]
async fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(dir).unwrap();
    let path = format!("sqlite:{}", dir.path().join("speed.db").display());
    let begun = Instant::now();
    let db = Db::open(&path, Options::default()).unwrap();
    println!("open, fresh: {:?}", begun.elapsed());
    let begun = Instant::now();
    db.migrate(&[SCHEMA], "0.1.0").unwrap();
    println!("migrate, one step: {:?}", begun.elapsed());
    for start in (0..ROWS).step_by(1_000) {
        db.write("speed.fill", move |tx| {
            for number in start..start + 1_000 {
                tx.execute(
                    "insert into thing (owner, id, name, at) values ($1, $2, $3, $4)",
                    &[
                        owner(number).into(),
                        owner(number + 1).into(),
                        "a thing of some length".into(),
                        Timestamp::MIN.into(),
                    ],
                )?;
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    }
    let reader = db.clone();
    tokio::spawn(async move { reads(&reader, "reads, alone").await }).await.unwrap();
    let next = Arc::new(AtomicU64::new(ROWS));
    for tasks in [1, 8, 64, 256] {
        writes(&db, tasks, &next).await;
    }
    let reader = db.clone();
    let mixed = tokio::spawn(async move { reads(&reader, "reads beside 8 writers").await });
    writes(&db, 8, &next).await;
    mixed.await.unwrap();
}
