//! Slugs: renames, look-ups by present and former slugs, the quarantine of former ones, and reserved words.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use ward_test::{Actor, Answer, Fields as _, Server, Tenant, both, fresh_slug, new_workspace};

const DAY: Duration = Duration::from_hours(24);

async fn rename(actor: &Actor, tenant: &Tenant, from: &str, to: &str) -> Answer {
    actor.post(&tenant.workspace("/rename"), json!({ "slug": to, "confirm_slug": from })).await
}

async fn by_slug(actor: &Actor, slug: &str) -> Answer {
    actor.get(&format!("/v1/workspaces/by-slug/{slug}")).await
}

async fn former(tenant: &Tenant) -> Vec<Value> {
    let listed = tenant.owner.get(&tenant.workspace("/former-slugs")).await.ok();
    listed.list("former_slugs").clone()
}

both!(a_renamed_workspace_is_found_by_its_present_and_its_former_slug, async || {
    let (server, tenant) = Server::with_tenant().await;
    let viewer = tenant.service("viewer").await;
    let before = by_slug(&viewer, "acme").await.ok();
    assert_eq!(before, tenant.owner.get(&tenant.workspace("")).await.ok());
    assert_eq!(by_slug(&viewer, "clinics").await.refused(404), "workspace_not_found");
    assert!(former(&tenant).await.is_empty());

    let renamed = rename(&tenant.owner, &tenant, "acme", "clinics").await.ok();
    assert_eq!((renamed.text("slug"), &renamed["id"]), ("clinics", &before["id"]));
    assert!(renamed["updated_at"].as_str() > before["updated_at"].as_str());
    let replica = server.replica().await;
    let elsewhere = replica.bearing(viewer.bearer.clone().expect("a key"));
    let present = by_slug(&elsewhere, "clinics").await;
    assert_eq!(present.header("content-location"), "");
    assert_eq!(present.ok(), renamed);
    let redirected = by_slug(&elsewhere, "acme").await;
    let location = redirected.header("content-location").to_owned();
    assert_eq!(location, "/v1/workspaces/by-slug/clinics");
    assert_eq!(redirected.ok(), renamed);
    assert_eq!(elsewhere.get(&location).await.ok(), renamed);

    // The last use follows with the next flush, at the resolution of a minute, and never moves back.
    let [unused] = former(&tenant).await.try_into().expect("one former slug");
    assert_eq!((&unused["slug"], &unused["last_used_at"]), (&json!("acme"), &Value::Null));
    assert_eq!(unused["retired_at"], renamed["updated_at"]);
    replica.app.flush().await;
    let [used] = former(&tenant).await.try_into().expect("one former slug");
    let minute = format!("{}:00.000000Z", &renamed.text("updated_at")[..16]);
    assert_eq!(used["last_used_at"], minute.as_str());
    server.clock.advance(Duration::from_mins(3));
    by_slug(&viewer, "acme").await.ok();
    server.app.flush().await;
    let [again] = former(&tenant).await.try_into().expect("one former slug");
    assert!(again["last_used_at"].as_str() > used["last_used_at"].as_str());

    let events = tenant.audit().await;
    let event = events.iter().find(|event| event["action"] == "workspace.rename").expect("an event");
    assert_eq!(event["resource_name"], "clinics");
    assert_eq!(event["metadata"]["changes"], json!({ "slug": { "from": "acme", "to": "clinics" } }));
    // The operator's commands find the workspace by both.
    for slug in ["acme", "clinics"] {
        let found = ward::operator::show_workspace(&server.app, slug).await.unwrap();
        assert_eq!(found.workspace.id.to_string(), tenant.id);
    }
});

