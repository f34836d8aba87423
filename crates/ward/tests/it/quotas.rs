//! Quotas: the limits of one workspace, counted exactly, and their changes by the operator.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::operator;
use ward::quotas::Quota;
use ward_test::{Actor, Engine, Server, Tenant, both, new_integration, new_workspace};

use super::members::Shared;

/// Sets a limit as the operator does.
async fn limit(server: &Server, slug: &str, quota: Quota, limit: Option<i64>) {
    operator::workspace_limits(&server.app, slug, vec![(quota, limit)]).await.unwrap();
}

/// A workspace's use and limit of a quota, as its usage reports them.
async fn usage(by: &Actor, workspace: &str, quota: &str) -> (Value, Value) {
    let shown = by.get(&format!("/v1/{workspace}/usage")).await.expect(StatusCode::OK);
    let line = shown["quotas"].as_array().unwrap().iter().find(|line| line["name"] == quota).unwrap();
    (line["used"].clone(), line["limit"].clone())
}

async fn used(tenant: &Tenant, quota: &str) -> i64 {
    usage(&tenant.owner, &tenant.id, quota).await.0.as_i64().unwrap()
}

fn mint() -> Value {
    json!({ "duration_days": 1, "role": "viewer" })
}

both!(each_count_is_exact_and_one_more_than_the_limit_is_refused_by_its_name);
async fn each_count_is_exact_and_one_more_than_the_limit_is_refused_by_its_name() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let (keys, invitations) = (tenant.path("/api-keys"), tenant.workspace("/invitations"));
    let integrations = tenant.path("/integrations");
    for (quota, path, body) in [
        (Quota::Keys, &keys, mint()),
        (Quota::Members, &keys, mint()),
        (Quota::OpenInvitations, &invitations, json!({ "role": "viewer" })),
        (Quota::Integrations, &integrations, Value::Null),
    ] {
        let name = quota.name();
        let body = |number: u8| match &body {
            Value::Null => new_integration(&format!("one-{number}")),
            other => other.clone(),
        };
        let before = used(&tenant, name).await;
        limit(&server, "acme", quota, Some(before + 1)).await;
        tenant.owner.post(path, body(1)).await.expect(StatusCode::CREATED);
        let refused = tenant.owner.post(path, body(2)).await;
        assert_eq!(refused.status, StatusCode::CONFLICT);
        let refused = refused.expect(StatusCode::CONFLICT);
        assert_eq!((&refused["error_code"], &refused["quota"]), (&json!("quota_exceeded"), &json!(name)));
        assert!(refused["detail"].as_str().unwrap().contains(name), "{refused}");
        assert_eq!(usage(&tenant.owner, &tenant.id, name).await, (json!(before + 1), json!(before + 1)));
        limit(&server, "acme", quota, None).await;
        tenant.owner.post(path, body(3)).await.expect(StatusCode::CREATED);
        assert_eq!(usage(&tenant.owner, &tenant.id, name).await, (json!(before + 2), json!(quota.usual())));
    }
    // The audit log has the operator's changes.
    let told = tenant.owner.get(&tenant.path("/audit?action=workspace.limits")).await.expect(StatusCode::OK);
    assert_eq!(told["total"], 8);
    assert_eq!(told["events"][0]["metadata"]["changes"]["integrations"]["to"], Value::Null);
    assert_eq!(told["events"][0]["metadata"]["operator"], true);
}

