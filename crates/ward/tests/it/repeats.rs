//! A POST retried with its `Idempotency-Key`.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use ward_test::{Actor, Answer, Fields as _, Sending, Server, both, new_workspace};

use crate::support::together;

/// Long enough for a caller with a Ward key, too short for one without.
const SHORT: &str = "sixteen-or-more.";
/// A key that is long enough for every caller.
const LONG: &str = "twenty-two-or-more-characters";

#[track_caller]
fn replayed(answer: Answer, status: StatusCode) -> Value {
    assert_eq!(answer.header("idempotency-replayed"), "true", "{}", answer.text);
    answer.expect(status)
}

#[track_caller]
fn first(answer: Answer, status: StatusCode) -> Value {
    assert_eq!(answer.header("idempotency-replayed"), "", "{}", answer.text);
    answer.expect(status)
}

both!(a_repeated_mint_gives_the_same_secret_for_ten_minutes_and_then_no_more, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/api-keys");
    let body = json!({ "duration_days": 1, "name": "once" });
    let minted = first(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::CREATED);
    assert_eq!(
        replayed(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::CREATED),
        minted
    );
    server.clock.advance(Duration::from_mins(9));
    assert_eq!(
        replayed(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::CREATED),
        minted
    );
    let other = json!({ "duration_days": 1, "name": "twice" });
    tenant.owner.post_once(&path, SHORT, other.clone()).await.refused_as(422, "idempotency_key_reused");
    server.clock.advance(Duration::from_mins(1));
    for _ in 0..2 {
        tenant.owner.post_once(&path, SHORT, body.clone()).await.refused_as(409, "secret_no_longer_shown");
        tenant.owner.post_once(&path, SHORT, other.clone()).await.refused_as(422, "idempotency_key_reused");
        // The result is the same before and after the secret is deleted.
        server.app.sweep().await;
    }
    let keys = tenant.owner.get(&path).await.ok();
    assert_eq!(keys["total"], 2);
    assert_eq!(tenant.actions().await, ["workspace.create", "workspace.claim", "api_key.create"]);
});

both!(an_answer_is_remembered_for_a_day, async || {
    let (server, tenant) = Server::with_tenant().await;
    let body = new_workspace("own");
    let created =
        first(tenant.owner.post_once("/v1/me/workspaces", SHORT, body.clone()).await, StatusCode::CREATED);
    server.clock.advance(Duration::from_hours(24) - Duration::from_mins(1));
    server.app.sweep().await;
    let again = tenant.owner.post_once("/v1/me/workspaces", SHORT, body.clone()).await;
    assert_eq!(replayed(again, StatusCode::CREATED), created);
    server.clock.advance(Duration::from_mins(1));
    tenant.owner.post_once("/v1/me/workspaces", SHORT, body.clone()).await.refused_as(409, "slug_taken");
    server.app.sweep().await;
    assert_eq!(server.count("SELECT count(*) FROM idempotency").await, 0);
});

both!(a_key_that_could_be_guessed_or_is_no_text_is_refused, async || {
    let (server, tenant) = Server::with_tenant().await;
    let unclaimed = server.anonymous().create_workspace("unclaimed").await;
    let claim_path = format!("/v1/{}/api-keys", unclaimed.text("id"));
    let days = json!({ "duration_days": 1 });
    let longest = "k".repeat(255);
    let too_long = "k".repeat(256);
    for bad in ["", "fifteen-letters", &too_long, "sixteen or more.", "sixteen-or-more-\u{e9}"] {
        let answer = tenant.post_once("/api-keys", bad, days.clone()).await;
        assert_eq!(answer.refused(400), "idempotency_key_invalid", "{bad}");
    }
    for bad in ["", SHORT, "twenty-one-characters", &too_long] {
        let answer = server.anonymous().post_once("/v1/workspaces", bad, new_workspace("fresh")).await;
        assert_eq!(answer.refused(400), "idempotency_key_invalid", "{bad}");
        let answer = server.anonymous().post_once(&claim_path, bad, days.clone()).await;
        assert_eq!(answer.refused(400), "idempotency_key_invalid", "{bad}");
    }
    first(tenant.post_once("/api-keys", &longest, days.clone()).await, StatusCode::CREATED);
    first(tenant.post_once("/api-keys", SHORT, days.clone()).await, StatusCode::CREATED);
    let twenty_two = "twenty-two-characters!";
    let created = server.anonymous().post_once("/v1/workspaces", twenty_two, new_workspace("fresh")).await;
    let created = first(created, StatusCode::CREATED);
    let again = server.anonymous().post_once("/v1/workspaces", twenty_two, new_workspace("fresh")).await;
    assert_eq!(replayed(again, StatusCode::CREATED), created);
    let claimed =
        first(server.anonymous().post_once(&claim_path, twenty_two, days.clone()).await, StatusCode::CREATED);
    let again = server.anonymous().post_once(&claim_path, twenty_two, days.clone()).await;
    assert_eq!(replayed(again, StatusCode::CREATED), claimed);
    server.anonymous().post_once(&claim_path, LONG, days).await.refused(401);
});

