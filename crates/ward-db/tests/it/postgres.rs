//! Behaviour of PostgreSQL alone: lost connections, conflicting transactions, poolers, replicas.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ward_db::{Db, Deadline, Error, ErrorKind, Options, Timestamp};
use ward_test_db::postgres::{Pooler, shared};
use ward_test_db::{both, postgres_only};

use crate::support::{Fixture, fast, fixture, fixture_with};

fn one() -> Options {
    Options { connections: 1, ..fast() }
}

const COUNT: &str = "select count(*) from t";

fn with_table(options: Options) -> Fixture {
    let it = fixture_with(options);
    it.tables("create table t (a bigint not null primary key, b bigint)");
    it
}

/// Ends every connection to the test's database, as a failover or an operator does.
fn terminate(it: &Fixture) {
    let name = it.url().rsplit('/').next().unwrap().to_owned();
    shared().sql(format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"));
}

postgres_only!(two_that_deadlock_both_get_through, threads = 2);
async fn two_that_deadlock_both_get_through() {
    let it = with_table(fast());
    it.script(&["insert into t values (1, 0), (2, 0)"]).await;
    let tries = Arc::new(AtomicU32::new(0));
    let both_hold_one = Arc::new(std::sync::Barrier::new(2));
    let tasks = [[1_i64, 2], [2, 1]].map(|order| {
        let (db, tries, meet) = (it.db.clone(), Arc::clone(&tries), Arc::clone(&both_hold_one));
        let mut first = true;
        tokio::spawn(async move {
            db.write("t", move |tx| {
                tries.fetch_add(1, Ordering::Relaxed);
                tx.execute("update t set b = b + 1 where a = $1", &[order[0].into()])?;
                if std::mem::take(&mut first) {
                    meet.wait();
                }
                tx.execute("update t set b = b + 1 where a = $1", &[order[1].into()])?;
                Ok::<_, Error>(())
            })
            .await
        })
    });
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(tries.load(Ordering::Relaxed) >= 3);
    assert_eq!(it.count("select min(b) from t").await, 2);
}

postgres_only!(a_conflict_is_tried_again_until_its_time_is_over);
async fn a_conflict_is_tried_again_until_its_time_is_over() {
    let it = with_table(fast());
    it.script(&["create function conflict() returns bigint language plpgsql as \
                 'begin raise exception using errcode = ''40001''; end'"])
        .await;
    let mut tries = 0;
    let got = it
        .db
        .write("t", move |tx| {
            tries += 1;
            tx.execute("insert into t values (1, $1)", &[tries.into()])?;
            if tries < 5 {
                tx.optional("select conflict()", &[], |_| Ok(()))?;
            }
            Ok::<_, Error>(tries)
        })
        .await;
    assert_eq!(got.unwrap(), 5);
    assert_eq!(it.count("select b from t").await, 5);
    let hurried = Options { closure_time: Duration::from_secs(2), ..fast() };
    let hurried = Db::open(it.url(), hurried).unwrap();
    let started = Instant::now();
    let refused: Error =
        hurried.write("t", |tx| tx.optional("select conflict()", &[], |_| Ok(()))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

postgres_only!(statements_are_prepared_again_when_they_must);
async fn statements_are_prepared_again_when_they_must() {
    let it = with_table(one());
    it.script(&["insert into t values (1, 2)"]).await;
    let all = "select * from t where a = $1";
    let columns = || {
        it.db.read("t", move |tx| {
            tx.one(all, &[1.into()], |row| Ok((1..9).take_while(|&at| row.get::<i64>(at).is_ok()).count()))
        })
    };
    let of = |columns: Result<usize, Error>| columns.unwrap();
    assert_eq!(of(columns().await), 1);
    it.script(&["alter table t add column c bigint default 3"]).await;
    assert_eq!(of(columns().await), 2, "the cached plan's result has changed its form");
    it.script(&["deallocate all"]).await;
    assert_eq!(of(columns().await), 2, "and now it is gone");
    it.script(&["alter table t drop column b", "insert into t values (2, 1)"]).await;
    let kept = it
        .db
        .write("t", move |tx| {
            tx.execute("insert into t values (3, 1)", &[])?;
            tx.optional(all, &[3.into()], |_| Ok(()))
        })
        .await;
    assert_eq!(kept.unwrap_or_else(|e: Error| panic!("{e}")), Some(()));
    assert_eq!(it.count(COUNT).await, 3);
}

both!(a_statement_takes_null_first_and_a_value_later);
async fn a_statement_takes_null_first_and_a_value_later() {
    let it = with_table(one());
    for value in [None, Some(7_i64), None] {
        let found = it
            .db
            .write("t", move |tx| {
                tx.execute("delete from t", &[])?;
                tx.execute("insert into t values (1, $1)", &[value.into()])?;
                // The statement's text does not determine the type of its parameter, so the values do.
                tx.one("select case when $1 > 0 then $1 else 0 end, b from t", &[5.into()], |row| {
                    Ok((row.get::<i64>(0)?, row.get::<Option<i64>>(1)?))
                })
            })
            .await;
        assert_eq!(found.unwrap_or_else(|e: Error| panic!("{e}")), (5, value));
    }
}

postgres_only!(a_name_that_is_taken_in_the_session_is_no_error);
async fn a_name_that_is_taken_in_the_session_is_no_error() {
    let it = with_table(one());
    // This imitates a pooler that hands out another process's session with that process's statements.
    it.script(&["do $$ begin for i in 0..2500 loop begin \
                   execute format('prepare s%s as select 1', i * 16); \
                 exception when duplicate_prepared_statement then null; end; end loop; end $$"])
        .await;
    for number in 0..48_i64 {
        let text = format!("select {number} + a from t where a = $1");
        let found = it.db.write("t", move |tx| {
            tx.execute("insert into t values ($1, 0)", &[number.into()])?;
            tx.one(&text, &[number.into()], |row| row.get::<i64>(0))
        });
        assert_eq!(found.await.unwrap_or_else(|e: Error| panic!("{e}")), 2 * number);
    }
}

postgres_only!(behind_a_pooler_limits_are_each_transaction_s_and_statements_are_prepared);
async fn behind_a_pooler_limits_are_each_transaction_s_and_statements_are_prepared() {
    let it = with_table(one());
    let db = Db::open(&format!("{}?pooler=transaction", it.url()), one()).unwrap();
    let limit = "show statement_timeout";
    for _ in 0..2 {
        let inside = db.write("t", move |tx| tx.one(limit, &[], |row| row.get::<String>(0)));
        assert_eq!(inside.await.unwrap_or_else(|e: Error| panic!("{e}")), "8s");
        let outside = db.read("t", move |tx| tx.one(limit, &[], |row| row.get::<String>(0)));
        assert_eq!(
            outside.await.unwrap_or_else(|e: Error| panic!("{e}")),
            "0",
            "the session is not ours to set"
        );
    }
    let named = "select count(*) from pg_prepared_statements";
    let named = db.read("t", move |tx| tx.one(named, &[], |row| row.get::<i64>(0)));
    assert!(named.await.unwrap_or_else(|e: Error| panic!("{e}")) > 0);
}

postgres_only!(more_parameters_than_the_protocol_counts_are_a_mistake_of_the_program_s);
async fn more_parameters_than_the_protocol_counts_are_a_mistake_of_the_program_s() {
    let it = with_table(one());
    let mut tries = 0;
    let refused = it.db.write("t", move |tx| {
        tries += 1;
        assert_eq!(tries, 1, "the program ran the statement again, which cannot help");
        let places: Vec<String> = (1..=65_536).map(|number| format!("(${number})")).collect();
        let values: Vec<ward_db::Value<'_>> = (0..65_536_i64).map(Into::into).collect();
        tx.execute(&format!("insert into t (a) values {}", places.join(", ")), &values)
    });
    let refused: Error = refused.await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
}

postgres_only!(a_call_that_finds_every_connection_busy_is_refused);
async fn a_call_that_finds_every_connection_busy_is_refused() {
    let it = with_table(Options { busy_timeout: Duration::from_millis(100), ..one() });
    let held = it.hold().await;
    let refused: Error = it.db.read("t", |tx| tx.one(COUNT, &[], |_| Ok(()))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    // Long reads have connections of their own.
    it.db.read_long("t", |tx| tx.one(COUNT, &[], |_| Ok(()))).await.unwrap_or_else(|e: Error| panic!("{e}"));
    held.release().await;
    assert_eq!(it.count(COUNT).await, 0);
}

postgres_only!(a_call_with_a_deadline_waits_for_a_connection_until_then);
async fn a_call_with_a_deadline_waits_for_a_connection_until_then() {
    let it = with_table(Options { busy_timeout: Duration::ZERO, ..one() });
    let held = it.hold().await;
    let count = || it.db.read("t", |tx| tx.one(COUNT, &[], |row| row.get::<i64>(0)));
    let refused: Error = count().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let mut waits = std::pin::pin!(Deadline::of(Duration::from_mins(1)).over(count()));
    // One poll, so that the call is queued before the connection is returned.
    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(waits.as_mut().poll(cx).is_pending())).await;
    assert!(first, "it did not wait");
    held.release().await;
    assert_eq!(waits.await.unwrap_or_else(|e: Error| panic!("{e}")), 0);
}

postgres_only!(a_call_that_waits_in_the_database_does_not_delay_others, threads = 2);
async fn a_call_that_waits_in_the_database_does_not_delay_others() {
    let it = with_table(Options { ready_connections: 1, connections: 3, ..fast() });
    let sleeping = [(); 2].map(|()| {
        let db = it.db.clone();
        tokio::spawn(
            async move { db.read("t", |tx| tx.optional("select pg_sleep(3)", &[], |_| Ok(()))).await },
        )
    });
    // The connection for immediate use is taken, then another, and a third remains.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..20 {
        assert_eq!(it.count(COUNT).await, 0);
    }
    assert!(sleeping.iter().all(|task| !task.is_finished()));
    for task in sleeping {
        task.await.unwrap().unwrap_or_else(|e: Error| panic!("{e}"));
    }
}

postgres_only!(a_connection_that_ended_is_replaced_unnoticed, threads = 2);
async fn a_connection_that_ended_is_replaced_unnoticed() {
    let it = Arc::new(with_table(one()));
    for round in 0..5_i64 {
        it.count(COUNT).await;
        terminate(&it);
        // The connection ends before a write, then before a read.
        it.db
            .write("t", move |tx| tx.execute("insert into t values ($1, 0)", &[round.into()]))
            .await
            .unwrap_or_else(|e: Error| panic!("{e}"));
        terminate(&it);
        assert_eq!(it.count(COUNT).await, round + 1);
    }
    // The connection ends between two statements. The first one's change is lost with it, and returns with
    // the closure.
    let (mut first, inner) = (true, Arc::clone(&it));
    it.db
        .write("t", move |tx| {
            tx.execute("insert into t values (100, 0)", &[])?;
            if std::mem::take(&mut first) {
                terminate(&inner);
            }
            tx.execute("insert into t values (101, 0)", &[])
        })
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    assert_eq!(it.count(COUNT).await, 7);
    // The connection ends during a statement.
    let (mut first, inner) = (true, Arc::clone(&it));
    let done = it.db.write("t", move |tx| {
        tx.execute("insert into t values (200, 0)", &[])?;
        if std::mem::take(&mut first) {
            let inner = Arc::clone(&inner);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                terminate(&inner);
            });
            tx.optional("select pg_sleep(7)", &[], |_| Ok(()))?;
        }
        Ok::<_, Error>(())
    });
    tokio::time::timeout(Duration::from_secs(5), done).await.unwrap().unwrap();
    assert_eq!(it.count(COUNT).await, 8);
}