both!(ended_objects_do_not_count);
async fn ended_objects_do_not_count() {
    let (shared, ada) = Shared::new().await;
    let count = async |quota: &str| usage(&ada, &shared.id, quota).await.0;
    assert_eq!(count("members").await, 1);
    let (bea, bea_id) = shared.member(&ada, "bea", "admin").await;
    let keys = format!("/v1/{}/api-keys", shared.id);
    let own = json!({ "duration_days": 1, "role": "viewer", "speaks_for": "self" });
    for _ in 0..15 {
        bea.post(&keys, own.clone()).await.expect(StatusCode::CREATED);
        bea.post(&shared.path("/invitations"), json!({ "role": "viewer" })).await.expect(StatusCode::CREATED);
    }
    let service = bea.post(&keys, mint()).await.expect(StatusCode::CREATED);
    let counts = async || (count("keys").await, count("members").await, count("open_invitations").await);
    assert_eq!(counts().await, (json!(16), json!(3), json!(15)));
    let path = format!("{keys}/{}", service["key_id"].as_str().unwrap());
    assert_eq!(ada.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(shared.remove(&ada, &bea_id).await.status, StatusCode::NO_CONTENT);
    shared.server.app.sweep().await;
    assert_eq!(counts().await, (json!(0), json!(1), json!(0)));
    let link = ada.post(&shared.path("/invitations"), json!({ "role": "viewer", "duration_days": 1 })).await;
    link.expect(StatusCode::CREATED);
    assert_eq!(count("open_invitations").await, 1);
    shared.server.clock.advance(Duration::from_hours(25));
    shared.server.app.sweep().await;
    let ada = shared.server.person(&shared.issuer, "ada");
    assert_eq!(usage(&ada, &shared.id, "open_invitations").await.0, 0);
}

both!(of_many_that_come_at_once_no_more_pass_than_the_limit_says, threads = 4);
async fn of_many_that_come_at_once_no_more_pass_than_the_limit_says() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    limit(&server, "acme", Quota::Keys, Some(4)).await;
    let tries = (0..12).map(|_| {
        let (owner, path) = (tenant.owner.clone(), tenant.path("/api-keys"));
        tokio::spawn(async move { owner.post(&path, mint()).await.status.as_u16() })
    });
    let tries: Vec<_> = tries.collect();
    let mut statuses = Vec::new();
    for one in tries {
        statuses.push(one.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[201; 3].as_slice(), &[409; 9]].concat());
    assert_eq!(used(&tenant, "keys").await, 4);
}

both!(answers_kept_for_repeats_count_as_stored_until_they_go);
async fn answers_kept_for_repeats_count_as_stored_until_they_go() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let path = tenant.path("/api-keys");
    let stored = async || used(&tenant, "stored_bytes").await;
    let before = stored().await;
    tenant.owner.post(&path, mint()).await.expect(StatusCode::CREATED);
    let without_repeat = stored().await - before;
    let before = stored().await;
    tenant.owner.post_once(&path, "sixteen-or-more-characters", mint()).await.expect(StatusCode::CREATED);
    let kept = stored().await;
    assert!(kept > before + without_repeat + 500, "{before} {kept}");
    tenant.owner.post_once(&path, "sixteen-or-more-characters", mint()).await.expect(StatusCode::CREATED);
    assert_eq!(stored().await, kept);
    limit(&server, "acme", Quota::StoredBytes, Some(kept)).await;
    let full = stored().await;
    let refused = tenant.owner.post_once(&path, "another-one-of-sixteen", mint()).await;
    assert_eq!(refused.refused(409), "quota_exceeded");
    assert_eq!((used(&tenant, "keys").await, stored().await), (3, full), "what is refused is not done");
    // The secret goes after ten minutes, and that it was given after a day.
    server.clock.advance(Duration::from_mins(11));
    server.app.sweep().await;
    let hidden = stored().await;
    assert!(hidden < full - 200, "{full} {hidden}");
    server.clock.advance(Duration::from_hours(24));
    server.app.sweep().await;
    assert_eq!(stored().await, hidden - 256);
    limit(&server, "acme", Quota::StoredBytes, None).await;
    tenant.owner.post_once(&path, "another-one-of-sixteen", mint()).await.expect(StatusCode::CREATED);
}

/// How long a value is as the shortest JSON.
fn length(value: &Value) -> i64 {
    i64::try_from(value.to_string().len()).unwrap()
}

fn text(value: &Value) -> i64 {
    i64::try_from(value.as_str().map_or(0, str::len)).unwrap()
}