both!(nobody_else_gets_a_former_slug_before_its_quarantine_ends, async || {
    let (server, tenant) = Server::with_tenant().await;
    let other = server.tenant("other").await;
    rename(&tenant.owner, &tenant, "acme", "clinics").await.ok();
    let refused = async || {
        for slug in ["acme", "clinics"] {
            let new = new_workspace(slug);
            server.anonymous().post("/v1/workspaces", new.clone()).await.refused_as(409, "slug_taken");
            other.owner.post("/v1/me/workspaces", new).await.refused_as(409, "slug_taken");
            rename(&other.owner, &other, "other", slug).await.refused_as(409, "slug_taken");
        }
    };
    refused().await;
    // Its own workspace can take it back. Then the other one is in quarantine.
    rename(&tenant.owner, &tenant, "clinics", "acme").await.ok();
    let [only] = former(&tenant).await.try_into().expect("one former slug");
    assert_eq!(only["slug"], "clinics");
    refused().await;
    server.clock.advance(364 * DAY);
    server.app.sweep().await;
    let owner = server.bearing(issue(&server, &tenant).await);
    by_slug(&owner, "clinics").await.ok();
    server.clock.advance(DAY);
    // At its end, the look-up ends too, before any sweep.
    let owner = server.bearing(issue(&server, &tenant).await);
    assert_eq!(by_slug(&owner, "clinics").await.refused(404), "workspace_not_found");
    let listed = owner.get(&tenant.workspace("/former-slugs")).await.ok();
    assert_eq!(listed["former_slugs"], json!([]));
    server.anonymous().create_workspace("clinics").await;
    assert_eq!(server.count("SELECT count(*) FROM former_slugs").await, 0);
    server.anonymous().post("/v1/workspaces", new_workspace("acme")).await.refused_as(409, "slug_taken");
});

/// A new key of an owner, for tests in which the first one expires.
async fn issue(server: &Server, tenant: &Tenant) -> String {
    let issued = ward::operator::issue_key(&server.app, &tenant.slug, "owner", &fresh_slug(), None).await;
    serde_json::to_value(issued.expect("a key")).expect("JSON").text("api_key").to_owned()
}

both!(a_sweep_frees_former_slugs_whose_quarantine_is_over, async || {
    let server = Server::with(|config| config.slug_quarantine = 30 * DAY).await;
    let tenant = server.tenant("acme").await;
    rename(&tenant.owner, &tenant, "acme", "clinics").await.ok();
    server.clock.advance(30 * DAY);
    server.app.sweep().await;
    assert_eq!(server.count("SELECT count(*) FROM former_slugs").await, 0);
    assert_eq!(server.count("SELECT count(*) FROM slugs").await, 1);
    // Every workspace can take the slug now, also the one that had it.
    rename(&tenant.owner, &tenant, "clinics", "acme").await.ok();
    assert_eq!(by_slug(&tenant.owner, "acme").await.header("content-location"), "");
});

both!(a_rename_is_confirmed_repeatable_and_for_owners_only, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let admin = tenant.service("admin").await;
    rename(&admin, &tenant, "acme", "clinics").await.refused_as(403, "owner_only");
    let wrong = rename(&tenant.owner, &tenant, "acne", "clinics").await;
    let told =
        ("body.confirm_slug".to_owned(), "Value error, Workspace slug confirmation did not match".to_owned());
    assert_eq!(wrong.problems(), [told]);
    for slug in ["A", "a", "two words", "-acme", &"a".repeat(64)] {
        rename(&tenant.owner, &tenant, "acme", slug).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    }
    // A rename to the present slug changes nothing.
    let before = tenant.owner.get(&tenant.workspace("")).await.ok();
    assert_eq!(rename(&tenant.owner, &tenant, "acme", "acme").await.ok(), before);
    let body = json!({ "slug": "clinics", "confirm_slug": "acme" });
    let path = tenant.workspace("/rename");
    let key = "sixteen-or-more-characters";
    let done = tenant.owner.post_once(&path, key, body.clone()).await.ok();
    let again = tenant.owner.post_once(&path, key, body).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.ok(), done);
    let renames = tenant.actions().await.iter().filter(|action| *action == "workspace.rename").count();
    assert_eq!(renames, 1);
    // An archive is confirmed by the present slug.
    let archive = tenant.workspace("/archive");
    tenant.owner.post(&archive, json!({ "slug": "acme" })).await.expect(StatusCode::UNPROCESSABLE_ENTITY);
    tenant.owner.post(&archive, json!({ "slug": "clinics" })).await.ok();
});

