//! Concurrent requests over real sockets: exactly one wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use ward_db::Timestamp;
use ward_test::{Actor, Answer, Fields as _, Server, both, new_workspace};

use crate::support::{pages, together};

/// Sends all of these POSTs at the same time, one per actor.
async fn at_once(calls: impl IntoIterator<Item = (Actor, String, Value)>) -> Vec<Answer> {
    let calls: Vec<_> = calls.into_iter().collect();
    let start = Arc::new(Barrier::new(calls.len()));
    let mut running = JoinSet::new();
    for (actor, path, body) in calls {
        let start = start.clone();
        running.spawn(async move {
            start.wait().await;
            actor.post(&path, body).await
        });
    }
    running.join_all().await
}

/// The number of answers with each of these statuses; no answer has another status.
#[track_caller]
fn tally<const N: usize>(answers: &[Answer], statuses: [u16; N]) -> [usize; N] {
    for answer in answers {
        assert!(statuses.contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.text);
    }
    statuses.map(|status| answers.iter().filter(|answer| answer.status == status).count())
}

both!(of_a_hundred_who_create_one_slug_one_does, threads = 4, async || {
    let server = Server::start().await;
    let users = [server.tenant("ada").await, server.tenant("bea").await];
    let calls = (0..100).map(|index| match index % 4 {
        0 => (users[0].owner.clone(), "/v1/me/workspaces".to_owned(), new_workspace("wanted")),
        1 => (users[1].owner.clone(), "/v1/workspaces/self-service".to_owned(), new_workspace("wanted")),
        _ => (server.anonymous(), "/v1/workspaces".to_owned(), new_workspace("wanted")),
    });
    assert_eq!(tally(&at_once(calls).await, [201, 409]), [1, 99]);
    assert_eq!(server.count("SELECT count(*) FROM workspaces WHERE slug = 'wanted'").await, 1);
});

both!(of_fifty_who_claim_one_workspace_one_does, threads = 4, async || {
    let server = Server::start().await;
    let created = server.anonymous().create_workspace("acme").await;
    let path = format!("/v1/{}/api-keys", created.text("id"));
    let answers =
        at_once((0..50).map(|_| (server.anonymous(), path.clone(), json!({ "duration_days": 1 })))).await;
    assert_eq!(tally(&answers, [201, 401]), [1, 49]);
    let winner = answers.into_iter().find(|answer| answer.status == 201).expect("a winner").created();
    let owner = server.bearing(winner.text("api_key"));
    let keys = owner.get(&path).await.ok();
    assert_eq!((&keys["total"], &keys["items"][0]["key_id"]), (&json!(1), &winner["key_id"]));
    assert_eq!(server.count("SELECT count(*) FROM principals").await, 1);
});

