//! Archived workspaces: their owners' list, restoration until a time, and legal holds.

use std::time::Duration;

use serde_json::{Value, json};
use ward_test::{Actor, Answer, Fields as _, Server, Tenant, both, fresh_slug, new_workspace};

use crate::support::pages;

const DAY: Duration = Duration::from_hours(24);
const LIST: &str = "/v1/me/archived-workspaces";

/// A second workspace of this owner, and its id.
async fn second(owner: &Actor, slug: &str) -> String {
    owner.post("/v1/me/workspaces", new_workspace(slug)).await.created().text("id").to_owned()
}

async fn archive(owner: &Actor, id: &str, slug: &str) {
    owner.post(&format!("/v1/workspaces/{id}/archive"), json!({ "slug": slug })).await.ok();
}

async fn restore(actor: &Actor, id: &str) -> Answer {
    actor.post(&format!("{LIST}/{id}/restore"), json!({})).await
}

/// Makes the holder of another tenant's key a member of this workspace.
async fn join(owner: &Actor, id: &str, role: &str, member: &Actor) {
    let invite = format!("/v1/workspaces/{id}/invitations");
    let link = owner.post(&invite, json!({ "role": role })).await.created();
    member.post("/v1/invitations/accept", json!({ "invitation": link["invitation"] })).await.created();
}

fn slugs(listed: &Value) -> Vec<&str> {
    listed.list("items").iter().map(|item| item["workspace"].text("slug")).collect()
}

both!(a_last_owner_finds_an_archived_workspace_and_restores_it, async || {
    let server = Server::with(|config| config.purge_after = 30 * DAY).await;
    let tenant = server.tenant("acme").await;
    let owner = &tenant.owner;
    let id = second(owner, "second").await;
    let mint = json!({ "duration_days": 30, "role": "viewer" });
    let minted = owner.post(&format!("/v1/{id}/api-keys"), mint).await.created();
    let service = server.bearing(minted.text("api_key"));
    let none = json!({ "items": [], "has_more": false, "continuation_token": null, "total": 0 });
    assert_eq!(owner.get(LIST).await.ok(), none);
    restore(owner, &id).await.refused_as(404, "archived_workspace_not_found");
    archive(owner, &id, "second").await;

    let listed = owner.get(LIST).await.ok();
    assert_eq!((slugs(&listed), &listed["total"]), (vec!["second"], &json!(1)));
    let [item] = listed.list("items").as_slice() else { panic!("one item: {listed}") };
    assert_eq!((item["workspace"].text("id"), &item["legal_hold"]), (id.as_str(), &json!(false)));
    let time = |field: &str| item.text(field).parse::<ward_db::Timestamp>().expect("a time");
    assert_eq!(time("archived_at").saturating_add(30 * DAY), time("purge_at"));
    service.get(&format!("/v1/workspaces/{id}")).await.refused(401);

    let replica = server.replica().await;
    let elsewhere = replica.bearing(owner.bearer.clone().expect("a key"));
    let restored = restore(&elsewhere, &id).await.ok();
    assert_eq!((restored.text("id"), restored.text("slug")), (id.as_str(), "second"));
    assert_eq!(owner.get(&format!("/v1/workspaces/{id}")).await.ok(), restored);
    service.get(&format!("/v1/workspaces/{id}")).await.ok();
    assert_eq!(owner.get(LIST).await.ok(), none);
    server.app.sweep().await;
    assert_eq!(owner.get("/v1/workspaces").await.ok()["total"], 2);
    restore(owner, &id).await.refused_as(404, "archived_workspace_not_found");
    let events = owner.get(&format!("/v1/{id}/audit?limit=100")).await.ok();
    let event = events.list("events").iter().find(|event| event["action"] == "workspace.restore");
    assert_eq!(event.expect("an event")["actor_entity_id"], tenant.claimed["created_by_entity_id"]);
    // Each archive has a time of its own.
    server.clock.advance(DAY);
    archive(owner, &id, "second").await;
    let again = owner.get(LIST).await.ok();
    assert!(again["items"][0]["purge_at"].as_str() > item["purge_at"].as_str());
});

