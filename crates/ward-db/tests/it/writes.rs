//! One writer and many callers: what a batch shares, and what stays separate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Fixture, fast, sqlite, sqlite_with, url};
use tokio::task::JoinHandle;
use ward_db::{Db, Error, ErrorKind, Options, Tx};

type Answer<T> = JoinHandle<Result<T, Error>>;

/// Queues a write behind the earlier ones: the runtime of these tests has one thread and runs tasks in order.
async fn queue<T: Send + 'static>(
    it: &Fixture,
    f: impl FnMut(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
) -> Answer<T> {
    let db = it.db.clone();
    let task = tokio::spawn(async move { db.write("test.queued", f).await });
    tokio::task::yield_now().await;
    task
}

async fn insert(it: &Fixture, number: i64) -> Answer<u64> {
    queue(it, move |tx| tx.execute("insert into t values ($1, null)", &[number.into()])).await
}

async fn kind<T: std::fmt::Debug>(answer: Answer<T>) -> ErrorKind {
    answer.await.unwrap().unwrap_err().kind()
}

async fn with_table(options: Options) -> Fixture {
    let it = sqlite_with(options);
    it.script(&["create table t (a integer primary key, b text) strict"]).await;
    it
}

const COUNT: &str = "select count(*) from t";

#[tokio::test]
async fn what_waits_is_committed_together() {
    let it = with_table(fast()).await;
    let before = it.db.stats();
    let held = it.hold().await;
    let mut answers = Vec::new();
    for number in 0..100 {
        answers.push(insert(&it, number).await);
    }
    held.release().await;
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap(), 1);
    }
    let after = it.db.stats();
    assert_eq!((after.writes - before.writes, after.commits - before.commits), (101, 2));
    assert_eq!(it.count(COUNT).await, 100);
}

#[tokio::test]
async fn a_batch_has_a_bound() {
    let it = with_table(Options { write_batch: 8, ..fast() }).await;
    let before = it.db.stats().commits;
    let held = it.hold().await;
    let mut answers = Vec::new();
    for number in 0..20 {
        answers.push(insert(&it, number).await);
    }
    held.release().await;
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(it.db.stats().commits - before, 1 + 3);
}

#[tokio::test]
async fn one_closure_s_trouble_is_its_own() {
    let it = with_table(fast()).await;
    let held = it.hold().await;
    let before = insert(&it, 1).await;
    let violates = queue(&it, |tx| {
        tx.execute("insert into t values (50, null)", &[])?;
        tx.execute("insert into t values (1, null)", &[])
    })
    .await;
    let panics = queue(&it, |tx| -> Result<(), Error> {
        tx.execute("insert into t values (51, null)", &[])?;
        panic!("on purpose")
    })
    .await;
    let refuses = queue(&it, |tx| -> Result<(), Error> {
        tx.execute("insert into t values (52, null)", &[])?;
        tx.one("select 1 where false", &[], |_| Ok(()))
    })
    .await;
    let after = insert(&it, 2).await;
    held.release().await;
    assert_eq!(before.await.unwrap().unwrap(), 1);
    assert_eq!(kind(violates).await, ErrorKind::Constraint);
    assert_eq!(kind(panics).await, ErrorKind::Panic);
    assert_eq!(kind(refuses).await, ErrorKind::NoRow);
    assert_eq!(after.await.unwrap().unwrap(), 1);
    assert_eq!(it.count("select sum(a) from t").await, 3);
}

/// The first batch starts without savepoints and runs again with them. The batches after a refusal start with
/// them.
#[tokio::test]
async fn a_refusal_costs_its_batch_nothing_but_time() {
    let it = with_table(fast()).await;
    for round in 0..3 {
        let held = it.hold().await;
        let stats = it.db.stats();
        let before = insert(&it, 10 * round + 1).await;
        let refuses = queue(&it, |tx| -> Result<(), Error> {
            tx.execute("insert into t values (-1, null)", &[])?;
            tx.one("select 1 where false", &[], |_| Ok(()))
        })
        .await;
        let after = insert(&it, 10 * round + 2).await;
        held.release().await;
        assert_eq!(before.await.unwrap().unwrap(), 1);
        assert_eq!(kind(refuses).await, ErrorKind::NoRow);
        assert_eq!(after.await.unwrap().unwrap(), 1);
        // The count includes the held write, but not the run that was rolled back as a whole.
        assert_eq!(it.db.stats().writes - stats.writes, 4);
        assert_eq!(it.count(COUNT).await, 2 * (round + 1));
    }
}