postgres_only!(a_commit_that_errs_is_unknown_unless_the_server_says_why, threads = 2);
async fn a_commit_that_errs_is_unknown_unless_the_server_says_why() {
    let it = Arc::new(with_table(one()));
    it.script(&[
        "create table c (p bigint constraint c_has_t references t (a) deferrable initially deferred)",
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(7); return null; end'",
        "create table s (a bigint)",
        "create constraint trigger waits after insert on s deferrable initially deferred \
         for each row execute function slow()",
    ])
    .await;
    let refused: Error =
        it.db.write("t", |tx| tx.execute("insert into c values (99)", &[])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Constraint);
    assert!(refused.to_string().contains("c_has_t") && !refused.to_string().contains("99"), "{refused}");
    let commits = it.db.stats().commits;
    let inner = Arc::clone(&it);
    let mut tries = 0;
    let lost: Error = it
        .db
        .write("t", move |tx| {
            tries += 1;
            assert_eq!(tries, 1, "a write that may have been committed was done again");
            let inner = Arc::clone(&inner);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                terminate(&inner);
            });
            tx.execute("insert into s values (1)", &[])
        })
        .await
        .unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unknown);
    assert_eq!(it.db.stats().commits, commits);
    assert_eq!(it.count("select count(*) from s").await, 0);
}

