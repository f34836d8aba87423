//! Every limit is tested at its edge.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use ward::config::{Bootstrap, Config, Rate};
use ward_test::{
    Actor, Engine, Fields as _, Sending, Server, Tenant, both, fresh_slug, new_workspace, postgres_only,
    unknown_key,
};

use crate::support::together;

both!(a_body_up_to_the_limit_is_read_and_one_byte_more_is_not, async || {
    let server = Server::with(|config| config.body_bytes = 1_000).await;
    let tenant = server.tenant("acme").await;
    let padded = |bytes: usize| {
        let body = json!({ "name": "New" }).to_string();
        format!("{body}{}", " ".repeat(bytes - body.len())).into_bytes()
    };
    let send =
        |body: Vec<u8>| tenant.owner.send(Method::PATCH, "/v1/workspaces/x", Sending::json_bytes(body));
    send(padded(1_000)).await.refused_as(404, "workspace_not_found");
    send(padded(1_001)).await.refused_as(413, "body_too_large");
});

both!(a_body_too_large_is_refused_after_the_credential_and_before_the_workspace, async || {
    let server = Server::with(|config| config.body_bytes = 100).await;
    let tenant = server.tenant("acme").await;
    let large = json!({ "name": "x".repeat(200) });
    server.anonymous().patch(&tenant.workspace(""), large.clone()).await.refused_as(401, "unauthorized");
    tenant.owner.patch("/v1/workspaces/unknown", large).await.refused_as(413, "body_too_large");
});

both!(json_up_to_the_depth_limit_is_read_and_deeper_json_is_not, async || {
    let server = Server::with(|config| config.json_depth = 5).await;
    let tenant = server.tenant("acme").await;
    let nested = |depth: usize| {
        let body = format!("{{\"other\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        Sending::json_bytes(body)
    };
    tenant.owner.send(Method::PATCH, &tenant.workspace(""), nested(5)).await.ok();
    let refused = tenant.owner.send(Method::PATCH, &tenant.workspace(""), nested(6)).await;
    let refused = refused.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused["detail"][0]["type"], "json_invalid");
});

both!(text_that_is_not_utf8_is_400, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let sending = Sending::json_bytes(b"{\"name\":\"\xff\"}");
    tenant.owner.send(Method::PATCH, &tenant.workspace(""), sending).await.refused_as(400, "body_not_utf8");
});

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
            // One engine has a single writer; on the other, writes wait for the row.
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

both!(a_request_that_takes_too_long_is_503, async || {
    let server = Server::with(|config| config.limits.request_time = Duration::from_secs(2)).await;
    let tenant = server.tenant("acme").await;
    let (release, blocking) = hold_the_writer(&server).await;
    let refused = tenant.owner.patch(&tenant.workspace(""), json!({ "name": "New" })).await;
    assert_eq!(refused.header("retry-after"), "1");
    // The writer of a file may still run the statement; a database server has cancelled it before any commit.
    let expected = if Engine::current() == Engine::Sqlite { "outcome_unknown" } else { "unavailable" };
    assert_eq!(refused.refused(503), expected);
    release.send(()).unwrap();
    blocking.await.unwrap().unwrap();
    if expected == "unavailable" {
        let name = tenant.owner.get(&tenant.workspace("")).await.ok()["name"].clone();
        assert_ne!(name, "New", "the refused write was made");
    }
});

both!(a_body_that_does_not_come_in_time_has_written_nothing, async || {
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
});

postgres_only!(a_commit_that_takes_too_long_is_of_unknown_outcome, async || {
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
    tenant
        .owner
        .patch(&tenant.workspace(""), json!({ "name": "New" }))
        .await
        .refused_as(503, "outcome_unknown");
    // Here the write was committed nevertheless.
    loop {
        let now = tenant.owner.get(&tenant.workspace("")).await.ok();
        if now["name"] == "New" {
            break;
        }
    }
});

/// Enforces the rate limits, which are off on loopback by default.
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

