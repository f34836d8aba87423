//! The choice among several servers: one that answers and takes writes.

use std::net::TcpListener;
use std::time::Duration;

use ward_db::{Db, Error, ErrorKind, Options};
use ward_test_db::postgres::shared;
use ward_test_db::postgres_only;
use ward_test_db::replicated::Pair;

use crate::support::fast;

async fn add(db: &Db, number: i64) -> Result<u64, Error> {
    db.write("t", move |tx| tx.execute("insert into t values ($1)", &[number.into()])).await
}

async fn count(db: &Db) -> Result<i64, Error> {
    db.read("t", |tx| tx.one("select count(*) from t", &[], |row| row.get(0))).await
}

postgres_only!(a_standby_is_no_server_until_it_is_promoted);
async fn a_standby_is_no_server_until_it_is_promoted() {
    let pair = Pair::start();
    // Here a commit waits for the standby.
    let open = |url: String| Db::open(&url, Options::default()).unwrap();
    let standby = pair.standby.url("postgres");
    // The standby comes first, and the URL does not say which server takes writes.
    let both = open(standby.replace("/postgres", &format!(",127.0.0.1:{}/postgres", pair.primary.port)));
    let table = ward_db::Migration {
        name: "0001_t",
        sql: "-- oldest binary: 0.1.0\ncreate table t (a bigint not null primary key)",
    };
    both.migrate(&[table], "0.1.0").unwrap();
    assert_eq!(add(&both, 1).await.unwrap(), 1);

    let alone = open(standby.clone());
    let told = count(&alone).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Unavailable, "a standby may have outdated data: {told}");
    assert!(told.to_string().contains("does not allow writes"), "{told}");
    // A URL that accepts any server meets the refusal at the start of a transaction, and in a change outside
    // of one.
    let any = open(format!("{standby}?target_session_attrs=any"));
    any.read("t", |tx| tx.one("select 1", &[], |_| Ok(()))).await.unwrap_or_else(|e: Error| panic!("{e}"));
    let retried = add(&any, 2).await.unwrap_err();
    assert_eq!(retried.kind(), ErrorKind::Unavailable, "{retried}");
    let checked = any.check().await.unwrap_err();
    assert_eq!(checked.kind(), ErrorKind::Unavailable, "{checked}");

    pair.primary.kill();
    pair.promote();
    for db in [&alone, &any, &both] {
        db.check().await.unwrap();
    }
    assert_eq!(add(&alone, 3).await.unwrap(), 1);
    assert_eq!(add(&any, 4).await.unwrap(), 1);
    assert_eq!(count(&both).await.unwrap(), 3);
}

postgres_only!(a_server_that_accepts_and_never_answers_is_passed_over);
async fn a_server_that_accepts_and_never_answers_is_passed_over() {
    // The system accepts for it, as it does for a server that is stopped.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let database = shared().database();
    let url = database.url.replace("@127.0.0.1:", &format!("@127.0.0.1:{port},127.0.0.1:"));
    // The limit is shorter than one address may take alone, so the second one gets a share of it.
    let db = Db::open(&url, Options { closure_time: Duration::from_secs(2), ..fast() }).unwrap();
    db.check().await.unwrap();
    db.read_long("t", |tx| tx.one("select 1", &[], |_| Ok(())))
        .await
        .unwrap_or_else(|e: Error| panic!("{e}"));
    // A migration has an hour, and must not spend it on the silent server.
    let fresh = Db::open(&format!("{url}?connect_timeout=1"), fast()).unwrap();
    fresh.migrate(&[], "0.1.0").unwrap();
    let alone = format!("postgres://ward:hidden@127.0.0.1:{port}/ward?connect_timeout=1");
    let alone = Db::open(&alone, fast()).unwrap();
    let refused = alone.check().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains(&format!("127.0.0.1:{port}: no answer within")), "{refused}");
    assert!(!refused.to_string().contains("hidden"), "{refused}");
}

postgres_only!(a_connection_is_replaced_when_its_time_is_over);
async fn a_connection_is_replaced_when_its_time_is_over() {
    let database = shared().database();
    let pids = async |life: Duration| {
        let options = Options { connections: 1, connection_life: life, ..fast() };
        let db = Db::open(&database.url, options).unwrap();
        let pid = || db.read("t", |tx| tx.one("select pg_backend_pid()", &[], |row| row.get::<i64>(0)));
        let pids: [Result<i64, Error>; 2] = [pid().await, pid().await];
        pids.map(Result::unwrap)
    };
    let [one, same] = pids(Options::default().connection_life).await;
    assert_eq!(one, same);
    let [one, other] = pids(Duration::ZERO).await;
    assert_ne!(one, other);
}