both!(a_workspace_is_claimed_or_it_lapses_and_its_slug_is_free_only_if_it_lapsed, threads = 4, async || {
    const LIFETIME: Duration = Duration::from_hours(1);
    let server = Arc::new(Server::with(|config| config.unclaimed_lifetime = LIFETIME).await);
    let lapsed = |created: &Answer| {
        let created: Value = serde_json::from_str(&created.text).expect("JSON");
        let at: Timestamp = created.text("created_at").parse().expect("a time");
        at.saturating_add(LIFETIME) <= server.clock.now()
    };
    for round in 0..80 {
        let slug = format!("round-{round}");
        let created = server.anonymous().create_workspace(&slug).await;
        let path = format!("/v1/{}/api-keys", created.text("id"));
        let start = Arc::new(Barrier::new(6));
        // The time limit passes during claims, creations and the sweep, in each round at another time.
        let (clock, began) = (server.clock.clone(), start.clone());
        let time = tokio::spawn(async move {
            began.wait().await;
            for _ in 0..round * 4 {
                tokio::task::yield_now().await;
            }
            clock.advance(LIFETIME);
        });
        let (app, began) = (server.app.clone(), start.clone());
        let sweep = tokio::spawn(async move {
            began.wait().await;
            app.sweep().await;
        });
        let mut calls = JoinSet::new();
        for index in 0..4 {
            let (actor, began) = (server.anonymous(), start.clone());
            let (path, body) = match index % 2 {
                0 => (path.clone(), json!({ "duration_days": 90 })),
                _ => ("/v1/workspaces".to_owned(), new_workspace(&slug)),
            };
            calls.spawn(async move {
                began.wait().await;
                (index % 2 == 0, actor.post(&path, body).await)
            });
        }
        let (claims, creations): (Vec<_>, Vec<_>) =
            calls.join_all().await.into_iter().partition(|(claim, _)| *claim);
        let answers = |of: Vec<(bool, Answer)>| of.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>();
        time.await.expect("time passes");
        sweep.await.expect("the sweep");
        let (claims, creations) = (answers(claims), answers(creations));
        let [claimed, refused] = tally(&claims, [201, 401]);
        let [created_again, _] = tally(&creations, [201, 409]);
        // A creation that started before the time limit and ended after it has lapsed already, so the next
        // caller may have the slug too.
        let holders = creations.iter().filter(|answer| answer.status == 201 && !lapsed(answer)).count();
        assert!(
            claimed + holders <= 1 && (claimed == 0 || created_again == 0),
            "round {round}: {claimed} claims and {created_again} creations, {holders} not lapsed"
        );
        assert_eq!(claimed + refused, 2);
        if claimed == 1 {
            let key = claims.into_iter().find(|answer| answer.status == 201).expect("it").created();
            let owner = server.bearing(key.text("api_key"));
            owner.get(&format!("/v1/workspaces/{}", created.text("id"))).await.ok();
            server.anonymous().post("/v1/workspaces", new_workspace(&slug)).await.refused(409);
        } else {
            let again = server.anonymous().post("/v1/workspaces", new_workspace(&slug)).await;
            assert_eq!(again.status, if holders == 1 { 409 } else { 201 }, "{}", again.text);
            server.anonymous().post(&path, json!({ "duration_days": 90 })).await.refused(401);
            server.anonymous().post("/v1/workspaces", new_workspace(&slug)).await.refused(409);
        }
        let counted = server.count("SELECT CAST(sum(used) AS bigint) FROM bootstrap_slots").await;
        assert_eq!(counted, server.count("SELECT count(*) FROM unclaimed").await, "round {round}");
    }
});

both!(of_twenty_rotations_at_once_one_secret_is_left, threads = 4, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 1, "role": "admin" })).await;
    let path = tenant.path(&format!("/api-keys/{}/rotate", minted.text("key_id")));
    let body = json!({ "duration_days": 1 });

    // With another key, which outlives them, all rotations succeed one after the other.
    let answers = at_once((0..20).map(|_| (tenant.owner.clone(), path.clone(), body.clone()))).await;
    assert_eq!(tally(&answers, [200]), [20]);
    service.get("/v1/auth/me").await.refused(401);
    let mut alive = Vec::new();
    for answer in answers {
        let holder = server.bearing(answer.ok().text("api_key"));
        if tally(&[holder.get("/v1/auth/me").await], [200, 401]) == [1, 0] {
            alive.push(holder);
        }
    }
    assert_eq!(alive.len(), 1);

    // With the key itself, the first rotation ends the key of the others.
    let holder = alive.remove(0);
    let answers = at_once((0..20).map(|_| (holder.clone(), path.clone(), body.clone()))).await;
    assert_eq!(tally(&answers, [200, 401]), [1, 19]);
    holder.get("/v1/auth/me").await.refused(401);
    let last = answers.into_iter().find(|answer| answer.status == 200).expect("one").ok();
    server.bearing(last.text("api_key")).get("/v1/auth/me").await.ok();
    let rotations = tenant.actions().await.iter().filter(|action| *action == "api_key.rotate").count();
    assert_eq!(rotations, 21);
});