#[tokio::test]
async fn a_refusal_alone_leaves_nothing() {
    let it = with_table(fast()).await;
    let refuses = queue(&it, |tx| -> Result<(), Error> {
        tx.execute("insert into t values (1, null)", &[])?;
        tx.one("select 1 where false", &[], |_| Ok(()))
    });
    assert_eq!(kind(refuses.await).await, ErrorKind::NoRow);
    assert_eq!(it.count(COUNT).await, 0);
    assert_eq!(insert(&it, 1).await.await.unwrap().unwrap(), 1);
}

/// On one of these disk errors SQLite ends the statement, on the other one the transaction.
#[tokio::test]
async fn a_full_disk_fails_the_whole_batch_and_heals() {
    const GROWS_ALONE: &str = "insert into t values ($1, $2)";
    const GROWS_AMONG_OTHERS: &str =
        "insert into t select $1 + n, $2 from (select 0 as n union all select 1 union all select 2)";
    for sql in [GROWS_ALONE, GROWS_AMONG_OTHERS] {
        let it = with_table(Options { max_page_count: Some(12), ..fast() }).await;
        let held = it.hold().await;
        let before = insert(&it, 1).await;
        let refuses = queue(&it, |tx| tx.one("select 1 where false", &[], |_| Ok(()))).await;
        let large = "x".repeat(100_000);
        let fills = queue(&it, move |tx| tx.execute(sql, &[100.into(), (&large).into()])).await;
        let after = insert(&it, 2).await;
        held.release().await;
        assert_eq!(kind(before).await, ErrorKind::Unavailable, "{sql}");
        assert_eq!(kind(refuses).await, ErrorKind::Unavailable, "a refusal read a state that never was");
        assert_eq!(kind(fills).await, ErrorKind::Unavailable);
        assert_eq!(kind(after).await, ErrorKind::Unavailable);
        assert_eq!(it.count(COUNT).await, 0);

        let small = insert(&it, 3).await;
        assert_eq!(small.await.unwrap().unwrap(), 1, "what still fits still works");
        let raise = queue(&it, |tx| tx.optional("pragma max_page_count = 10000", &[], |_| Ok(()))).await;
        raise.await.unwrap().unwrap();
        let large = "x".repeat(100_000);
        let fits = queue(&it, move |tx| tx.execute(sql, &[100.into(), (&large).into()])).await;
        fits.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_swallowed_disk_error_still_fails_the_batch() {
    let it = with_table(Options { max_page_count: Some(12), ..fast() }).await;
    let held = it.hold().await;
    let before = insert(&it, 1).await;
    let swallows = queue(&it, |tx| {
        let large = "x".repeat(100_000);
        let _ = tx.execute("insert into t values (2, $1)", &[(&large).into()]);
        Ok(())
    })
    .await;
    held.release().await;
    assert_eq!(kind(before).await, ErrorKind::Unavailable);
    assert_eq!(kind(swallows).await, ErrorKind::Unavailable);
    assert_eq!(it.count(COUNT).await, 0);
}

#[tokio::test]
async fn a_failed_commit_is_unknown_to_the_whole_batch() {
    let it = with_table(fast()).await;
    it.script(&["create table c (p integer references t (a) deferrable initially deferred) strict"]).await;
    let commits = it.db.stats().commits;
    let held = it.hold().await;
    let innocent = insert(&it, 1).await;
    let refuses = queue(&it, |tx| tx.one("select 1 where false", &[], |_| Ok(()))).await;
    let breaks = queue(&it, |tx| tx.execute("insert into c values (99)", &[])).await;
    held.release().await;
    assert_eq!(kind(innocent).await, ErrorKind::Unknown);
    assert_eq!(kind(refuses).await, ErrorKind::Unknown);
    assert_eq!(kind(breaks).await, ErrorKind::Unknown);
    assert_eq!(it.count(COUNT).await + it.count("select count(*) from c").await, 0);
    assert_eq!(insert(&it, 2).await.await.unwrap().unwrap(), 1);
    assert_eq!(it.db.stats().commits - commits, 2, "the held one and the last");
}

#[tokio::test]
async fn a_full_queue_says_so_at_once() {
    let it = with_table(Options { write_queue: 2, ..fast() }).await;
    let held = it.hold().await;
    let (first, second) = (insert(&it, 1).await, insert(&it, 2).await);
    assert_eq!(kind(insert(&it, 3).await).await, ErrorKind::Unavailable);
    held.release().await;
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(it.count(COUNT).await, 2);
}

#[tokio::test]
async fn a_caller_that_stops_waiting_does_not_disturb_others() {
    let it = with_table(fast()).await;
    let held = it.hold().await;
    let first = insert(&it, 1).await;
    let gone = insert(&it, 2).await;
    let last = insert(&it, 3).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    held.release().await;
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert_eq!(it.count("select sum(a) from t").await, 4, "the abandoned write was started");
    // A write that has started is finished, even if its caller is gone.
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let mut entered = Some(entered);
    let begun = queue(&it, move |tx| {
        entered.take().unwrap().send(()).unwrap();
        gate.recv().unwrap();
        tx.execute("insert into t values (10, null)", &[])
    })
    .await;
    inside.await.unwrap();
    begun.abort();
    assert!(begun.await.unwrap_err().is_cancelled());
    release.send(()).unwrap();
    assert_eq!(insert(&it, 20).await.await.unwrap().unwrap(), 1);
    assert_eq!(it.count("select sum(a) from t").await, 34);
}

#[tokio::test]
async fn the_wal_is_folded_in_while_writes_go_on() {
    // A thread of its own copies the log of a served file; the writer copies any other log.
    for options in [fast(), Options { serve_lock: true, flush: true, ..fast() }] {
        let it = with_table(options).await;
        // Each commit rewrites some 250 pages. Without checkpoints that would be 200 MiB of WAL.
        for commit in 0..200 {
            let large = ["x", "y"][commit % 2].repeat(1_000_000);
            let grow = queue(&it, move |tx| {
                tx.execute(
                    "insert into t values (1, $1) on conflict (a) do update set b = excluded.b",
                    &[(&large).into()],
                )
            });
            grow.await.await.unwrap().unwrap();
        }
        let wal = std::fs::metadata(it.dir().path().join("ward.db-wal")).unwrap().len();
        assert!(wal < 100 << 20, "{wal}");
    }
}

#[tokio::test]
async fn the_newest_commit_stays_marked_and_the_log_is_free_up_to_it() {
    let it = with_table(fast()).await;
    let beside = rusqlite::Connection::open(it.dir().path().join("ward.db")).unwrap();
    beside.busy_timeout(Duration::ZERO).unwrap();
    let checkpoint = |how: &str| {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, bool>(0)?, row.get(1)?, row.get(2)?));
        beside.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], row).unwrap()
    };
    for number in 0..20 {
        insert(&it, number).await.await.unwrap().unwrap();
    }
    // Answers come before the mark moves on; the answer of this check comes after it.
    it.db.check().await.unwrap();
    let (busy, pages, copied): (_, i64, i64) = checkpoint("PASSIVE");
    assert!(!busy && pages > 20, "{pages}");
    assert_eq!(copied, pages, "an older mark is held, and the log can be copied only up to that");
    // There is no reader, so this waits for the mark.
    assert!(checkpoint("RESTART").0, "no mark is held");
    it.db.close();
    assert_eq!(checkpoint("TRUNCATE"), (false, 0, 0));
}

