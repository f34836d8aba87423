//! Deferred changes, which are sent with the next statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ward_db::{Error, ErrorKind, Options};
use ward_test_db::postgres::shared;
use ward_test_db::{both, postgres_only};

use crate::support::{Fixture, fast, fixture_with};

/// It has one connection, so that a statement prepared once is prepared for all later calls.
fn with_table() -> Fixture {
    let it = fixture_with(Options { connections: 1, ..fast() });
    it.tables("create table t (a bigint not null primary key, b text)");
    it
}

const INSERT: &str = "insert into t (a, b) values ($1, $2)";
const COUNT: &str = "select count(*) from t";
const SLOW: &str = "insert into s values ($1)";

both!(the_next_statement_sees_what_was_sent_later);
async fn the_next_statement_sees_what_was_sent_later() {
    let it = with_table();
    // In the first round nothing is prepared, and later everything is.
    for round in 0..3_i64 {
        let seen = it.db.write("t", move |tx| {
            tx.execute_later(INSERT, &[(round * 10).into(), "a".into()])?;
            tx.execute_later(INSERT, &[(round * 10 + 1).into(), None::<&str>.into()])?;
            tx.execute_later("update t set b = 'c' where a = $1 and b = 'a'", &[(round * 10).into()])?;
            let seen = tx.one("select count(*) from t where b = 'c'", &[], |row| row.get::<i64>(0))?;
            tx.execute_later("update t set b = 'd' where a = $1", &[(round * 10 + 1).into()])?;
            Ok::<_, Error>(seen)
        });
        assert_eq!(seen.await.unwrap(), round + 1);
        assert_eq!(it.count("select count(*) from t where b = 'd'").await, round + 1);
    }
    // The deferred change is sent with the commit alone.
    it.db
        .write("t", |tx| tx.execute_later(INSERT, &[90.into(), "z".into()]))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(it.count(COUNT).await, 7);
    // The changes of a closure that fails are never sent, not even with later statements on the connection.
    for begun in [false, true] {
        let refused = it.db.write("t", move |tx| {
            if begun {
                tx.one(COUNT, &[], |row| row.get::<i64>(0))?;
            }
            tx.execute_later(INSERT, &[91.into(), "z".into()])?;
            Err::<(), _>(Error::unreadable("changed its mind"))
        });
        assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Decode);
        it.db.check().await.unwrap();
        assert_eq!(it.count(COUNT).await, 7);
    }
}

both!(an_error_of_what_was_sent_later_undoes_everything);
async fn an_error_of_what_was_sent_later_undoes_everything() {
    let it = with_table();
    it.script(&["insert into t values (1, 'one')"]).await;
    for round in 0..3_i64 {
        let with_the_commit = it.db.write("t", move |tx| {
            tx.execute_later(INSERT, &[(round + 100).into(), "kept?".into()])?;
            tx.execute_later(INSERT, &[1.into(), "twice".into()])
        });
        let error: Error = with_the_commit.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Constraint, "{error}");
        let with_the_next = it.db.write("t", move |tx| {
            tx.execute_later(INSERT, &[1.into(), "twice".into()])?;
            // The outcome of this statement does not matter: the first error is reported.
            tx.execute(INSERT, &[(round + 200).into(), "kept?".into()])
        });
        let error: Error = with_the_next.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Constraint, "{error}");
        assert_eq!(it.count(COUNT).await, 1);
    }
    let wrong = it.db.write("t", |tx| tx.execute_later(INSERT, &[1.into()])).await;
    assert_eq!(wrong.unwrap_or_else(|e: Error| assert_eq!(e.kind(), ErrorKind::Invalid)), ());
    let read = it.db.read("t", |tx| tx.execute_later(INSERT, &[5.into(), "in a read".into()])).await;
    assert!(read.is_err_and(|e: Error| e.kind() == ErrorKind::Invalid));
    assert_eq!(it.count(COUNT).await, 1);
}

postgres_only!(what_ended_before_the_commit_is_done_again_with_all_of_it, threads = 2);
async fn what_ended_before_the_commit_is_done_again_with_all_of_it() {
    let it = Arc::new(with_table());
    it.script(&[
        "create table s (a bigint)",
        "create function slow() returns trigger language plpgsql as \
         'begin perform pg_sleep(case when new.a = 7 then 5 else 0 end); return new; end'",
        "create trigger waits before insert on s for each row execute function slow()",
    ])
    .await;
    it.db
        .write("t", |tx| tx.execute(SLOW, &[1.into()]).map(drop))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    it.db
        .write("t", |tx| tx.execute(INSERT, &[0.into(), "x".into()]).map(drop))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    let tries = Arc::new(AtomicU32::new(0));
    let (inner, counted) = (Arc::clone(&it), Arc::clone(&tries));
    let done = it.db.write("t", move |tx| {
        let slow: i64 = if counted.fetch_add(1, Ordering::Relaxed) == 0 { 7 } else { 2 };
        tx.execute_later(INSERT, &[1.into(), "x".into()])?;
        if slow == 7 {
            let inner = Arc::clone(&inner);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                let name = inner.url().rsplit('/').next().unwrap().to_owned();
                let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname";
                shared().sql(format!("{end} = '{name}'"));
            });
        }
        tx.execute_later(SLOW, &[slow.into()])
    });
    // The server reported its end before it reached the commit, so nothing is unknown.
    done.await.unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    assert_eq!(it.count("select count(*) from t where a = 1").await, 1);
    assert_eq!(it.count("select count(*) from s").await, 2);
}