both!(failed_credentials_are_limited_by_address_and_good_ones_are_not, async || {
    let server = Server::with(rates).await;
    let tenant = server.tenant("acme").await;
    let get = async |actor: &Actor, address: &str| actor.with(&from(address)).get("/v1/workspaces").await;
    let wrong = server.bearing("wrong");
    for left in ["2", "1", "0"] {
        let refused = get(&wrong, "192.0.2.1").await;
        assert_eq!(refused.header("x-ratelimit-limit"), "3");
        assert_eq!(refused.header("x-ratelimit-remaining"), left);
        refused.refused_as(401, "unauthorized");
    }
    let before = server.app.db.stats().statements;
    let limited = get(&wrong, "192.0.2.1").await;
    let wait: i64 = limited.header("retry-after").parse().unwrap();
    assert!(wait > 0);
    let reset: i64 = limited.header("x-ratelimit-reset").parse().unwrap();
    assert!((reset * 1_000_000 - server.clock.now().micros() - wait * 1_000_000).abs() < 60_000_000);
    assert_eq!(limited.header("x-ratelimit-remaining"), "0");
    limited.refused_as(429, "rate_limited");
    assert_eq!(server.app.db.stats().statements, before, "a bearer that can be no key costs no query");
    get(&tenant.owner, "192.0.2.1").await.ok();

    for _ in 0..20 {
        get(&tenant.owner, "192.0.2.2").await.ok();
    }
    assert_eq!(get(&wrong, "192.0.2.2").await.header("x-ratelimit-remaining"), "2");
    for _ in 0..3 {
        get(&wrong, "2001:db8:1:1::1").await;
    }
    get(&wrong, "2001:db8:1:1::2").await.refused_as(429, "rate_limited");
    get(&wrong, "2001:db8:1:2::2").await.refused_as(401, "unauthorized");
});