both!(stored_bytes_are_what_the_acts_of_a_workspace_have_left);
async fn stored_bytes_are_what_the_acts_of_a_workspace_have_left() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let owner = &tenant.owner;
    let named = json!({ "duration_days": 1, "role": "viewer", "name": "A key with a name of its own" });
    owner.post_once(&tenant.path("/api-keys"), "sixteen-or-more-characters", named.clone()).await;
    let minted = owner.post(&tenant.path("/api-keys"), named).await.expect(StatusCode::CREATED);
    owner
        .post(
            &tenant.path(&format!("/api-keys/{}/rotate", minted["key_id"].as_str().unwrap())),
            json!({
                "duration_days": 2,
            }),
        )
        .await
        .expect(StatusCode::OK);
    for name in ["n".repeat(200), "short".to_owned(), "n".repeat(256)] {
        owner.patch(&tenant.workspace(""), json!({ "name": name })).await.expect(StatusCode::OK);
    }
    for numbers in [json!(["+15550100001", "+15550100002"]), json!([]), json!(["+15550100003"])] {
        let path = tenant.workspace("/test-caller-numbers");
        owner.put(&path, json!({ "numbers": numbers })).await.expect(StatusCode::OK);
    }
    let connector = json!({ "connector_type": "epic" });
    owner.patch(&tenant.workspace(""), connector).await.expect(StatusCode::OK);
    owner.post(&tenant.workspace("/provision"), json!({})).await.expect(StatusCode::OK);
    let kept = tenant.integration().await;
    let longer = json!({ "display_name": "A name that is longer by far than the one it had before this" });
    owner.put(&tenant.path(&format!("/integrations/{kept}")), longer).await.expect(StatusCode::OK);
    let other = owner.post(&tenant.path("/integrations"), new_integration("other")).await;
    let other = other.expect(StatusCode::CREATED)["id"].as_str().unwrap().to_owned();
    owner.delete(&tenant.path(&format!("/integrations/{other}"))).await;
    let call = tenant.path("/calls/CA1");
    for status in ["in-progress", "completed"] {
        let report = json!({
            "direction": "inbound", "caller_id": "+15550100", "status": status, "summary": status.repeat(20),
        });
        owner.put(&call, report).await.expect(StatusCode::OK);
    }
    owner.get(&call).await.expect(StatusCode::OK);
    owner.get(&tenant.path("/calls")).await.expect(StatusCode::OK);
    let narrow = tenant.service("viewer").await;
    for _ in 0..3 {
        narrow.patch(&tenant.workspace(""), json!({ "name": "x" })).await.refused(403);
    }
    server.app.flush().await;
    server.app.sweep().await;

    let listed = owner.get(&tenant.path("/audit?limit=100")).await.expect(StatusCode::OK);
    let events = listed["events"].as_array().unwrap();
    assert_eq!(json!(events.len()), listed["total"]);
    let mut bytes: i64 = events
        .iter()
        .map(|it| 512 + length(&it["metadata"]) + text(&it["resource_name"]) + text(&it["user_agent"]))
        .sum();
    assert!(events.iter().any(|it| it["action"] == "access.forbidden"));
    let details = match Engine::current() {
        Engine::Sqlite => "sum(length(details))".to_owned(),
        // As it is counted, and not as PostgreSQL writes it.
        Engine::Postgres => {
            "sum(length(details::text) - 2 * (SELECT count(*) FROM jsonb_object_keys(details)) + 1)"
                .to_owned()
        }
    };
    for query in [
        "SELECT length(name) FROM workspaces".to_owned(),
        "SELECT CAST(sum(length(COALESCE(name, ''))) AS bigint) FROM api_keys".to_owned(),
        "SELECT CAST(sum(bytes) AS bigint) FROM integrations".to_owned(),
        "SELECT CAST(sum(bytes) AS bigint) FROM idempotency".to_owned(),
        format!("SELECT CAST({details} AS bigint) FROM calls"),
    ] {
        bytes += server.count(query).await;
    }
    // Two versions of the list had numbers: two of twelve characters, and one.
    bytes += 3 * 12;
    assert_eq!(used(&tenant, "stored_bytes").await, bytes);
}