#[tokio::test]
async fn another_program_s_checkpoint_gets_the_log_to_itself_when_a_write_comes() {
    let it = with_table(Options { busy_timeout: Duration::from_secs(20), ..fast() }).await;
    insert(&it, 1).await.await.unwrap().unwrap();
    it.db.check().await.unwrap();
    let beside = rusqlite::Connection::open(it.dir().path().join("ward.db")).unwrap();
    beside.busy_timeout(Duration::from_secs(10)).unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let checkpoint = std::thread::spawn(move || {
        begun.send(()).unwrap();
        beside.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, bool>(0)).unwrap()
    });
    begins.recv().unwrap();
    // Writes succeed until the checkpoint has taken the write lock.
    let mut number = 2;
    while !checkpoint.is_finished() {
        insert(&it, number).await.await.unwrap().unwrap();
        number += 1;
    }
    assert!(!checkpoint.join().unwrap(), "the checkpoint waited for the mark until it gave up");
    assert_eq!(it.count(COUNT).await, number - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_commits() {
    let it = with_table(Options::default()).await;
    let before = it.db.stats();
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (db, next) = (it.db.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                for _ in 0..20 {
                    let number = i64::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                    db.write("t", move |tx| tx.execute("insert into t values ($1, null)", &[number.into()]))
                        .await?;
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let after = it.db.stats();
    assert_eq!(after.writes - before.writes, 640);
    assert!(after.commits - before.commits < 320, "{after:?}");
    assert_eq!(it.count(COUNT).await, 640);
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_waited_for_and_then_given_up() {
    let it = with_table(Options { busy_timeout: Duration::from_millis(50), ..fast() }).await;
    let beside = Db::open(&url(it.dir()), fast()).unwrap();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let mut entered = Some(entered);
    let other = tokio::spawn(async move {
        beside
            .write("t", move |tx| {
                entered.take().unwrap().send(()).unwrap();
                gate.recv().unwrap();
                tx.execute("insert into t values (1, null)", &[])
            })
            .await
    });
    inside.await.unwrap();
    assert_eq!(kind(insert(&it, 2).await).await, ErrorKind::Unavailable);
    go.send(()).unwrap();
    let theirs: Result<u64, Error> = other.await.unwrap();
    theirs.unwrap();
    assert_eq!(insert(&it, 3).await.await.unwrap().unwrap(), 1);
    assert_eq!(it.count(COUNT).await, 2);
}

#[tokio::test]
async fn closing_finishes_what_waits_and_then_refuses() {
    let it = with_table(fast()).await;
    let held = it.hold().await;
    let waiting = insert(&it, 1).await;
    let closer = {
        let db = it.db.clone();
        tokio::task::spawn_blocking(move || db.close())
    };
    held.release().await;
    closer.await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    let write: Result<(), Error> = it.db.write("t", |_| Ok(())).await;
    let read: Result<(), Error> = it.db.read("t", |_| Ok(())).await;
    let long: Result<(), Error> = it.db.read_long("t", |_| Ok(())).await;
    for refused in [write, read, long, it.db.check().await, it.db.schema().map(|_| ())] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    it.db.close();
    let wal = it.dir().path().join("ward.db-wal");
    assert!(!wal.exists(), "the last checkpoint folded the WAL in");
    let again = Db::open(&url(it.dir()), fast()).unwrap();
    let count = again.read("t", |tx| tx.one(COUNT, &[], |row| row.get::<i64>(0))).await;
    assert_eq!(count.unwrap_or_else(|e: Error| panic!("{e}")), 1);
}

#[tokio::test]
async fn the_last_handle_may_be_a_closure_s() {
    let it = sqlite();
    let (db, dir) = it.parts();
    let captured = db.clone();
    let held = tokio::spawn(async move {
        let inner = captured.clone();
        let _: Result<(), Error> = captured
            .write("t", move |_| {
                let _ = &inner;
                std::thread::sleep(Duration::from_millis(50));
                Ok(())
            })
            .await;
    });
    tokio::task::yield_now().await;
    drop(db);
    held.abort();
    let _ = held.await;
    // The file is free for the next server, no matter which handle was dropped last.
    let again = Db::open(&url(&dir), fast()).unwrap();
    again
        .write("t", |tx| tx.execute("create table x (a integer) strict", &[]))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
}