postgres_only!(a_statement_s_time_is_bounded_by_the_server_and_from_here);
async fn a_statement_s_time_is_bounded_by_the_server_and_from_here() {
    let quick = Options { statement_time: Duration::from_millis(200), ..one() };
    let it = with_table(quick.clone());
    let pid = || it.count("select pg_backend_pid()");
    let before = pid().await;
    let sleep = async |db: &Db| {
        db.read("t", |tx| tx.optional("select pg_sleep(30), 'of this test'", &[], |_| Ok(()))).await
    };
    let late: Error = sleep(&it.db).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert_eq!(pid().await, before, "the server ended the statement, and the connection lives");
    // This session takes no settings, so the statement is given up from here and the server is told.
    let unset = Db::open(&format!("{}?statement_cache=off", it.url()), quick).unwrap();
    let started = Instant::now();
    let late: Error = sleep(&unset).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let asleep = "select count(*) from pg_stat_activity where state = 'active' and query like 'select pg_sleep(30), ''of this test%'";
    while it.count(asleep).await > 0 {
        assert!(started.elapsed() < Duration::from_secs(25), "the server was not told");
    }
}

postgres_only!(levels_do_not_depend_on_the_database_s_defaults);
async fn levels_do_not_depend_on_the_database_s_defaults() {
    let it = fixture_with(fast());
    let name = it.url().rsplit('/').next().unwrap().to_owned();
    shared().sql(format!("alter database {name} set default_transaction_isolation = 'serializable'"));
    let level = "show transaction_isolation";
    let write = it.db.write("t", move |tx| tx.one(level, &[], |row| row.get::<String>(0))).await;
    assert_eq!(write.unwrap_or_else(|e: Error| panic!("{e}")), "read committed");
    let long = it.db.read_long("t", move |tx| tx.one(level, &[], |row| row.get::<String>(0))).await;
    assert_eq!(long.unwrap_or_else(|e: Error| panic!("{e}")), "repeatable read");
    it.db.check().await.unwrap();
    shared().sql(format!("alter database {name} set default_transaction_read_only = on"));
    terminate(&it);
    let standby = it.db.check().await.unwrap_err();
    assert_eq!(standby.kind(), ErrorKind::Unavailable, "a server that takes no writes is not ready");
}