both!(a_repeat_is_one_callers_of_one_path, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/api-keys");
    let body = json!({ "duration_days": 1 });
    let minted = first(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::CREATED);
    let admin = tenant.service("admin").await;
    let theirs = first(admin.post_once(&path, SHORT, body.clone()).await, StatusCode::CREATED);
    assert_ne!(minted["key_id"], theirs["key_id"]);
    let other = tenant.owner.post("/v1/me/workspaces", new_workspace("other")).await.created();
    let elsewhere = format!("/v1/{}/api-keys", other.text("id"));
    first(tenant.owner.post_once(&elsewhere, SHORT, body).await, StatusCode::CREATED);
});

both!(a_repeat_is_the_same_whatever_the_spelling_of_an_id, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let mint = async |id: &str| {
        let body = json!({ "duration_days": 1, "role": "viewer" });
        tenant.owner.post_once(&format!("/v1/{id}/api-keys"), SHORT, body).await
    };
    let minted = first(mint(&tenant.id).await, StatusCode::CREATED);
    for id in [
        tenant.id.to_uppercase(),
        tenant.id.replace('-', ""),
        tenant.id.to_uppercase().replace('-', ""),
        tenant.id.replace('-', "%2d"),
    ] {
        assert_eq!(replayed(mint(&id).await, StatusCode::CREATED), minted, "{id}");
    }
    let integration = tenant.integration().await;
    let test = async |id: &str| {
        let path = tenant.path(&format!("/integrations/{id}/endpoints/find/test"));
        tenant.owner.post_once(&path, SHORT, json!({ "params": { "id": "1" } })).await
    };
    first(test(&integration).await, StatusCode::OK);
    replayed(test(&integration.to_uppercase()).await, StatusCode::OK);
    replayed(test(&integration.replace('-', "")).await, StatusCode::OK);
});

both!(only_a_caller_who_is_still_authorized_gets_the_answer_again, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path("/api-keys");
    let body = json!({ "duration_days": 1, "role": "viewer" });
    let (admin, key) = tenant.key(json!({ "duration_days": 1, "role": "admin" })).await;
    first(admin.post_once(&path, SHORT, body.clone()).await, StatusCode::CREATED);
    server.sql("UPDATE memberships SET role = 'member' WHERE role = 'admin'").await;
    admin.post_once(&path, SHORT, body.clone()).await.refused_as(403, "forbidden");
    tenant.delete(&format!("/api-keys/{}", key.text("key_id"))).await.no_content();
    admin.post_once(&path, SHORT, body.clone()).await.refused(401);
    let archive = json!({ "slug": "acme" });
    let archived = tenant.owner.post_once(&tenant.workspace("/archive"), SHORT, archive.clone()).await;
    first(archived, StatusCode::OK);
    tenant.owner.post_once(&tenant.workspace("/archive"), SHORT, archive).await.refused(401);
});

both!(an_error_is_not_remembered, async || {
    let (server, tenant) = Server::with_tenant().await;
    let own = "/v1/me/workspaces";
    let unclaimed = server.anonymous().create_workspace("wanted").await;
    for _ in 0..2 {
        tenant.owner.post_once(own, SHORT, new_workspace("wanted")).await.refused_as(409, "slug_taken");
    }
    server.clock.advance(Duration::from_hours(24));
    first(tenant.owner.post_once(own, SHORT, new_workspace("wanted")).await, StatusCode::CREATED);
    // The body of a failed request is not remembered either.
    let path = tenant.path("/api-keys");
    let admin = tenant.service("admin").await;
    let above = json!({ "duration_days": 1, "role": "owner" });
    admin.post_once(&path, SHORT, above).await.refused_as(403, "beyond_caller");
    first(admin.post_once(&path, SHORT, json!({ "duration_days": 1 })).await, StatusCode::CREATED);
    let claim = format!("/v1/{}/api-keys", unclaimed.text("id"));
    server.anonymous().post_once(&claim, LONG, json!({ "duration_days": 1 })).await.refused(401);
    assert_eq!(server.count("SELECT count(*) FROM idempotency").await, 2);
});

both!(provisioning_and_archiving_repeat_too, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let provision = async |actor: &Actor, body: &str| {
        let headers = [("idempotency-key", SHORT)];
        let sending =
            Sending { body: Some(body.as_bytes().to_vec()), headers: &headers, ..Sending::default() };
        actor.send(Method::POST, &tenant.workspace("/provision"), sending).await
    };
    let done = first(provision(&tenant.owner, "").await, StatusCode::OK);
    tenant.owner.patch(&tenant.workspace(""), json!({ "name": "Changed since" })).await.ok();
    assert_eq!(replayed(provision(&tenant.owner, "").await, StatusCode::OK), done);
    provision(&tenant.owner, "ignored").await.refused_as(422, "idempotency_key_reused");
    let other = tenant.owner.post("/v1/me/workspaces", new_workspace("other")).await.created();
    let path = format!("/v1/workspaces/{}/archive", other.text("id"));
    first(tenant.owner.post_once(&path, SHORT, json!({ "slug": "other" })).await, StatusCode::OK);
    // The workspace is gone, for retries as for every other request.
    tenant.owner.post_once(&path, SHORT, json!({ "slug": "other" })).await.refused(404);
});

