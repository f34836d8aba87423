//! Every limit, at its edge.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ward::config::{Bootstrap, Config, Rate};
use ward_test::{
    Actor, Engine, Sending, Server, Tenant, both, fresh_slug, new_workspace, postgres_only, unknown_key,
};

both!(a_body_up_to_the_limit_is_read_and_one_byte_more_is_not);
async fn a_body_up_to_the_limit_is_read_and_one_byte_more_is_not() {
    let server = Server::with(|config| config.limits.body_bytes = 1_000).await;
    let tenant = server.tenant("acme").await;
    let padded = |bytes: usize| {
        let body = json!({ "name": "New" }).to_string();
        format!("{body}{}", " ".repeat(bytes - body.len())).into_bytes()
    };
    let send = |body: Vec<u8>| {
        let sending = Sending { body: Some(body), content_type: Some("application/json"), headers: &[] };
        tenant.owner.send(Method::PATCH, "/v1/workspaces/x", sending)
    };
    assert_eq!(send(padded(1_000)).await.refused(404), "workspace_not_found");
    assert_eq!(send(padded(1_001)).await.refused(413), "body_too_large");
}

both!(a_body_too_large_is_refused_after_the_credential_and_before_the_workspace);
async fn a_body_too_large_is_refused_after_the_credential_and_before_the_workspace() {
    let server = Server::with(|config| config.limits.body_bytes = 100).await;
    let tenant = server.tenant("acme").await;
    let large = json!({ "name": "x".repeat(200) });
    assert_eq!(
        server.anonymous().patch(&tenant.workspace(""), large.clone()).await.refused(401),
        "unauthorized"
    );
    assert_eq!(tenant.owner.patch("/v1/workspaces/unknown", large).await.refused(413), "body_too_large");
}

both!(json_may_be_so_deep_and_no_deeper);
async fn json_may_be_so_deep_and_no_deeper() {
    let server = Server::with(|config| config.limits.json_depth = 5).await;
    let tenant = server.tenant("acme").await;
    let nested = |depth: usize| {
        let body = format!("{{\"other\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        Sending { body: Some(body.into_bytes()), content_type: Some("application/json"), headers: &[] }
    };
    tenant.owner.send(Method::PATCH, &tenant.workspace(""), nested(5)).await.expect(StatusCode::OK);
    let refused = tenant.owner.send(Method::PATCH, &tenant.workspace(""), nested(6)).await;
    let refused = refused.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["detail"][0]["type"], "json_invalid");
}

both!(text_that_is_not_utf8_is_400);
async fn text_that_is_not_utf8_is_400() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let sending = Sending {
        body: Some(b"{\"name\":\"\xff\"}".to_vec()),
        content_type: Some("application/json"),
        headers: &[],
    };
    let refused = tenant.owner.send(Method::PATCH, &tenant.workspace(""), sending).await;
    assert_eq!(refused.refused(400), "body_not_utf8");
}

/// Keeps every write waiting until it is released.
async fn hold_the_writer(
    server: &Server,
) -> (std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), ward_db::Error>>) {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (began, begun) = std::sync::mpsc::channel::<()>();
    let db = server.app.db.clone();
    let blocking = tokio::spawn(async move {
        let mut held = Some(held);
        db.write("test.hold", move |tx| {
            // One engine has one writer, the other waits for the row.
            tx.execute("UPDATE workspaces SET last_position = last_position", &[])?;
            let _ = began.send(());
            let _ = held.take().map(|held| held.recv());
            Ok::<_, ward_db::Error>(())
        })
        .await
    });
    tokio::task::spawn_blocking(move || begun.recv()).await.unwrap().unwrap();
    (release, blocking)
}