postgres_only!(a_dead_host_is_passed_over);
async fn a_dead_host_is_passed_over() {
    let it = with_table(fast());
    let url = it.url().replace("@127.0.0.1:", "@127.0.0.1:1,127.0.0.1:") + "?target_session_attrs=read-write";
    let db = Db::open(&url, fast()).unwrap();
    db.check().await.unwrap();
    let unreachable = Db::open("postgres://ward:hidden@127.0.0.1:1/ward", fast()).unwrap();
    let refused: Error = unreachable.read("t", |tx| tx.one("select 1", &[], |_| Ok(()))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("refused") && !refused.to_string().contains("hidden"), "{refused}");
    assert_eq!(unreachable.migrate(&[], "0.1.0").unwrap_err().kind(), ErrorKind::Unavailable);
}

postgres_only!(a_value_outside_the_portable_types_cannot_be_read);
async fn a_value_outside_the_portable_types_cannot_be_read() {
    let it = fixture();
    for sql in
        ["select 'infinity'::timestamptz", "select '20000-01-01'::timestamptz", "select now()::timestamp"]
    {
        let odd = it.db.read("t", move |tx| tx.one(sql, &[], |row| row.get::<Timestamp>(0))).await;
        assert_eq!(odd.map_err(|e: Error| e.kind()), Err(ErrorKind::Decode), "{sql}");
    }
    let sum = it.db.read("t", |tx| tx.one("select sum($1)", &[1.into()], |row| row.get::<i64>(0))).await;
    assert_eq!(sum.map_err(|e: Error| e.kind()), Err(ErrorKind::Decode));
    let timestamps = [Timestamp::MIN, Timestamp::from_micros(-1), Timestamp::MAX];
    for timestamp in timestamps {
        let back = it
            .db
            .read("t", move |tx| tx.one("select $1", &[timestamp.into()], |row| row.get::<Timestamp>(0)))
            .await;
        assert_eq!(back.unwrap_or_else(|e: Error| panic!("{e}")), timestamp);
    }
}

