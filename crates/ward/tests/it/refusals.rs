//! Refusals: each workspace's auditors see those of their workspace, undisturbed by other workspaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use ward::audit::refusals::Refusal;
use ward::ids::{CredentialId, WorkspaceId};
use ward::quotas::rate::{FORBIDDEN_PER_SECOND, FORBIDDEN_WAIT};
use ward_test::{Server, both};

both!(a_flood_of_refusals_costs_no_other_workspace_an_event, async || {
    let server = Server::start().await;
    // Enough workspaces to fill the buffer, each with more different refusals than it may have.
    for _ in 0..12 {
        let workspace = WorkspaceId::at(server.clock.now());
        for address in 0..1_200_u32 {
            server.app.refusals.note(Refusal {
                workspace,
                service: "workspaces",
                action: "access.forbidden",
                operation: "update-workspace".into(),
                actor: None,
                credential: Some(CredentialId::at(server.clock.now())),
                reason: "permission",
                address: std::net::Ipv4Addr::from(address).into(),
                user_agent: None,
                at: server.clock.now(),
            });
        }
    }
    let quiet = server.tenant("quiet").await;
    let viewer = quiet.service("viewer").await;
    viewer.get(&quiet.path("/audit")).await.expect(StatusCode::FORBIDDEN);
    server.app.flush().await;
    assert_eq!(quiet.actions().await.last().map(String::as_str), Some("access.forbidden"));
});

both!(refusals_beyond_a_credentials_share_are_told_as_a_sum, async || {
    let server = Server::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let tenant = server.tenant("acme").await;
    let viewer = tenant.service("viewer").await;
    // A stolen key is used from everywhere; the owner's own mistake is recorded nevertheless.
    for last in 0..300_u32 {
        let address = std::net::Ipv4Addr::from(0xc633_0000 + last).to_string();
        let viewer = viewer.with(&[("x-forwarded-for", &address)]);
        viewer.get(&tenant.path("/audit")).await.expect(StatusCode::FORBIDDEN);
    }
    let other = tenant.service("viewer").await;
    other.get(&tenant.path("/audit")).await.expect(StatusCode::FORBIDDEN);
    server.app.flush().await;
    let listed = tenant.get("/audit?action=access.forbidden&limit=1").await.ok();
    assert_eq!(listed["total"], 251, "250 of the one key, one of the other");
    let path = tenant.path("/audit?action=access.refusals_unlisted");
    let listed = tenant.owner.get(&path).await.ok();
    let told = &listed["events"][0];
    assert_eq!((&listed["total"], &told["metadata"]["count"]), (&json!(1), &json!(50)));
    assert_eq!(told["metadata"]["refusals"][0]["reason"], "permission");
    // The next minute starts with empty counts.
    server.app.flush().await;
    assert_eq!(tenant.owner.get(&path).await.ok()["total"], 1);
});

both!(an_answer_of_403_waits_while_its_workspace_has_too_many, async || {
    let server = Server::start().await;
    let (tenant, other) = (server.tenant("acme").await, server.tenant("quiet").await);
    let (viewer, visitor) = (tenant.service("viewer").await, other.service("viewer").await);
    // Refusals of other clients use up the second's number as fast as it refills.
    let (app, workspace) = (server.app.clone(), WorkspaceId::of_path(&tenant.id));
    let done = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let done = done.clone();
        move || {
            while !done.load(Ordering::Relaxed) {
                app.forbidden_rates.charge(workspace, FORBIDDEN_PER_SECOND);
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut waited, mut quickest) = (0, FORBIDDEN_WAIT);
    for _ in 0..6 {
        let sent = Instant::now();
        viewer.get(&tenant.path("/audit")).await.expect(StatusCode::FORBIDDEN);
        waited += u32::from(sent.elapsed() >= FORBIDDEN_WAIT);
        let sent = Instant::now();
        visitor.get(&other.path("/audit")).await.expect(StatusCode::FORBIDDEN);
        quickest = quickest.min(sent.elapsed());
    }
    done.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    // One request may take the place that the flood has just left.
    assert!(waited >= 4, "{waited} of 6 waited");
    assert!(quickest < FORBIDDEN_WAIT, "another workspace waits too");
});

both!(many_answers_of_403_are_all_recorded, async || {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    let viewer = tenant.service("viewer").await;
    let path = tenant.path("/audit");
    // A slow machine may need several rounds for more than 200 within a second.
    let workspace = WorkspaceId::of_path(&tenant.id);
    let used = || server.app.forbidden_rates.used(workspace, FORBIDDEN_PER_SECOND);
    let mut sent = 0;
    for _round in 0..20 {
        let mut running = JoinSet::new();
        for _ in 0..400 {
            let (viewer, path) = (viewer.clone(), path.clone());
            running.spawn(async move { viewer.get(&path).await });
        }
        for answer in running.join_all().await {
            answer.expect(StatusCode::FORBIDDEN);
            sent += 1;
        }
        if used() > 0 {
            break;
        }
    }
    assert!(used() > 0);
    server.app.flush().await;
    let listed = tenant.owner.get(&tenant.path("/audit?action=access.forbidden")).await.ok();
    assert_eq!(listed["events"][0]["metadata"]["count"], sent);
    // Other answers of the workspace, and of others, do not wait in this rate.
    tenant.get("/audit").await.ok();
});