both!(a_request_that_takes_too_long_is_503);
async fn a_request_that_takes_too_long_is_503() {
    let server = Server::with(|config| config.limits.request_time = Duration::from_secs(2)).await;
    let tenant = server.tenant("acme").await;
    let (release, blocking) = hold_the_writer(&server).await;
    let refused = tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await;
    assert_eq!(refused.header("retry-after"), "1");
    // A file's writer may still come to it; a server's statement was ended, before anything was committed.
    let expected = if Engine::current() == Engine::Sqlite { "outcome_unknown" } else { "unavailable" };
    assert_eq!(refused.refused(503), expected);
    release.send(()).unwrap();
    blocking.await.unwrap().unwrap();
    if expected == "unavailable" {
        let name = tenant.owner.get(&tenant.workspace("")).await.expect(StatusCode::OK)["name"].clone();
        assert_ne!(name, "New", "what was refused was done");
    }
}

both!(a_body_that_does_not_come_in_time_has_written_nothing);
async fn a_body_that_does_not_come_in_time_has_written_nothing() {
    let server = Server::with(|config| config.limits.request_time = Duration::from_secs(2)).await;
    let tenant = server.tenant("acme").await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PATCH {} HTTP/1.1\r\nhost: w\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 20\r\nconnection: close\r\n\r\n{{",
        tenant.workspace(""),
        tenant.owner.bearer.as_deref().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"timeout\""), "{answer}");
}

postgres_only!(a_commit_that_takes_too_long_is_of_unknown_outcome);
async fn a_commit_that_takes_too_long_is_of_unknown_outcome() {
    let server = Server::with(|config| config.limits.request_time = Duration::from_secs(2)).await;
    let tenant = server.tenant("acme").await;
    let slow = [
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'begin perform pg_sleep(4); return null; end'",
        "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE OF name ON workspaces DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION slow()",
    ];
    let made = server
        .app
        .db
        .write("test.slow", move |tx| slow.iter().try_for_each(|sql| tx.execute(sql, &[]).map(drop)));
    made.await.unwrap_or_else(|error: ward_db::Error| panic!("{error}"));
    let unknown = tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await;
    assert_eq!(unknown.refused(503), "outcome_unknown");
    // And here it was done all the same.
    loop {
        let now = tenant.owner.get(&tenant.workspace("")).await.expect(StatusCode::OK);
        if now["name"] == "New" {
            break;
        }
    }
}

/// Rates are off on loopback unless asked for.
fn rates(config: &mut Config) {
    config.rates.enforced = true;
    config.rates.failed_credentials = Rate { burst: 3, per_minute: 1 };
    config.rates.bootstrap = Rate { burst: 4, per_minute: 1 };
    config.rates.claims = Rate { burst: 2, per_minute: 1 };
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

const fn from(address: &str) -> [(&str, &str); 1] {
    [("x-forwarded-for", address)]
}

both!(failed_credentials_are_limited_by_address_and_good_ones_are_not);
async fn failed_credentials_are_limited_by_address_and_good_ones_are_not() {
    let server = Server::with(rates).await;
    let tenant = server.tenant("acme").await;
    let get = |actor: &Actor, address: &'static str| {
        let actor = actor.clone();
        async move {
            let headers = from(address);
            actor
                .send(Method::GET, "/v1/workspaces", Sending { headers: &headers, ..Sending::default() })
                .await
        }
    };
    let wrong = server.bearing("wrong");
    for left in ["2", "1", "0"] {
        let refused = get(&wrong, "192.0.2.1").await;
        assert_eq!(refused.header("x-ratelimit-limit"), "3");
        assert_eq!(refused.header("x-ratelimit-remaining"), left);
        assert_eq!(refused.refused(401), "unauthorized");
    }
    let before = server.app.db.stats().statements;
    let limited = get(&wrong, "192.0.2.1").await;
    let wait: i64 = limited.header("retry-after").parse().unwrap();
    assert!(wait > 0);
    let reset: i64 = limited.header("x-ratelimit-reset").parse().unwrap();
    assert!((reset * 1_000_000 - server.clock.now().micros() - wait * 1_000_000).abs() < 60_000_000);
    assert_eq!(limited.header("x-ratelimit-remaining"), "0");
    assert_eq!(limited.refused(429), "rate_limited");
    assert_eq!(server.app.db.stats().statements, before, "a bearer that can be no key costs no query");
    get(&tenant.owner, "192.0.2.1").await.expect(StatusCode::OK);

    for _ in 0..20 {
        get(&tenant.owner, "192.0.2.2").await.expect(StatusCode::OK);
    }
    assert_eq!(get(&wrong, "192.0.2.2").await.header("x-ratelimit-remaining"), "2");
    for _ in 0..3 {
        get(&wrong, "2001:db8:1:1::1").await;
    }
    assert_eq!(get(&wrong, "2001:db8:1:1::2").await.refused(429), "rate_limited");
    assert_eq!(get(&wrong, "2001:db8:1:2::2").await.refused(401), "unauthorized");
}