both!(no_key_minted_beside_an_archive_outlives_it, threads = 4, async || {
    for _ in 0..5 {
        let (server, tenant) = Server::with_tenant().await;
        let admin = tenant.service("admin").await;
        let mints = (0..30).map(|index| {
            let minter = if index % 2 == 0 { &tenant.owner } else { &admin };
            (minter.clone(), tenant.path("/api-keys"), json!({ "duration_days": 9, "role": "admin" }))
        });
        let archive = (tenant.owner.clone(), tenant.workspace("/archive"), json!({ "slug": "acme" }));
        let mut calls: Vec<_> = mints.collect();
        calls.insert(15, archive);
        let answers = at_once(calls).await;
        let [archived, minted, _] = tally(&answers, [200, 201, 401]);
        assert_eq!(archived, 1, "the archive is done");
        let minted_before_the_end = i64::try_from(minted).expect("a small number");
        for minted in answers.into_iter().filter(|answer| answer.status == 201) {
            let minted = server.bearing(minted.created().text("api_key"));
            minted.get("/v1/auth/me").await.refused(401);
            minted.get(&tenant.workspace("")).await.refused(401);
        }
        tenant.owner.get("/v1/auth/me").await.refused(401);
        let recorded =
            server.count("SELECT count(*) FROM audit_events WHERE action = 'api_key.create'").await;
        assert_eq!(recorded, minted_before_the_end + 1, "the answers and the changes agree");
    }
});

both!(a_key_in_use_ends_with_the_answer_that_says_so, threads = 4, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (service, minted) = tenant.key(json!({ "duration_days": 9, "role": "admin" })).await;
    let revoked = Arc::new(AtomicBool::new(false));
    let warm = Arc::new(Barrier::new(9));
    let mut users = JoinSet::new();
    for index in 0..8 {
        let (service, revoked, warm) = (service.clone(), revoked.clone(), warm.clone());
        let (read, write) = (tenant.workspace(""), tenant.workspace("/test-caller-numbers"));
        users.spawn(async move {
            for round in 0_u32.. {
                if round == 3 {
                    warm.wait().await;
                }
                let over = revoked.load(Ordering::SeqCst);
                let answer = match index % 2 {
                    0 => service.get(&read).await,
                    _ => service.put(&write, json!({ "numbers": [ward_test::fresh_number()] })).await,
                };
                let [_, refused] = tally(&[answer], [200, 401]);
                assert!(!over || refused == 1, "served after the revocation was answered");
                if over {
                    return;
                }
            }
        });
    }
    warm.wait().await;
    tenant.delete(&format!("/api-keys/{}", minted.text("key_id"))).await.no_content();
    revoked.store(true, Ordering::SeqCst);
    users.join_all().await;
});

both!(of_many_who_delete_one_key_one_does, threads = 4, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let (_, minted) = tenant.key(json!({ "duration_days": 9 })).await;
    let path = tenant.path(&format!("/api-keys/{}", minted.text("key_id")));
    let answers = together((0..20).map(|_| {
        let (owner, path) = (tenant.owner.clone(), path.clone());
        async move { owner.delete(&path).await }
    }));
    assert_eq!(tally(&answers.await, [204, 404]), [1, 19]);
    assert_eq!(tenant.actions().await.iter().filter(|action| *action == "api_key.revoke").count(), 1);
});

both!(whoever_pages_while_keys_are_minted_skips_none_and_sees_none_twice, threads = 4, async || {
    let (_server, tenant) = Server::with_tenant().await;
    let mut minters = JoinSet::new();
    for _ in 0..4 {
        let (owner, path) = (tenant.owner.clone(), tenant.path("/api-keys"));
        minters.spawn(async move {
            for _ in 0..15 {
                owner.post(&path, json!({ "duration_days": 1 })).await.created();
            }
        });
    }
    let listed = async || {
        let pages = pages(&tenant.owner, &tenant.path("/api-keys?limit=3")).await;
        let ids = pages.iter().flat_map(|page| page.texts("items", "key_id"));
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut during = Vec::new();
    while !minters.is_empty() {
        during.push(listed().await);
        while minters.try_join_next().is_some() {}
    }
    let after = listed().await;
    assert_eq!(after.len(), 61);
    for seen in during {
        assert_eq!(seen, after[..seen.len()], "a list only ever grows at its end");
    }
});