both!(a_full_workspace_is_read_and_ended_and_takes_nothing_new);
async fn a_full_workspace_is_read_and_ended_and_takes_nothing_new() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let owner = &tenant.owner;
    let (keys, call) = (tenant.path("/api-keys"), tenant.path("/calls/CA1"));
    let report = |status: &str| json!({ "direction": "inbound", "caller_id": "+15550100", "status": status });
    owner.put(&call, report("in-progress")).await.expect(StatusCode::OK);
    let minted = owner.post(&keys, mint()).await.expect(StatusCode::CREATED);
    let key = format!("{keys}/{}", minted["key_id"].as_str().unwrap());
    // So much is stored that an eighth of it has room for some events.
    let endpoint =
        |index| json!({ "name": format!("e{index}"), "description": "d".repeat(4000), "path": "/" });
    let endpoints: Vec<Value> = (0..8).map(endpoint).collect();
    let body = json!({ "name": "long", "display_name": "Long", "endpoints": endpoints });
    let integration = owner.post(&tenant.path("/integrations"), body).await.expect(StatusCode::CREATED);
    let integration = integration["id"].as_str().unwrap();
    let full = used(&tenant, "stored_bytes").await;
    limit(&server, "acme", Quota::StoredBytes, Some(full)).await;

    let quota = |refused: Value| assert_eq!(refused["quota"], "stored_bytes", "{refused}");
    let rename = json!({ "name": "Another name" });
    let numbers = json!({ "numbers": ["+15550100001"] });
    quota(owner.patch(&tenant.workspace(""), rename.clone()).await.expect(StatusCode::CONFLICT));
    quota(owner.put(&tenant.workspace("/test-caller-numbers"), numbers).await.expect(StatusCode::CONFLICT));
    quota(owner.post(&keys, mint()).await.expect(StatusCode::CONFLICT));
    let invitations = tenant.workspace("/invitations");
    quota(owner.post(&invitations, json!({ "role": "viewer" })).await.expect(StatusCode::CONFLICT));
    quota(owner.put(&tenant.path("/calls/CA2"), report("ringing")).await.expect(StatusCode::CONFLICT));
    assert_eq!(owner.get(&tenant.workspace("")).await.expect(StatusCode::OK)["name"], "The acme clinic");
    // Acts that protect or read go on until the reserve is used up.
    owner.get(&call).await.expect(StatusCode::OK);
    owner.post(&format!("{key}/rotate"), json!({ "duration_days": 2 })).await.expect(StatusCode::OK);
    let mut reads = 0;
    while owner.get(&call).await.status == StatusCode::OK {
        reads += 1;
        assert!(reads < 100, "the reserve has an end");
    }
    quota(owner.get(&call).await.expect(StatusCode::CONFLICT));
    quota(owner.get(&tenant.path("/calls")).await.expect(StatusCode::CONFLICT));
    // The end of a call is taken. The answer leaves its people out, because the reading could not be recorded.
    let ended = owner.put(&call, report("completed")).await.expect(StatusCode::OK);
    assert_eq!((&ended["status"], &ended["caller_id"]), (&json!("completed"), &Value::Null));
    // Acts that end something go on.
    assert_eq!(owner.delete(&key).await.status, StatusCode::NO_CONTENT);
    let path = tenant.path(&format!("/integrations/{integration}"));
    assert_eq!(owner.delete(&path).await.status, StatusCode::NO_CONTENT);
    owner.get(&tenant.path("/audit")).await.expect(StatusCode::OK);
    limit(&server, "acme", Quota::StoredBytes, None).await;
    owner.patch(&tenant.workspace(""), rename).await.expect(StatusCode::OK);
    let shown = owner.put(&call, report("completed")).await.expect(StatusCode::OK);
    assert_eq!(shown["caller_id"], "+15550100");
    limit(&server, "acme", Quota::StoredBytes, Some(1)).await;
    owner.post(&tenant.workspace("/archive"), json!({ "slug": "acme" })).await.expect(StatusCode::OK);
}

