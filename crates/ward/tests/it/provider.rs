//! From a sign-in at a real identity provider to a shared workspace, with the scripts for a laptop.

use std::time::Duration;

use serde_json::json;
use ward::config::issuers::IssuerConfig;
use ward_test::{AUDIENCE, Fields as _, LocalProvider, Server, both, new_workspace};

both!(people_sign_in_own_and_share_a_workspace, async || {
    let Some(provider) = LocalProvider::start().await else { return };
    let issuer = IssuerConfig::new(&provider.issuer, AUDIENCE);
    let server = Server::with(|config| config.issuers = vec![issuer.clone()]).await;
    let late = Server::with(|config| config.issuers = vec![issuer]).await;

    // Ada signs in with code and PKCE, then uses self-service with the token.
    let ada = server.bearing(provider.sign_in("ada").await);
    let created = ada.post("/v1/workspaces/self-service", new_workspace("ada")).await.created();
    let id = created.text("id");
    let me = ada.get("/v1/me").await.ok();
    assert_eq!(me.fields(["kind", "display_name"]), json!(["user", "Ada"]));
    assert_eq!(me["memberships"]["items"][0]["role"], "owner");
    let again = server.bearing(provider.sign_in("ada").await);
    assert_eq!(again.get("/v1/me").await.ok()["entity_id"], me["entity_id"]);

    // A machine of the same provider owns nothing.
    let machine = server.bearing(provider.machine().await);
    assert_eq!(machine.get("/v1/me").await.ok()["kind"], "service");
    machine
        .post("/v1/workspaces/self-service", new_workspace("robot"))
        .await
        .refused_as(403, "unsupported_principal");

    // The invitation is for a verified address.
    let invitations = format!("/v1/workspaces/{id}/invitations");
    let body = json!({ "role": "operator", "email": "new-bea@clinic.example" });
    let unverified = ada.post(&invitations, body).await.created();
    let body = json!({ "role": "operator", "email": "bea@clinic.example" });
    let link = ada.post(&invitations, body).await.created();
    let accept = |link: &serde_json::Value| json!({ "invitation": link["invitation"] });
    let new_bea = server.bearing(provider.sign_in("new-bea").await);
    for link in [&unverified, &link] {
        new_bea.post("/v1/invitations/accept", accept(link)).await.refused_as(403, "email_not_verified");
    }
    let bea = server.bearing(provider.sign_in("bea").await);
    bea.post("/v1/invitations/accept", accept(&link)).await.created();
    let members = bea.get(&format!("/v1/workspaces/{id}/members")).await.ok();
    let names: Vec<_> = members.list("items").iter().map(|it| it["display_name"].clone()).collect();
    assert_eq!(names, ["Ada", "Bea"]);

    // The provider stops: a server with its keys continues, and a server without them answers when to retry.
    let token = provider.sign_in("ada").await;
    provider.stop().await;
    server.clock.advance(Duration::from_mins(30));
    server.bearing(&token).get(&format!("/v1/workspaces/{id}")).await.ok();
    let answer = late.bearing(&token).get("/v1/me").await;
    assert!(!answer.header("retry-after").is_empty());
    answer.refused_as(503, "identity_unavailable");
});