both!(a_valid_key_works_beside_any_number_of_refused_ones, threads = 4);
async fn a_valid_key_works_beside_any_number_of_refused_ones() {
    let server = Server::with(|config| {
        rates(config);
        config.rates.failed_credentials = Rate { burst: 100, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    // A key whose form is right, so that each is looked up.
    let guess = server.bearing(unknown_key());
    let here = from("192.0.2.1");
    let list = |actor: &Actor| {
        let (actor, path) = (actor.clone(), tenant.workspace(""));
        async move { actor.send(Method::GET, &path, Sending { headers: &here, ..Sending::default() }).await }
    };
    let guesses: Vec<_> = (0..600).map(|_| tokio::spawn(list(&guess))).collect();
    for _ in 0..50 {
        list(&tenant.owner).await.expect(StatusCode::OK);
    }
    let mut statuses = BTreeMap::new();
    for answer in guesses {
        *statuses.entry(answer.await.unwrap().status.as_u16()).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(401, 100), (429, 500)]));
    list(&tenant.owner).await.expect(StatusCode::OK);
    let update = Sending { headers: &here, ..Sending::json(&json!({ "name": "New" })) };
    tenant.owner.send(Method::PATCH, &tenant.workspace(""), update).await.expect(StatusCode::OK);
    assert_eq!(list(&guess).await.refused(429), "rate_limited");
}

both!(refused_credentials_count_against_the_workspace_that_they_are_for);
async fn refused_credentials_count_against_the_workspace_that_they_are_for() {
    let server = Server::with(|config| {
        rates(config);
        config.rates.failed_in_workspace = Rate { burst: 4, per_minute: 1 };
    })
    .await;
    let (tenant, other) = (server.tenant("acme").await, server.tenant("other").await);
    let guess = server.bearing(unknown_key());
    let at = async |actor: &Actor, tenant: &Tenant, address: &str| {
        let headers = from(address);
        actor
            .send(Method::GET, &tenant.workspace(""), Sending { headers: &headers, ..Sending::default() })
            .await
    };
    for number in 0..4 {
        assert_eq!(at(&guess, &tenant, &format!("192.0.2.{number}")).await.status, 401);
    }
    assert_eq!(at(&guess, &tenant, "192.0.2.9").await.refused(429), "rate_limited");
    assert_eq!(at(&guess, &other, "192.0.2.9").await.refused(401), "unauthorized");
    at(&tenant.owner, &tenant, "192.0.2.1").await.expect(StatusCode::OK);
}

both!(a_claim_that_can_succeed_is_not_refused_for_those_that_cannot);
async fn a_claim_that_can_succeed_is_not_refused_for_those_that_cannot() {
    let server = Server::with(rates).await;
    let made = server.anonymous().create_workspace("acme").await;
    let here = from("192.0.2.1");
    let claim = |id: &str, key: &'static str| {
        let (path, anonymous) = (format!("/v1/{id}/api-keys"), server.anonymous());
        async move {
            let headers = [here[0], ("idempotency-key", key)];
            let body = json!({ "duration_days": 1 });
            let sending = Sending { headers: &headers, ..Sending::json(&body) };
            anonymous.send(Method::POST, &path, sending).await
        }
    };
    for status in [401, 401, 429, 429] {
        assert_eq!(claim(uuid(), "a-claim-that-cannot-succeed").await.status, status);
    }
    let (limited, cost) = server.costs(claim(uuid(), "a-claim-that-cannot-succeed")).await;
    assert_eq!((limited.refused(429).as_str(), cost.writes), ("rate_limited", 0));
    let id = made["id"].as_str().unwrap();
    let first = claim(id, "a-claim-of-its-own-workspace").await;
    assert_eq!(first.header("x-ratelimit-remaining"), "0");
    let again = claim(id, "a-claim-of-its-own-workspace").await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.expect(StatusCode::CREATED), again.expect(StatusCode::CREATED));
    assert_eq!(claim(id, "another-claim-of-the-workspace").await.refused(429), "rate_limited");
}