both!(integrations_count_with_their_configuration_and_give_it_back);
async fn integrations_count_with_their_configuration_and_give_it_back() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let before = used(&tenant, "stored_bytes").await;
    let endpoint = json!({ "name": "e", "description": "d".repeat(4000), "path": "/" });
    let body = json!({ "name": "long", "display_name": "Long", "endpoints": [endpoint] });
    let made = tenant.owner.post(&tenant.path("/integrations"), body).await.expect(StatusCode::CREATED);
    let with = used(&tenant, "stored_bytes").await;
    assert!(with > before + 4000, "{before} {with}");
    let path = tenant.path(&format!("/integrations/{}", made["id"].as_str().unwrap()));
    assert_eq!(tenant.owner.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert!(used(&tenant, "stored_bytes").await < with - 3000);
    assert_eq!(used(&tenant, "integrations").await, 0);
}

both!(a_day_has_as_many_calls_as_the_quota_says_and_known_calls_go_on);
async fn a_day_has_as_many_calls_as_the_quota_says_and_known_calls_go_on() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    limit(&server, "acme", Quota::CallsPerDay, Some(2)).await;
    let report = |status: &str| json!({ "direction": "inbound", "caller_id": "+15550100", "status": status });
    let path = |sid: &str| tenant.path(&format!("/calls/{sid}"));
    for sid in ["CA1", "CA2"] {
        tenant.owner.put(&path(sid), report("in-progress")).await.expect(StatusCode::OK);
    }
    let refused = tenant.owner.put(&path("CA3"), report("in-progress")).await;
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 86_400);
    let refused = refused.expect(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused["quota"], "calls_per_day");
    tenant.owner.put(&path("CA1"), report("completed")).await.expect(StatusCode::OK);
    assert_eq!(used(&tenant, "calls_per_day").await, 2);
    server.clock.advance(Duration::from_hours(24));
    assert_eq!(used(&tenant, "calls_per_day").await, 0);
    tenant.owner.put(&path("CA3"), report("in-progress")).await.expect(StatusCode::OK);
}

both!(requests_of_one_workspace_are_limited_and_those_of_others_are_not);
async fn requests_of_one_workspace_are_limited_and_those_of_others_are_not() {
    let server = Server::start().await;
    let (busy, quiet) = (server.tenant("busy").await, server.tenant("quiet").await);
    limit(&server, "busy", Quota::RequestsPerSecond, Some(1)).await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = busy.owner.get(&busy.workspace("")).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(answer.headers["retry-after"], "1");
            assert_eq!(
                (answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")),
                ("1", "0")
            );
            let reset: i64 = answer.header("x-ratelimit-reset").parse().unwrap();
            let now = server.clock.now().micros() / 1_000_000;
            assert!((now..=now + 2).contains(&reset), "{reset} {now}");
            assert_eq!(answer.expect(StatusCode::TOO_MANY_REQUESTS)["quota"], "requests_per_second");
            refused += 1;
        }
        quiet.owner.get(&quiet.workspace("")).await.expect(StatusCode::OK);
    }
    assert!(refused > 0);
    limit(&server, "busy", Quota::RequestsPerSecond, None).await;
}

// The last way in

