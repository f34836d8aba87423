//! Nonces, where the operator requires them: every replica verifies those of all others.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use ward::config::Rate;
use ward_test::{Cost, Prover, Server, both, unknown_key};

use super::{bound, credential, face, get_with};

const ME: &str = "/v1/me";
const NAMED: &str = "https://ward.test";

/// A server that requires nonces, under a name that it shares with its replicas.
async fn start() -> Server {
    Server::with(|config| {
        config.dpop_nonces = true;
        config.public_url = Some(NAMED.to_owned());
    })
    .await
}

/// A bound key, whose actor knows no nonce yet.
async fn bound_key(server: &Server) -> (ward_test::Actor, Prover) {
    let tenant = server.tenant("acme").await;
    let mut prover = Prover::new(server, "ES256");
    NAMED.clone_into(&mut prover.base);
    let body = json!({ "duration_days": 30, "role": "owner", "bound_to": { "jkt": prover.jkt() } });
    (tenant.key(body).await.0, prover)
}

both!(a_client_gets_a_nonce_by_a_challenge_and_a_new_one_before_it_ends, async || {
    let server = start().await;
    let (actor, prover) = bound_key(&server).await;
    let actor = actor.proving(&Arc::new(prover));
    // The steps of nonces begin at whole multiples of 150 seconds.
    let now = server.clock.now().micros();
    server.clock.advance(Duration::from_micros(150_000_000 - now.rem_euclid(150_000_000).unsigned_abs()));
    let (challenged, cost) = server.costs(actor.get(ME)).await;
    assert_eq!(cost, Cost::NOTHING);
    assert!(!challenged.header("dpop-nonce").is_empty());
    challenged.refused_as(401, "use_dpop_nonce");
    let served = actor.get(ME).await;
    assert_eq!(served.header("dpop-nonce"), "", "the nonce is still new");
    served.ok();
    server.clock.advance(Duration::from_secs(150));
    let served = actor.get(ME).await;
    assert!(!served.header("dpop-nonce").is_empty(), "a success brings the next nonce");
    served.ok();
    server.clock.advance(Duration::from_secs(299));
    actor.get(ME).await.ok();
    server.clock.advance(Duration::from_secs(301));
    actor.get(ME).await.refused_as(401, "use_dpop_nonce");
    // The same client goes on with the nonce of the challenge.
    actor.get(ME).await.ok();
});

both!(a_nonce_of_one_replica_is_good_on_all_with_the_master_key, async || {
    let server = start().await;
    let (actor, prover) = bound_key(&server).await;
    let replica = server.replica().await;
    let key = credential(&actor);
    let nonce = get_with(&server, ME, key, &prover.proof("GET", ME, key)).await;
    prover.note(&nonce);
    get_with(&replica, ME, key, &prover.proof("GET", ME, key)).await.ok();
    get_with(&server, ME, key, &prover.proof("GET", ME, key)).await.ok();
    // A nonce is part of the signed proof: with it a proof still works once.
    let proof = prover.proof("GET", ME, key);
    get_with(&replica, ME, key, &proof).await.ok();
    get_with(&server, ME, key, &proof).await.refused_as(401, "unauthorized");
    // Texts that Ward did not make are no nonces.
    for made_up in ["", "made-up", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &nonce.header("dpop-nonce")[1..]] {
        let mut claims = prover.claims("GET", ME, key);
        claims["nonce"] = json!(made_up);
        let answer = get_with(&server, ME, key, &prover.key.sign(&prover.header(), &claims)).await;
        assert_eq!(answer.refused(401), "use_dpop_nonce", "{made_up}");
    }
});

both!(a_challenge_says_nothing_of_the_credential_and_is_never_refused, async || {
    let server = Server::with(|config| {
        config.dpop_nonces = true;
        config.rates.enforced = true;
        config.rates.failed_credentials = Rate { burst: 1, per_minute: 1 };
    })
    .await;
    let tenant = server.tenant("acme").await;
    let (actor, prover, _) = bound(&server, &tenant, "owner").await;
    let mut seen = None;
    for key in [credential(&actor), credential(&tenant.owner), &unknown_key(), "garbage"] {
        let answer = get_with(&server, ME, key, &prover.proof("GET", ME, key)).await;
        assert_eq!(*seen.get_or_insert_with(|| face(&answer)), face(&answer));
    }
    // Others of the same address have used up its failures. The challenge does not count as one.
    while server.bearing(unknown_key()).get(ME).await.status != 429 {}
    actor.get(ME).await.refused_as(401, "use_dpop_nonce");
    actor.get(ME).await.ok();
});

both!(plain_bearers_get_no_nonce, async || {
    let server = start().await;
    let tenant = server.tenant("acme").await;
    let served = tenant.owner.get(ME).await;
    assert_eq!(served.header("dpop-nonce"), "");
    served.ok();
    let refused = server.bearing(unknown_key()).get(ME).await;
    assert_eq!((refused.header("dpop-nonce"), refused.header("www-authenticate")), ("", "Bearer"));
    refused.refused(401);
});
