//! A proof works once, over all replicas, and is remembered no longer than its age lets it be accepted.

use std::time::Duration;

use serde_json::json;
use ward_test::{Cost, Engine, Server, both};

use super::{bound, credential, get_with};
use crate::support::{insert_rows, together};

const ME: &str = "/v1/me";
const NOTED: &str = "SELECT count(*) FROM dpop_proofs";

both!(a_proof_works_once_on_whichever_replica, async || {
    let (server, tenant) = Server::with_tenant().await;
    let replica = server.replica().await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let key = credential(&actor);
    for (first, second) in [(&server, &server), (&server, &replica), (&replica, &server)] {
        // The proof names the first server's URL. The other one is reached under the same name.
        let mut claims = prover.claims("GET", ME, key);
        claims["htu"] = json!(format!("{}{ME}", first.url()));
        let proof = prover.key.sign(&prover.header(), &claims);
        get_with(first, ME, key, &proof).await.ok();
        get_with(second, ME, key, &proof).await.refused(401);
    }
});

both!(of_many_uses_of_one_proof_at_once_one_succeeds, threads = 4, async || {
    let named = "https://ward.test";
    let server = Server::with(|config| config.public_url = Some(named.to_owned())).await;
    let tenant = server.tenant("acme").await;
    let replica = server.replica().await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let key = credential(&actor).to_owned();
    let mut claims = prover.claims("GET", ME, &key);
    claims["htu"] = json!(format!("{named}{ME}"));
    let proof = prover.key.sign(&prover.header(), &claims);
    let headers = [("authorization", format!("DPoP {key}")), ("dpop", proof)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let actors = [server.anonymous().with(&headers), replica.anonymous().with(&headers)];
    let sent = (0..40).map(|at| actors[at % 2].clone()).map(|actor| async move { actor.get(ME).await });
    let mut statuses: Vec<u16> = together(sent).await.iter().map(|it| it.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(server.count(NOTED).await, 1);
});

both!(the_same_id_is_free_to_another_key_and_no_replay_writes, async || {
    let (server, tenant) = Server::with_tenant().await;
    let mut proofs = Vec::new();
    for _ in 0..2 {
        let (actor, prover, _) = bound(&server, &tenant, "owner").await;
        let key = credential(&actor).to_owned();
        let mut claims = prover.claims("GET", ME, &key);
        claims["jti"] = json!("the-same-for-both");
        let proof = prover.key.sign(&prover.header(), &claims);
        get_with(&server, ME, &key, &proof).await.ok();
        // Another proof with the same id is a second use, whatever else it says.
        claims["htu"] = json!(format!("{}/v1/workspaces", prover.base));
        let other = prover.key.sign(&prover.header(), &claims);
        get_with(&server, "/v1/workspaces", &key, &other).await.refused_as(401, "unauthorized");
        proofs.push((key, proof));
    }
    for (key, proof) in &proofs {
        let (answer, cost) = server.costs(get_with(&server, ME, key, proof)).await;
        assert_eq!(answer.refused(401), "unauthorized");
        assert_eq!(cost, Cost { reads: 1, writes: 0, statements: 1 });
    }
});

both!(a_use_is_remembered_until_its_age_refuses_it, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let key = credential(&actor);
    // The proof is as new as it may be, so it is accepted for the longest time.
    let mut claims = prover.claims("GET", ME, key);
    claims["iat"] = json!(server.clock.now().micros() / 1_000_000 + 50);
    let proof = prover.key.sign(&prover.header(), &claims);
    get_with(&server, ME, key, &proof).await.ok();
    server.clock.advance(Duration::from_secs(100));
    server.app.sweep().await;
    assert_eq!(server.count(NOTED).await, 1);
    // A server that has forgotten it, as after a restart.
    let restarted = server.replica_with(|config| config.public_url = Some(prover.base.clone())).await;
    get_with(&restarted, ME, key, &proof).await.refused_as(401, "unauthorized");
    server.clock.advance(Duration::from_mins(1));
    get_with(&restarted, ME, key, &proof).await.refused_as(401, "invalid_dpop_proof");
    server.clock.advance(Duration::from_mins(1));
    server.app.sweep().await;
    assert_eq!(server.count(NOTED).await, 0);
});

both!(the_uses_of_many_proofs_are_forgotten_in_steps, async || {
    let (server, tenant) = Server::with_tenant().await;
    let (actor, _, _) = bound(&server, &tenant, "viewer").await;
    actor.get(ME).await.ok();
    let id = match Engine::current() {
        Engine::Sqlite => "unhex(printf('%064x', i))",
        Engine::Postgres => "decode(lpad(to_hex(i), 64, '0'), 'hex')",
    };
    insert_rows(&server, 1..=1_200, "dpop_proofs", "id, kept_until", &format!("{id}, $NOW")).await;
    assert_eq!(server.count(NOTED).await, 1_201);
    server.app.sweep().await;
    assert_eq!(server.count(NOTED).await, 1, "only what is due is forgotten");
});