both!(the_last_way_into_a_workspace_cannot_be_deleted);
async fn the_last_way_into_a_workspace_cannot_be_deleted() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let key = |of: &Value| tenant.path(&format!("/api-keys/{}", of["key_id"].as_str().unwrap()));
    let claimed = key(&tenant.claimed);
    assert_eq!(tenant.owner.delete(&claimed).await.refused(409), "last_way_in");
    // Keys with fewer permissions than an owner, and services' keys, are not a way in for an owner.
    let narrow = json!({ "duration_days": 1, "role": "admin", "speaks_for": "self" });
    tenant.key(narrow).await;
    tenant.key(json!({ "duration_days": 1, "role": "owner" })).await;
    assert_eq!(tenant.owner.delete(&claimed).await.refused(409), "last_way_in");
    tenant.owner.get(&tenant.workspace("")).await.expect(StatusCode::OK);
    let (second, minted) =
        tenant.key(json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" })).await;
    assert_eq!(second.delete(&claimed).await.status, StatusCode::NO_CONTENT);
    assert_eq!(second.delete(&key(&minted)).await.refused(409), "last_way_in");
    let (third, _) = {
        let body = json!({ "duration_days": 90, "role": "owner", "speaks_for": "self" });
        let made = second.post(&tenant.path("/api-keys"), body).await.expect(StatusCode::CREATED);
        (server.bearing(made["api_key"].as_str().unwrap()), made)
    };
    assert_eq!(second.delete(&key(&minted)).await.status, StatusCode::NO_CONTENT);
    third.get(&tenant.workspace("")).await.expect(StatusCode::OK);
}

both!(a_user_cannot_end_the_last_way_into_another_workspace_of_theirs);
async fn a_user_cannot_end_the_last_way_into_another_workspace_of_theirs() {
    let (shared, ada) = Shared::new().await;
    let tenant = shared.server.tenant("home").await;
    let other =
        tenant.owner.post("/v1/me/workspaces", new_workspace("other")).await.expect(StatusCode::CREATED);
    let other = other["id"].as_str().unwrap().to_owned();
    // Another owner of the home, so that the home itself has a way in without the user.
    let link = tenant.owner.post(&tenant.workspace("/invitations"), json!({ "role": "owner" })).await;
    let accept = json!({ "invitation": link.expect(StatusCode::CREATED)["invitation"] });
    ada.post("/v1/invitations/accept", accept).await.expect(StatusCode::CREATED);
    let key = tenant.path(&format!("/api-keys/{}", tenant.owner_key_id()));
    assert_eq!(tenant.owner.delete(&key).await.refused(409), "last_way_in");
    tenant.owner.get(&format!("/v1/workspaces/{other}")).await.expect(StatusCode::OK);
    // With a key of the other workspace's own, or with another owner there, it goes.
    let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
    let second = tenant.owner.post(&format!("/v1/{other}/api-keys"), body).await.expect(StatusCode::CREATED);
    assert_eq!(tenant.owner.delete(&key).await.status, StatusCode::NO_CONTENT);
    let second = shared.server.bearing(second["api_key"].as_str().unwrap());
    second.get(&format!("/v1/workspaces/{other}")).await.expect(StatusCode::OK);
    // An owner of the home can end the key, although it opens another workspace.
    let third = shared.server.tenant("third").await;
    third.owner.post("/v1/me/workspaces", new_workspace("fourth")).await.expect(StatusCode::CREATED);
    let link = third.owner.post(&third.workspace("/invitations"), json!({ "role": "owner" })).await;
    let accept = json!({ "invitation": link.expect(StatusCode::CREATED)["invitation"] });
    ada.post("/v1/invitations/accept", accept).await.expect(StatusCode::CREATED);
    let key = third.path(&format!("/api-keys/{}", third.owner_key_id()));
    assert_eq!(ada.delete(&key).await.status, StatusCode::NO_CONTENT);
}

both!(of_two_last_ways_in_that_are_deleted_at_once_one_stays, threads = 4);
async fn of_two_last_ways_in_that_are_deleted_at_once_one_stays() {
    let server = Server::start().await;
    for round in 0..10 {
        let tenant = server.tenant(&format!("acme-{round}")).await;
        let body = json!({ "duration_days": 1, "role": "owner", "speaks_for": "self" });
        let (second, minted) = tenant.key(body).await;
        let path = |of: &Value| tenant.path(&format!("/api-keys/{}", of["key_id"].as_str().unwrap()));
        let (one, other) = (path(&tenant.claimed), path(&minted));
        let (one, other) = tokio::join!(tenant.owner.delete(&one), second.delete(&other));
        let mut outcome = [one.status.as_u16(), other.status.as_u16()];
        outcome.sort_unstable();
        assert_eq!(outcome, [204, 409]);
    }
}