// Rotations

both!(a_client_that_missed_its_rotation_asks_again_with_the_secret_that_it_ended, async || {
    let (server, tenant) = Server::with_tenant().await;
    let path = tenant.path(&format!("/api-keys/{}/rotate", tenant.owner_key_id()));
    let body = json!({ "duration_days": 30 });
    let rotated = first(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::OK);
    let new = server.bearing(rotated.text("api_key"));
    // The ended secret gives this one answer and nothing else.
    for _ in 0..2 {
        assert_eq!(
            replayed(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::OK),
            rotated
        );
    }
    assert_eq!(replayed(new.post_once(&path, SHORT, body.clone()).await, StatusCode::OK), rotated);
    tenant.owner.get("/v1/auth/me").await.refused(401);
    tenant.owner.post(&path, body.clone()).await.refused(401);
    tenant.owner.post_once(&path, LONG, body.clone()).await.refused(401);
    let changed = json!({ "duration_days": 31 });
    tenant.owner.post_once(&path, SHORT, changed).await.refused_as(422, "idempotency_key_reused");
    server
        .bearing(ward_test::wrong_secret_of(tenant.owner_key_id()))
        .post_once(&path, SHORT, body.clone())
        .await
        .refused(401);
    server.clock.advance(Duration::from_mins(10));
    tenant.owner.post_once(&path, SHORT, body.clone()).await.refused(401);
    new.post_once(&path, SHORT, body).await.refused_as(409, "secret_no_longer_shown");
    let told = new.get(&tenant.path("/audit?action=api_key.rotate")).await.ok();
    assert_eq!(told["total"], 1, "it was done once");
});

both!(an_ended_secret_repeats_nothing_once_its_key_is_revoked_or_its_workspace_archived, async || {
    for ending in ["revoked", "archived"] {
        let (_server, tenant) = Server::with_tenant().await;
        let (service, minted) = tenant.key(json!({ "duration_days": 30, "role": "admin" })).await;
        let key = tenant.path(&format!("/api-keys/{}", minted.text("key_id")));
        let path = format!("{key}/rotate");
        let body = json!({ "duration_days": 30 });
        first(service.post_once(&path, SHORT, body.clone()).await, StatusCode::OK);
        replayed(service.post_once(&path, SHORT, body.clone()).await, StatusCode::OK);
        if ending == "revoked" {
            tenant.owner.delete(&key).await.no_content();
        } else {
            tenant.archive().await;
        }
        service.post_once(&path, SHORT, body).await.refused(401);
    }
});

both!(who_rotates_anothers_key_leaves_its_holder_nothing_to_repeat, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 30, "role": "admin" })).await;
    let path = tenant.path(&format!("/api-keys/{}/rotate", minted.text("key_id")));
    let body = json!({ "duration_days": 30 });
    let rotated = first(tenant.owner.post_once(&path, SHORT, body.clone()).await, StatusCode::OK);
    service.post_once(&path, SHORT, body.clone()).await.refused(401);
    assert_eq!(replayed(tenant.owner.post_once(&path, SHORT, body).await, StatusCode::OK), rotated);
});

both!(the_same_request_many_times_at_once_is_done_once, threads = 4, async || {
    let (server, tenant) = Server::with_tenant().await;
    let unclaimed = server.anonymous().create_workspace("unclaimed").await;
    let claim = format!("/v1/{}/api-keys", unclaimed.text("id"));
    let rotate = tenant.path(&format!("/api-keys/{}/rotate", tenant.owner_key_id()));
    let days = json!({ "duration_days": 1 });
    for (actor, path, body) in [
        (server.anonymous(), "/v1/workspaces", new_workspace("bootstrapped")),
        (server.anonymous(), claim.as_str(), days.clone()),
        (tenant.owner.clone(), &tenant.path("/api-keys"), days.clone()),
        (tenant.owner.clone(), "/v1/me/workspaces", new_workspace("own")),
        // This comes last, because it ends the key that it uses; its retries are accepted nevertheless.
        (tenant.owner.clone(), rotate.as_str(), days.clone()),
    ] {
        let answers = together((0..20).map(|_| {
            let (actor, path, body) = (actor.clone(), path.to_owned(), body.clone());
            async move { actor.post_once(&path, LONG, body).await }
        }))
        .await;
        let firsts = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
        let bodies: std::collections::HashSet<String> = answers
            .into_iter()
            .map(|answer| {
                assert!(answer.status.is_success(), "{path}: {}", answer.text);
                answer.text
            })
            .collect();
        assert_eq!((firsts, bodies.len()), (1, 1), "{path}");
    }
});