both!(a_workspace_cannot_collect_former_slugs_without_end, async || {
    let (server, tenant) = Server::with_tenant().await;
    let slugs: Vec<String> = (0..=10).map(|index| format!("name-{index}")).collect();
    let mut present = "acme".to_owned();
    for slug in &slugs[..10] {
        rename(&tenant.owner, &tenant, &present, slug).await.ok();
        present.clone_from(slug);
    }
    assert_eq!(former(&tenant).await.len(), 10);
    rename(&tenant.owner, &tenant, &present, &slugs[10]).await.refused_as(409, "too_many_former_slugs");
    // The refused slug is still free, and a former one can be taken back.
    rename(&tenant.owner, &tenant, &present, "acme").await.ok();
    server.anonymous().create_workspace(&slugs[10]).await;
    assert_eq!(former(&tenant).await.len(), 10);
});

both!(no_workspace_gets_a_reserved_slug, async || {
    let (server, tenant) = Server::with_tenant().await;
    let told = ("body.slug".to_owned(), "Value error, is a reserved word".to_owned());
    for word in ["admin", "api", "by-slug", "console", "null", "self-service", "v1", "www"] {
        for (actor, path) in [
            (&server.anonymous(), "/v1/workspaces"),
            (&tenant.owner, "/v1/me/workspaces"),
            (&tenant.owner, "/v1/workspaces/self-service"),
        ] {
            assert_eq!(
                actor.post(path, new_workspace(word)).await.problems(),
                std::slice::from_ref(&told),
                "{word}"
            );
        }
        assert_eq!(
            rename(&tenant.owner, &tenant, "acme", word).await.problems(),
            std::slice::from_ref(&told),
            "{word}"
        );
    }
    // A workspace that had such a slug before can still be found, renamed and archived.
    server.sql("UPDATE workspaces SET slug = 'admin'").await;
    server.sql("UPDATE slugs SET slug = 'admin'").await;
    by_slug(&tenant.owner, "admin").await.ok();
    rename(&tenant.owner, &tenant, "admin", "acme").await.ok();
});

both!(a_slug_says_nothing_to_callers_who_are_no_members, async || {
    let (server, tenant) = Server::with_tenant().await;
    let stranger = server.tenant("stranger").await;
    rename(&tenant.owner, &tenant, "acme", "clinics").await.ok();
    server.anonymous().create_workspace("unclaimed").await;
    let gone = server.tenant("gone").await;
    gone.archive().await;
    let own = stranger.owner.post("/v1/me/workspaces", new_workspace("own")).await.created();
    let archive = format!("/v1/workspaces/{}/archive", own.text("id"));
    stranger.owner.post(&archive, json!({ "slug": "own" })).await.ok();
    let long = "a".repeat(64);
    let mut seen = None;
    for slug in
        ["clinics", "acme", "unknown", "unclaimed", "gone", "own", "%ff", "A", "%2e%2e%2f", long.as_str()]
    {
        let (answer, cost) = server.costs(by_slug(&stranger.owner, slug)).await;
        assert_eq!(answer.refused(404), "workspace_not_found", "{slug}");
        assert_eq!((cost.writes, *seen.get_or_insert(cost)), (0, cost), "{slug}");
    }
    // A narrowed key gets the same 403 as for the id.
    let narrow = json!({ "duration_days": 1, "role": "owner", "permissions": ["Call.view"] });
    let (narrowed, _) = tenant.key(narrow).await;
    by_slug(&narrowed, "clinics").await.refused_as(403, "forbidden");
    server.app.flush().await;
    let [unused] = former(&tenant).await.try_into().expect("one former slug");
    assert_eq!(unused["last_used_at"], Value::Null, "a stranger's look-up is no use");
});

both!(a_token_of_a_member_finds_the_workspace_by_its_slug, async || {
    let (server, issuer) = Server::with_issuer().await;
    let ada = server.person(&issuer, "ada");
    let made = ada.post("/v1/me/workspaces", new_workspace("acme")).await.created();
    assert_eq!(by_slug(&ada, "acme").await.ok(), made);
    by_slug(&server.person(&issuer, "bea"), "acme").await.refused_as(404, "workspace_not_found");
});