both!(only_last_owners_see_and_restore_an_archived_workspace, async || {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let (admin, co_owner, stranger) =
        (server.tenant("admin-of").await, server.tenant("owner-of").await, server.tenant("stranger").await);
    let id = second(&tenant.owner, "second").await;
    join(&tenant.owner, &id, "admin", &admin.owner).await;
    join(&tenant.owner, &id, "owner", &co_owner.owner).await;
    let removed = server.tenant("removed").await;
    join(&tenant.owner, &id, "owner", &removed.owner).await;
    let entity = removed.claimed.text("created_by_entity_id");
    tenant.owner.delete(&format!("/v1/workspaces/{id}/members/{entity}")).await.no_content();
    archive(&tenant.owner, &id, "second").await;
    for other in [&admin, &stranger, &removed] {
        assert_eq!(slugs(&other.owner.get(LIST).await.ok()), [""; 0]);
        restore(&other.owner, &id).await.refused_as(404, "archived_workspace_not_found");
    }
    for unknown in ["6ba7b810-9dad-41d1-80b4-00c04fd430c8", "nonsense", &stranger.id] {
        restore(&co_owner.owner, unknown).await.refused_as(404, "archived_workspace_not_found");
    }
    // A credential that is narrower than its owner does not suffice.
    let narrow = json!({ "duration_days": 1, "role": "admin" });
    restore(&co_owner.key(narrow).await.0, &id).await.refused_as(403, "owner_only");
    let service = json!({ "duration_days": 1, "role": "owner" });
    restore(&co_owner.key(service).await.0, &id).await.refused_as(403, "unsupported_principal");
    let path = format!("{LIST}/{id}/restore");
    let key = "sixteen-or-more-characters";
    let done = co_owner.owner.post_once(&path, key, json!({})).await.ok();
    let again = co_owner.owner.post_once(&path, key, json!({})).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.ok(), done);
});

both!(an_access_policy_holds_for_restorations_too, async || {
    let (server, tenant) = Server::with_tenant().await;
    let id = second(&tenant.owner, "second").await;
    archive(&tenant.owner, &id, "second").await;
    server.sql("UPDATE workspaces SET networks = '[\"192.0.2.0/24\"]' WHERE slug = 'second'").await;
    assert_eq!(slugs(&tenant.owner.get(LIST).await.ok()), [""; 0]);
    restore(&tenant.owner, &id).await.refused_as(404, "archived_workspace_not_found");
    server.sql("UPDATE workspaces SET networks = NULL").await;
    restore(&tenant.owner, &id).await.ok();
});

both!(a_person_with_a_token_restores_their_only_workspace, async || {
    let (server, issuer) = Server::with_issuer().await;
    let ada = server.person(&issuer, "ada");
    let id = second(&ada, "acme").await;
    archive(&ada, &id, "acme").await;
    assert_eq!(slugs(&ada.get(LIST).await.ok()), ["acme"]);
    restore(&server.person(&issuer, "bea"), &id).await.refused_as(404, "archived_workspace_not_found");
    restore(&ada, &id).await.ok();
});

/// A new key of the tenant's owner, for tests in which the first one expires.
async fn renewed(server: &Server, tenant: &Tenant) -> Actor {
    let path = tenant.path(&format!("/api-keys/{}/rotate", tenant.owner_key_id()));
    server.bearing(tenant.owner.post(&path, json!({ "duration_days": 90 })).await.ok().text("api_key"))
}

both!(the_time_for_a_restoration_ends_for_owners_and_not_for_the_operator, async || {
    let server = Server::with(|config| config.purge_after = 60 * DAY).await;
    let tenant = server.tenant("acme").await;
    let id = second(&tenant.owner, "second").await;
    archive(&tenant.owner, &id, "second").await;
    server.clock.advance((60 * DAY).saturating_sub(Duration::from_mins(1)));
    let owner = renewed(&server, &tenant).await;
    restore(&owner, &id).await.ok();
    archive(&owner, &id, "second").await;
    server.clock.advance(60 * DAY);
    restore(&owner, &id).await.refused_as(410, "restore_time_over");
    assert_eq!(slugs(&owner.get(LIST).await.ok()), ["second"]);
    ward::operator::restore_workspace(&server.app, &id).await.expect("restored");
    owner.get(&format!("/v1/workspaces/{id}")).await.ok();
});

