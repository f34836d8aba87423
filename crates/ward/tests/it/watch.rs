//! The watch on runtime threads reacts to planted work, and to nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::StatusCode;
use ward::error::ApiError;
use ward::http::watch::LONGEST;
use ward::http::{Open, Reply, Request, Route};
use ward_test::{Engine, Server, both};

/// Computes for longer than the limit, in processor time.
fn compute() {
    let thread_time = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap())
    };
    let begun = thread_time();
    while thread_time() < begun + LONGEST + Duration::from_millis(20) {
        std::hint::black_box(Instant::now());
    }
}

async fn served<F>(
    server: &Server,
    handler: impl Fn(Request, Open) -> F + Send + Sync + 'static,
) -> StatusCode
where
    F: Future<Output = Result<Reply, ApiError>> + Send + 'static,
{
    let operation = server.app.contract.operations().next().unwrap().clone();
    let route = Route::new(Arc::clone(&server.app), operation, "planted", handler);
    route.serve(http::Request::new(Body::empty())).await.status()
}

both!(work_on_a_runtime_thread_trips_the_watch_and_work_beside_it_does_not, async || {
    let server = Server::start().await;
    let planted = served(&server, |_: Request, _: Open| async {
        compute();
        Ok(Reply::no_content())
    });
    assert_eq!(planted.await, StatusCode::INTERNAL_SERVER_ERROR);
    let told = server.app.watch.take();
    assert!(told.len() == 1 && told[0].contains("held a runtime thread"), "{told:?}");
    // The watch reacts after a wait too, and not only in the first poll.
    let planted = served(&server, |_: Request, _: Open| async {
        tokio::task::yield_now().await;
        compute();
        Ok(Reply::no_content())
    });
    assert_eq!(planted.await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(server.app.watch.take().len(), 1);
    let beside = served(&server, |_: Request, _: Open| async {
        tokio::task::spawn_blocking(compute).await.unwrap();
        Ok(Reply::no_content())
    });
    assert_eq!(beside.await, StatusCode::NO_CONTENT);
    assert!(server.app.watch.take().is_empty());
});

// The writer is SQLite's alone: on PostgreSQL each closure has a thread to itself.
both!(work_inside_the_writer_trips_the_watch, async || {
    let server = Server::start().await;
    let planted = server.app.db.write("planted", |_| {
        compute();
        Ok::<_, ward_db::Error>(())
    });
    planted.await.unwrap();
    let told = server.app.db.held_too_long();
    match Engine::current() {
        Engine::Sqlite => {
            assert!(told.len() == 1 && told[0].contains("the closure planted held"), "{told:?}");
        }
        Engine::Postgres => assert_eq!(told, [""; 0]),
    }
});