postgres_only!(a_pooler_in_transaction_mode_works, threads = 4);
async fn a_pooler_in_transaction_mode_works() {
    let it = fixture();
    let pooler = Pooler::start(shared(), 2);
    let name = it.url().rsplit('/').next().unwrap();
    let url = format!("postgres://ward@127.0.0.1:{}/{name}?statement_cache=off", pooler.port);
    let replicas = [(); 2].map(|()| Db::open(&url, fast()).unwrap());
    let migration = ward_db::Migration {
        name: "0001_pooled",
        sql: "-- oldest binary: 0.1.0\ncreate table t (a bigint not null primary key, b bigint)",
    };
    for db in &replicas {
        db.migrate(&[migration], "0.1.0").unwrap();
        db.check().await.unwrap();
    }
    let tasks: Vec<_> = (0..16_i64)
        .map(|task| {
            let db = replicas[usize::try_from(task % 2).unwrap()].clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let at = task * 100 + round;
                    db.write("t", move |tx| {
                        let limit = tx.one("show statement_timeout", &[], |row| row.get::<String>(0))?;
                        assert_eq!(limit, "8s");
                        tx.execute("insert into t (a, b) values ($1, $2)", &[at.into(), None::<i64>.into()])?;
                        tx.execute("update t set b = $2 where a = $1", &[at.into(), round.into()])
                    })
                    .await?;
                    let one = "select b from t where a = $1";
                    let read = db.read("t", move |tx| tx.one(one, &[at.into()], |row| row.get::<i64>(0)));
                    assert_eq!(read.await?, round);
                    let long = db.read_long("t", |tx| tx.one(COUNT, &[], |row| row.get::<i64>(0)));
                    assert!(long.await? > 0);
                    let unset =
                        db.read("t", |tx| tx.one("show statement_timeout", &[], |row| row.get::<String>(0)));
                    assert_eq!(
                        unset.await?,
                        "0".to_owned(),
                        "a limit stayed with a session that is not ours"
                    );
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", pooler.log()));
    }
    assert_eq!(it.count(COUNT).await, 160);
    let sessions = "select count(*) from pg_stat_activity where datname = current_database()";
    assert!(it.count(sessions).await <= 2 + 1, "two of the pooler, one of this count");
}

both!(closing_finishes_what_was_taken_and_then_refuses, threads = 2);
async fn closing_finishes_what_was_taken_and_then_refuses() {
    let it = with_table(fast());
    let held = it.hold().await;
    let closer = {
        let db = it.db.clone();
        tokio::task::spawn_blocking(move || db.close())
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    held.release().await;
    closer.await.unwrap();
    let write: Result<(), Error> = it.db.write("t", |_| Ok(())).await;
    let read: Result<(), Error> = it.db.read("t", |_| Ok(())).await;
    let long: Result<(), Error> = it.db.read_long("t", |_| Ok(())).await;
    for refused in [write, read, long, it.db.check().await, it.db.schema().map(|_| ())] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    it.db.close();
}

both!(one_closure_s_trouble_is_its_own);
async fn one_closure_s_trouble_is_its_own() {
    let it = with_table(one());
    it.script(&["insert into t values (1, 0)"]).await;
    let violates: Error = it
        .db
        .write("t", |tx| {
            tx.execute("insert into t values (50, 0)", &[])?;
            tx.execute("insert into t values (1, 0)", &[])
        })
        .await
        .unwrap_err();
    assert_eq!(violates.kind(), ErrorKind::Constraint);
    let panics: Error = it
        .db
        .write("t", |tx| -> Result<(), Error> {
            tx.execute("insert into t values (51, 0)", &[])?;
            panic!("on purpose")
        })
        .await
        .unwrap_err();
    assert_eq!(panics.kind(), ErrorKind::Panic);
    let refuses: Error = it
        .db
        .write("t", |tx| {
            tx.execute("insert into t values (52, 0)", &[])?;
            tx.one("select 1 where false", &[], |_| Ok(()))
        })
        .await
        .unwrap_err();
    assert_eq!(refuses.kind(), ErrorKind::NoRow);
    assert_eq!(it.count(COUNT).await, 1);
}

postgres_only!(connections_are_opened_as_needed_and_used_again, threads = 4);
async fn connections_are_opened_as_needed_and_used_again() {
    let it = with_table(Options { connections: 3, ..fast() });
    let pids = "select pg_backend_pid()";
    let first = it.count(pids).await;
    for _ in 0..20 {
        assert_eq!(it.count(pids).await, first, "a call after another needs no second connection");
    }
    let tasks: Vec<_> = (0..30)
        .map(|_| {
            let db = it.db.clone();
            tokio::spawn(async move {
                db.read("t", |tx| tx.one("select pg_sleep(0.01)", &[], |_| Ok::<_, Error>(()))).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let name = it.url().rsplit('/').next().unwrap().to_owned();
    let sessions = "select count(*) from pg_stat_activity where datname = $1 and application_name = 'ward'";
    let count = it.db.read("t", move |tx| tx.one(sessions, &[(&name).into()], |row| row.get::<i64>(0))).await;
    assert_eq!(count.unwrap_or_else(|e: Error| panic!("{e}")), 3);
}

/// How often the system had to give this process a page of memory since its start.
fn page_faults(pid: i64) -> u64 {
    let told = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // This is the eighth field after the process's name, which may hold any character.
    told.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse().unwrap()
}

postgres_only!(a_session_keeps_the_memory_that_its_statements_take);
async fn a_session_keeps_the_memory_that_its_statements_take() {
    let it = fixture_with(one());
    // Each piece comes from the heap and not directly from the system. Together they exceed what a heap keeps
    // by default.
    let pieces = ["length(repeat('x', $1::int))"; 5].join(" + ");
    let run = async |times: u64| {
        for _ in 0..times {
            let sql = format!("select ({pieces})::bigint");
            let read =
                it.db.read("t", move |tx| tx.one(&sql, &[50_000_i64.into()], |row| row.get::<i64>(0))).await;
            assert_eq!(read.unwrap_or_else(|e: Error| panic!("{e}")), 250_000);
        }
    };
    let pid = it.count("select pg_backend_pid()").await;
    run(10).await;
    let before = page_faults(pid);
    run(100).await;
    let faults = page_faults(pid) - before;
    assert!(faults < 100, "{faults} pages for 100 statements");
}