/// Sends these POSTs at the same time, and returns the statuses of their answers.
async fn at_once(calls: Vec<(Actor, String, Value)>) -> Vec<u16> {
    let start = Arc::new(Barrier::new(calls.len()));
    let mut running = JoinSet::new();
    for (actor, path, body) in calls {
        let start = start.clone();
        running.spawn(async move {
            start.wait().await;
            actor.post(&path, body).await.status.as_u16()
        });
    }
    running.join_all().await
}

#[track_caller]
fn one_winner(statuses: &[u16], losers: &[u16]) {
    let won = statuses.iter().filter(|status| (200..300).contains(*status)).count();
    let lost = statuses.iter().filter(|status| losers.contains(status)).count();
    assert_eq!((won, lost), (1, statuses.len() - 1), "{statuses:?}");
}

both!(of_all_who_want_one_slug_on_two_replicas_one_gets_it, threads = 4, async || {
    let server = Server::start().await;
    let replica = server.replica().await;
    let mut calls = Vec::new();
    for index in 0..12 {
        let tenant = server.tenant(&format!("clinic-of-{index}")).await;
        let on = if index % 2 == 0 { &server } else { &replica };
        let owner = on.bearing(tenant.owner.bearer.clone().expect("a key"));
        let body = json!({ "slug": "wanted", "confirm_slug": tenant.slug });
        calls.push((owner.clone(), tenant.workspace("/rename"), body));
        calls.push((owner, "/v1/me/workspaces".to_owned(), new_workspace("wanted")));
        calls.push((on.anonymous(), "/v1/workspaces".to_owned(), new_workspace("wanted")));
    }
    one_winner(&at_once(calls).await, &[409]);
    assert_eq!(server.count("SELECT count(*) FROM workspaces WHERE slug = 'wanted'").await, 1);
    let held = "SELECT count(*) FROM workspaces w JOIN slugs s ON s.slug = w.slug AND s.workspace_id = w.id";
    assert_eq!(server.count(held).await, server.count("SELECT count(*) FROM workspaces").await);
});

both!(of_renames_and_an_archive_of_one_workspace_one_wins, threads = 4, async || {
    for round in 0..6 {
        let server = Server::start().await;
        let replica = server.replica().await;
        let tenant = server.tenant("acme").await;
        let owner = |index: usize| {
            let on = if index.is_multiple_of(2) { &server } else { &replica };
            on.bearing(tenant.owner.bearer.clone().expect("a key"))
        };
        let mut calls: Vec<_> = (0..6)
            .map(|index| {
                let body = json!({ "slug": format!("name-{index}"), "confirm_slug": "acme" });
                (owner(index), tenant.workspace("/rename"), body)
            })
            .collect();
        calls.insert(round, (owner(round), tenant.workspace("/archive"), json!({ "slug": "acme" })));
        // A confirmation of the former slug is 422. After an archive, the owner's key is 401.
        one_winner(&at_once(calls).await, &[401, 422]);
        let slugs = server.count("SELECT count(*) FROM slugs").await;
        assert_eq!(slugs, 1 + server.count("SELECT count(*) FROM former_slugs").await);
    }
});

both!(a_former_slug_at_the_end_of_its_quarantine_has_one_holder, threads = 4, async || {
    let server = Server::with(|config| config.slug_quarantine = DAY).await;
    let replica = server.replica().await;
    for round in 0..10 {
        let (old, new) = (format!("old-{round}"), format!("new-{round}"));
        let tenant = server.tenant(&old).await;
        rename(&tenant.owner, &tenant, &old, &new).await.ok();
        server.clock.advance(DAY);
        let back = json!({ "slug": old, "confirm_slug": new });
        let mut calls = vec![(tenant.owner.clone(), tenant.workspace("/rename"), back)];
        for on in [&server, &replica] {
            calls.push((on.anonymous(), "/v1/workspaces".to_owned(), new_workspace(&old)));
        }
        let sweep = tokio::spawn({
            let app = replica.app.clone();
            async move { app.sweep().await }
        });
        one_winner(&at_once(calls).await, &[409]);
        sweep.await.expect("the sweep");
        let named = format!("SELECT count(*) FROM workspaces WHERE slug = '{old}'");
        assert_eq!(server.count(named).await, 1);
    }
});