both!(the_bootstrap_token_works_beside_any_number_of_wrong_ones);
async fn the_bootstrap_token_works_beside_any_number_of_wrong_ones() {
    let server = Server::with(|config| {
        rates(config);
        config.bootstrap = Bootstrap::Token("the-token-of-the-operator".to_owned().into());
    })
    .await;
    let create = async |actor: Actor| {
        let headers = from("192.0.2.1");
        let body = new_workspace(&fresh_slug());
        actor
            .send(Method::POST, "/v1/workspaces", Sending { headers: &headers, ..Sending::json(&body) })
            .await
    };
    for status in [401, 401, 401, 429, 429] {
        assert_eq!(create(server.bearing("a-guess-at-the-token-of-it")).await.status, status);
    }
    for left in ["3", "2", "1", "0"] {
        let made = create(server.bearing("the-token-of-the-operator")).await;
        assert_eq!(
            made.header("x-ratelimit-remaining"),
            left,
            "wrong tokens use up nothing of the right one"
        );
        made.expect(StatusCode::CREATED);
    }
    assert_eq!(create(server.bearing("the-token-of-the-operator")).await.refused(429), "rate_limited");
}

both!(unclaimed_workspaces_have_a_share_for_each_address, threads = 4);
async fn unclaimed_workspaces_have_a_share_for_each_address() {
    let server = Server::with(|config| {
        rates(config);
        config.rates.bootstrap = Rate { burst: 1_000, per_minute: 1_000 };
        config.unclaimed_per_address = 5;
    })
    .await;
    let replica = server.replica().await;
    let create = |server: &Server, address: &'static str| {
        let anonymous = server.anonymous();
        async move {
            let (headers, body) = (from(address), new_workspace(&fresh_slug()));
            let sending = Sending { headers: &headers, ..Sending::json(&body) };
            anonymous.send(Method::POST, "/v1/workspaces", sending).await
        }
    };
    // Many at once, at two replicas: exactly the share is made.
    let (one, other) = ("2001:db8:1:1::1", "2001:db8:1:1::2");
    let all: Vec<_> = (0..10)
        .flat_map(|_| [tokio::spawn(create(&server, one)), tokio::spawn(create(&replica, other))])
        .collect();
    let mut made = Vec::new();
    for answer in all {
        let answer = answer.await.unwrap();
        if answer.status == StatusCode::CREATED {
            made.push(answer.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(answer.header("retry-after"), "60");
            assert_eq!(answer.refused(429), "too_many_unclaimed");
        }
    }
    assert_eq!(made.len(), 5);
    create(&server, "2001:db8:1:2::1").await.expect(StatusCode::CREATED);
    create(&server, "192.0.2.1").await.expect(StatusCode::CREATED);
    // A claim gives one place back, and the end of their time all of them.
    let body = json!({ "duration_days": 1 });
    server.anonymous().post(&format!("/v1/{}/api-keys", made[0]), body).await.expect(StatusCode::CREATED);
    create(&replica, one).await.expect(StatusCode::CREATED);
    assert_eq!(create(&server, one).await.refused(429), "too_many_unclaimed");
    server.clock.advance(Duration::from_hours(25));
    create(&server, other).await.expect(StatusCode::CREATED);
    server.app.sweep().await;
    assert_eq!(server.count("SELECT count(*) FROM unclaimed_by_address").await, 1);
    assert_eq!(server.count("SELECT used FROM unclaimed_by_address").await, 1);
}