both!(a_valid_key_works_beside_any_number_of_refused_ones, threads = 4, async || {
    let server = Server::with(|config| {
        rates(config);
        config.rates.failed_credentials = Rate { burst: 100, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    // The key is well formed, so the server looks it up each time.
    let here = from("192.0.2.1");
    let guess = server.bearing(unknown_key());
    let list = |actor: &Actor| {
        let (actor, path) = (actor.with(&here), tenant.workspace(""));
        async move { actor.get(&path).await }
    };
    let guesses: Vec<_> = (0..600).map(|_| tokio::spawn(list(&guess))).collect();
    for _ in 0..50 {
        list(&tenant.owner).await.ok();
    }
    let mut statuses = BTreeMap::new();
    for answer in guesses {
        *statuses.entry(answer.await.unwrap().status.as_u16()).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(401, 100), (429, 500)]));
    list(&tenant.owner).await.ok();
    tenant.owner.with(&here).patch(&tenant.workspace(""), json!({ "name": "New" })).await.ok();
    list(&guess).await.refused_as(429, "rate_limited");
});

both!(refused_credentials_count_against_the_workspace_that_they_are_for, async || {
    let server = Server::with(|config| {
        rates(config);
        config.rates.failed_in_workspace = Rate { burst: 4, per_minute: 1 };
    })
    .await;
    let (tenant, other) = (server.tenant("acme").await, server.tenant("other").await);
    let guess = server.bearing(unknown_key());
    let at = async |actor: &Actor, tenant: &Tenant, address: &str| {
        actor.with(&from(address)).get(&tenant.workspace("")).await
    };
    for number in 0..4 {
        assert_eq!(at(&guess, &tenant, &format!("192.0.2.{number}")).await.status, 401);
    }
    at(&guess, &tenant, "192.0.2.9").await.refused_as(429, "rate_limited");
    at(&guess, &other, "192.0.2.9").await.refused_as(401, "unauthorized");
    at(&tenant.owner, &tenant, "192.0.2.1").await.ok();
});

both!(failing_claims_do_not_use_up_the_rate_of_a_valid_claim, async || {
    let server = Server::with(rates).await;
    let made = server.anonymous().create_workspace("acme").await;
    let anonymous = server.anonymous().with(&from("192.0.2.1"));
    let claim = async |id: &str, key: &str| {
        anonymous.post_once(&format!("/v1/{id}/api-keys"), key, json!({ "duration_days": 1 })).await
    };
    for status in [401, 401, 429, 429] {
        assert_eq!(claim(uuid(), "a-claim-that-cannot-succeed").await.status, status);
    }
    let (limited, cost) = server.costs(claim(uuid(), "a-claim-that-cannot-succeed")).await;
    assert_eq!((limited.refused(429).as_str(), cost.writes), ("rate_limited", 0));
    let id = made.text("id");
    let first = claim(id, "a-claim-of-its-own-workspace").await;
    assert_eq!(first.header("x-ratelimit-remaining"), "0");
    let again = claim(id, "a-claim-of-its-own-workspace").await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(first.created(), again.created());
    claim(id, "another-claim-of-the-workspace").await.refused_as(429, "rate_limited");
});

both!(the_bootstrap_token_works_beside_any_number_of_wrong_ones, async || {
    let server = Server::with(|config| {
        rates(config);
        config.bootstrap = Bootstrap::Token("the-token-of-the-operator".to_owned().into());
    })
    .await;
    let create = async |actor: Actor| {
        actor.with(&from("192.0.2.1")).post("/v1/workspaces", new_workspace(&fresh_slug())).await
    };
    for status in [401, 401, 401, 429, 429] {
        assert_eq!(create(server.bearing("a-guess-at-the-token-of-it")).await.status, status);
    }
    for left in ["3", "2", "1", "0"] {
        let made = create(server.bearing("the-token-of-the-operator")).await;
        assert_eq!(
            made.header("x-ratelimit-remaining"),
            left,
            "wrong tokens do not use up the right one's rate"
        );
        made.created();
    }
    create(server.bearing("the-token-of-the-operator")).await.refused_as(429, "rate_limited");
});

both!(unclaimed_workspaces_have_a_share_for_each_address, threads = 4, async || {
    let server = Server::with(|config| {
        rates(config);
        config.rates.bootstrap = Rate { burst: 1_000, per_minute: 1_000 };
        config.unclaimed_per_address = 5;
    })
    .await;
    let replica = server.replica().await;
    let create = |server: &Server, address: &'static str| {
        let anonymous = server.anonymous().with(&from(address));
        async move { anonymous.post("/v1/workspaces", new_workspace(&fresh_slug())).await }
    };
    // Of many concurrent requests at two replicas, exactly the share succeeds.
    let (one, other) = ("2001:db8:1:1::1", "2001:db8:1:1::2");
    let answers = together((0..20).map(|index| match index % 2 {
        0 => create(&server, one),
        _ => create(&replica, other),
    }));
    let mut made = Vec::new();
    for answer in answers.await {
        if answer.status == StatusCode::CREATED {
            made.push(answer.created().text("id").to_owned());
        } else {
            assert_eq!(answer.header("retry-after"), "60");
            answer.refused_as(429, "too_many_unclaimed");
        }
    }
    assert_eq!(made.len(), 5);
    create(&server, "2001:db8:1:2::1").await.created();
    create(&server, "192.0.2.1").await.created();
    // A claim frees one place, and their expiry frees all of them.
    let body = json!({ "duration_days": 1 });
    server.anonymous().post(&format!("/v1/{}/api-keys", made[0]), body).await.created();
    create(&replica, one).await.created();
    create(&server, one).await.refused_as(429, "too_many_unclaimed");
    server.clock.advance(Duration::from_hours(25));
    create(&server, other).await.created();
    server.app.sweep().await;
    assert_eq!(server.count("SELECT count(*) FROM unclaimed_by_address").await, 1);
    assert_eq!(server.count("SELECT used FROM unclaimed_by_address").await, 1);
});

