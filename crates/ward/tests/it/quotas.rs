//! Quotas: the limits of one workspace, counted exactly, and their changes by the operator.

use reqwest::StatusCode;
use serde_json::{Value, json};
use ward::operator;
use ward::quotas::Quota;
use ward_test::{Actor, Server, Tenant, both, new_integration};

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
    shared.server.clock.advance(std::time::Duration::from_hours(25));
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
    let before = used(&tenant, "stored_bytes").await;
    let path = tenant.path("/api-keys");
    tenant.owner.post_once(&path, "sixteen-or-more-characters", mint()).await.expect(StatusCode::CREATED);
    let kept = used(&tenant, "stored_bytes").await;
    assert!(kept > before + 200, "{before} {kept}");
    tenant.owner.post_once(&path, "sixteen-or-more-characters", mint()).await.expect(StatusCode::CREATED);
    assert_eq!(used(&tenant, "stored_bytes").await, kept);
    limit(&server, "acme", Quota::StoredBytes, Some(kept)).await;
    let refused = tenant.owner.post_once(&path, "another-one-of-sixteen", mint()).await;
    assert_eq!(refused.refused(409), "quota_exceeded");
    assert_eq!(used(&tenant, "keys").await, 2, "a refused request is not executed");
    server.clock.advance(std::time::Duration::from_mins(11));
    server.app.sweep().await;
    assert_eq!(used(&tenant, "stored_bytes").await, before);
    tenant.owner.post_once(&path, "another-one-of-sixteen", mint()).await.expect(StatusCode::CREATED);
}

both!(integrations_count_with_their_configuration_and_give_it_back);
async fn integrations_count_with_their_configuration_and_give_it_back() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let before = used(&tenant, "stored_bytes").await;
    let id = tenant.integration().await;
    let with = used(&tenant, "stored_bytes").await;
    let path = tenant.path(&format!("/integrations/{id}"));
    let longer = json!({ "display_name": "A name that is longer by far than the one it had before this" });
    tenant.owner.put(&path, longer).await.expect(StatusCode::OK);
    assert!(used(&tenant, "stored_bytes").await > with && with > before);
    assert_eq!(tenant.owner.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(used(&tenant, "stored_bytes").await, before);
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
    server.clock.advance(std::time::Duration::from_hours(24));
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