both!(however_many_good_requests_are_under_way_or_given_up_they_count_for_nothing);
async fn however_many_good_requests_are_under_way_or_given_up_they_count_for_nothing() {
    let server = Server::with(rates).await;
    let tenant = server.tenant("acme").await;
    let (release, blocking) = hold_the_writer(&server).await;
    let waiting = (0..8).map(|number| {
        let (owner, path) = (tenant.owner.clone(), tenant.workspace(""));
        tokio::spawn(async move { owner.patch(&path, json!({ "name": format!("New {number}") })).await })
    });
    let mut waiting: Vec<_> = waiting.collect();
    // As many as the address may fail, and more, wait for the writer now.
    for _ in 0..8 {
        tenant.owner.get("/v1/workspaces").await.expect(StatusCode::OK);
    }
    for given_up in waiting.drain(..4) {
        given_up.abort();
    }
    release.send(()).unwrap();
    blocking.await.unwrap().unwrap();
    for answer in waiting {
        answer.await.unwrap().expect(StatusCode::OK);
    }
    let refused = server.bearing("wrong").get("/v1/workspaces").await;
    assert_eq!(refused.header("x-ratelimit-remaining"), "2");
}

both!(bootstrap_and_claims_have_rates_of_their_own);
async fn bootstrap_and_claims_have_rates_of_their_own() {
    let server = Server::with(rates).await;
    let anonymous = server.anonymous();
    let post = |path: String, body: Value| {
        let anonymous = anonymous.clone();
        async move {
            let headers = from("192.0.2.1");
            anonymous.send(Method::POST, &path, Sending { headers: &headers, ..Sending::json(&body) }).await
        }
    };
    for left in ["3", "2", "1", "0"] {
        let made = post("/v1/workspaces".to_owned(), new_workspace(&fresh_slug())).await;
        assert_eq!(made.header("x-ratelimit-remaining"), left);
        made.expect(StatusCode::CREATED);
    }
    let limited = post("/v1/workspaces".to_owned(), new_workspace(&fresh_slug())).await;
    assert_eq!(limited.refused(429), "rate_limited");

    let claim = || post(format!("/v1/{}/api-keys", uuid()), json!({ "duration_days": 1 }));
    for _ in 0..2 {
        assert_eq!(claim().await.refused(401), "unauthorized");
    }
    assert_eq!(claim().await.refused(429), "rate_limited");
}

fn uuid() -> &'static str {
    "00000000-0000-4000-8000-000000000000"
}

both!(a_request_id_is_taken_over_when_it_is_harmless);
async fn a_request_id_is_taken_over_when_it_is_harmless() {
    let server = Server::start().await;
    let twice = [("x-request-id", "one"), ("x-request-id", "two")];
    let sending = Sending { headers: &twice, ..Sending::default() };
    let answer = server.anonymous().send(Method::GET, "/healthz", sending).await;
    assert!(!["one", "two"].contains(&answer.header("x-request-id")));
    for (sent, taken) in
        [("abc-DEF_1.2", true), (&*"x".repeat(129), false), ("a b", false), ("<script>", false)]
    {
        let headers = [("x-request-id", sent)];
        let answer = server
            .anonymous()
            .send(Method::GET, "/healthz", Sending { headers: &headers, ..Sending::default() })
            .await;
        assert_eq!(answer.header("x-request-id") == sent, taken, "{sent}");
    }
}