both!(archived_workspaces_are_paged_without_gap_or_repeat, async || {
    let (server, tenant) = Server::with_tenant().await;
    let mut expected = Vec::new();
    for index in 0..9 {
        let slug = format!("clinic-{index}");
        let id = second(&tenant.owner, &slug).await;
        if index % 3 != 1 {
            archive(&tenant.owner, &id, &slug).await;
            expected.push(slug);
        }
    }
    // One that the principal does not own lies between them.
    let other = server.tenant("other").await;
    let id = second(&other.owner, "of-another").await;
    join(&other.owner, &id, "admin", &tenant.owner).await;
    archive(&other.owner, &id, "of-another").await;
    let last = second(&tenant.owner, "last").await;
    archive(&tenant.owner, &last, "last").await;
    expected.push("last".to_owned());
    let listed = pages(&tenant.owner, &format!("{LIST}?limit=2")).await;
    assert!(listed.iter().all(|page| page["total"] == 7));
    let found: Vec<&str> = listed.iter().flat_map(slugs).collect();
    assert_eq!(found, expected);
});

both!(a_legal_hold_has_a_reason_and_is_recorded, async || {
    let (server, tenant) = Server::with_tenant().await;
    let id = second(&tenant.owner, "second").await;
    let hold = async |reason: &str| ward::operator::hold_workspace(&server.app, "second", reason).await;
    for unfit in ["", "  ", "a\u{202e}b", "x".repeat(501).as_str()] {
        assert!(hold(unfit).await.is_err(), "{unfit:?}");
    }
    let shown = hold(" case 7/2026 ").await.expect("held");
    assert_eq!(shown.legal_hold.expect("a hold").reason, "case 7/2026");
    hold("case 7/2026").await.expect("the same hold");
    archive(&tenant.owner, &id, "second").await;
    assert_eq!(tenant.owner.get(LIST).await.ok()["items"][0]["legal_hold"], true);
    // A hold does not keep its owners from a restoration.
    restore(&tenant.owner, &id).await.ok();
    assert!(ward::operator::lift_hold(&server.app, &id).await.expect("lifted").legal_hold.is_none());
    assert!(ward::operator::lift_hold(&server.app, &id).await.is_err());
    let events = tenant.owner.get(&format!("/v1/{id}/audit?limit=100")).await.ok();
    let holds: Vec<_> = events
        .list("events")
        .iter()
        .filter(|it| it["action"].as_str().unwrap().starts_with("legal_hold"))
        .collect();
    assert_eq!(holds.len(), 2);
    assert_eq!(holds[1]["metadata"]["changes"], json!({ "reason": { "from": null, "to": "case 7/2026" } }));
    assert!(ward::operator::hold_workspace(&server.app, &fresh_slug(), "no such workspace").await.is_err());
});

both!(of_restorations_by_owners_on_two_replicas_one_is_done, threads = 4, async || {
    let server = Server::start().await;
    let replica = server.replica().await;
    let (one, other) = (server.tenant("one").await, server.tenant("other").await);
    let id = second(&one.owner, "shared").await;
    join(&one.owner, &id, "owner", &other.owner).await;
    for _ in 0..5 {
        archive(&one.owner, &id, "shared").await;
        let mut running = tokio::task::JoinSet::new();
        for index in 0..8 {
            let on = if index % 2 == 0 { &server } else { &replica };
            let owner = if index % 4 < 2 { &one.owner } else { &other.owner };
            let (actor, id) = (on.bearing(owner.bearer.clone().expect("a key")), id.clone());
            running.spawn(async move { restore(&actor, &id).await.status.as_u16() });
        }
        let mut answers = running.join_all().await;
        answers.sort_unstable();
        assert_eq!(answers, [200, 404, 404, 404, 404, 404, 404, 404]);
    }
    let events = one.owner.get(&format!("/v1/{id}/audit/summary")).await.ok();
    assert_eq!(
        server.count("SELECT count(*) FROM audit_events WHERE action = 'workspace.restore'").await,
        5,
        "{events}"
    );
});