both!(pending_and_aborted_requests_with_valid_keys_do_not_count_as_failures, async || {
    let server = Server::with(rates).await;
    let tenant = server.tenant("acme").await;
    let (release, blocking) = hold_the_writer(&server).await;
    let waiting = (0..8).map(|number| {
        let (owner, path) = (tenant.owner.clone(), tenant.workspace(""));
        tokio::spawn(async move { owner.patch(&path, json!({ "name": format!("New {number}") })).await })
    });
    let mut waiting: Vec<_> = waiting.collect();
    // More requests than the address may fail are waiting for the writer now.
    for _ in 0..8 {
        tenant.owner.get("/v1/workspaces").await.ok();
    }
    for given_up in waiting.drain(..4) {
        given_up.abort();
    }
    release.send(()).unwrap();
    blocking.await.unwrap().unwrap();
    for answer in waiting {
        answer.await.unwrap().ok();
    }
    assert_eq!(server.bearing("wrong").get("/v1/workspaces").await.header("x-ratelimit-remaining"), "2");
});

both!(bootstrap_and_claims_have_rates_of_their_own, async || {
    let server = Server::with(rates).await;
    let anonymous = server.anonymous().with(&from("192.0.2.1"));
    let create = async || anonymous.post("/v1/workspaces", new_workspace(&fresh_slug())).await;
    for left in ["3", "2", "1", "0"] {
        let made = create().await;
        assert_eq!(made.header("x-ratelimit-remaining"), left);
        made.created();
    }
    create().await.refused_as(429, "rate_limited");

    let path = format!("/v1/{}/api-keys", uuid());
    let claim = async || anonymous.post(&path, json!({ "duration_days": 1 })).await;
    for _ in 0..2 {
        claim().await.refused_as(401, "unauthorized");
    }
    claim().await.refused_as(429, "rate_limited");
});

fn uuid() -> &'static str {
    "00000000-0000-4000-8000-000000000000"
}

both!(a_harmless_request_id_is_taken_over, async || {
    let server = Server::start().await;
    let twice = [("x-request-id", "one"), ("x-request-id", "two")];
    let answer = server.anonymous().with(&twice).get("/healthz").await;
    assert!(!["one", "two"].contains(&answer.header("x-request-id")));
    for (sent, taken) in
        [("abc-DEF_1.2", true), (&*"x".repeat(129), false), ("a b", false), ("<script>", false)]
    {
        let answer = server.anonymous().with(&[("x-request-id", sent)]).get("/healthz").await;
        assert_eq!(answer.header("x-request-id") == sent, taken, "{sent}");
    }
});

both!(a_valid_key_waits_behind_no_others_failures, async || {
    let server = Server::with(|config| {
        rates(config);
        config.rates.failed_in_workspace = Rate { burst: 4, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    let (fresh, made) = tenant.key(json!({ "duration_days": 1 })).await;
    let guess = server.bearing(unknown_key());
    let get = |actor: &Actor, address: &str| {
        let (actor, path) = (actor.with(&from(address)), tenant.workspace(""));
        async move { actor.get(&path).await }
    };
    for number in 0..4 {
        assert_eq!(get(&guess, &format!("192.0.2.{number}")).await.status, 401);
    }
    // The look-ups of one failing address are under way, and others of it wait.
    let id = ward::ids::WorkspaceId::of_path(&tenant.id);
    let rates = server.app.rates.as_ref().unwrap();
    let failing = "192.0.2.9".parse().unwrap();
    let under_way = [
        rates.look_up_share(failing, Some(id)).await.unwrap().expect("the workspace has no failures left"),
        rates.look_up_share(failing, Some(id)).await.unwrap().expect("the workspace has no failures left"),
    ];
    let waiting: Vec<_> = (0..40).map(|_| tokio::spawn(get(&guess, "192.0.2.9"))).collect();
    // This server sees the key for the first time.
    get(&fresh, "192.0.2.200").await.ok();
    // A key that was valid lately waits not even behind its own address.
    get(&fresh, "192.0.2.9").await.ok();
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    // Once refused, it is looked up like any other.
    tenant.delete(&format!("/api-keys/{}", made["key_id"].as_str().unwrap())).await;
    assert_eq!(get(&fresh, "192.0.2.200").await.status, 429);
    let again = tokio::spawn(get(&fresh, "192.0.2.9"));
    drop(under_way);
    for answer in waiting.into_iter().chain([again]) {
        assert_eq!(answer.await.unwrap().status, 429);
    }
});
