//! The first steps of a person: a workspace, its first key, further keys, and the end of the session.

use serde_json::json;
use ward_test::{fresh_slug, sqlite_only};

use crate::desk::{self, Person};

sqlite_only!(an_empty_server_gives_a_person_a_workspace_and_a_key, async || {
    let server = desk::server().await;
    let Some(person) = Person::at(&server).await else { return };
    person.go("").await;
    assert_eq!(person.path().await, "/sign-in");
    person.press("Create a workspace").await;
    person.fill("name", "Harbour Clinic").await;
    person.fill("slug", "Not a slug").await;
    person.press("Create workspace").await;
    let described = person.browser.run("return document.getElementById(document.querySelector('#f-slug').getAttribute('aria-describedby').split(' ').pop()).innerText").await;
    assert!(described.as_str().unwrap().contains("pattern"), "the problem stands at its field: {described}");
    let slug = fresh_slug();
    person.fill("slug", &slug).await;
    person.press("Create workspace").await;
    person.sees("It is shown this once").await;
    let key = person.browser.run("return document.getElementById('secret').textContent").await;
    let key = key.as_str().unwrap().to_owned();
    let command = person.browser.run("return document.getElementById('command').textContent").await;
    assert!(key.starts_with("ward_") && command.as_str().unwrap().contains(&key), "{command}");
    server.bearing(&key).get("/v1/workspaces").await.ok();

    // The session began with the new key.
    person.press("To the workspace").await;
    person.sees("What to do next").await;
    person.sees(&slug).await;
    person.press("API keys").await;
    person.sees("first key").await;

    // A narrower key, of the catalog.
    person.press("New key").await;
    person.fill("name", "reporting").await;
    person.browser.click("#r-viewer").await;
    person.fill("duration_days", "400").await;
    person.press("Create key").await;
    person.sees("less than or equal to 90").await;
    person.fill("duration_days", "30").await;
    person.press("Create key").await;
    let minted = person.browser.run("return document.getElementById('secret').textContent").await;
    let minted = minted.as_str().unwrap().to_owned();
    let me = server.bearing(&minted).get("/v1/me").await.ok();
    assert_eq!(me["memberships"]["items"][0]["role"], "viewer", "{me}");
    person.press("To the keys").await;
    person.sees("reporting").await;

    // Both secrets are accepted until the former one ends.
    person.press("Rotate reporting").await;
    person.choose("grace_seconds", "3600").await;
    person.press("Rotate key").await;
    let rotated = person.browser.run("return document.getElementById('secret').textContent").await;
    let rotated = rotated.as_str().unwrap().to_owned();
    server.bearing(&minted).get("/v1/me").await.ok();
    server.bearing(&rotated).get("/v1/me").await.ok();
    person.press("To the keys").await;
    person.sees("former secret ends in").await;
    person.press("End it now for reporting").await;
    person.sees("The former secret is refused from now on.").await;
    server.bearing(&minted).get("/v1/me").await.refused_as(401, "unauthorized");

    // A key for another person: only the opener of the link sees it.
    person.press("New key").await;
    person.fill("name", "for dana").await;
    person.browser.click("#handover").await;
    person.press("Create key").await;
    person.sees("It shows the key once.").await;
    let link = person.browser.run("return document.getElementById('secret').textContent").await;
    let (page, token) = link.as_str().unwrap().split_once('#').unwrap();
    assert!(page.ends_with("/v1/keys/handover"), "{page}");
    let opened = server.anonymous().post("/v1/keys/handover", json!({ "token": token })).await.ok();
    assert_eq!(opened["name"], "for dana");
    server.bearing(opened["api_key"].as_str().unwrap()).get("/v1/me").await.ok();
    person.press("To the keys").await;

    // A key is revoked by its name only.
    person.press("Revoke reporting").await;
    person.fill("confirm", "another").await;
    person.press("Revoke key").await;
    person.sees("This is not the name of the key.").await;
    server.bearing(&rotated).get("/v1/me").await.ok();
    person.fill("confirm", "reporting").await;
    person.press("Revoke key").await;
    person.sees("The key is revoked.").await;
    server.bearing(&rotated).get("/v1/me").await.refused_as(401, "unauthorized");

    // The session goes on with the new secret of its own key.
    person.press("Rotate first key").await;
    person.press("Rotate key").await;
    server.bearing(&key).get("/v1/me").await.refused_as(401, "unauthorized");
    person.press("Workspaces").await;
    person.sees("Harbour Clinic").await;

    // A second workspace, and the search that finds it.
    person.press("New workspace").await;
    person.fill("name", "Hill Practice").await;
    person.fill("slug", &fresh_slug()).await;
    person.press("Create workspace").await;
    person.sees("It is created.").await;
    person.press("Workspaces").await;
    person.fill("q", "hill").await;
    person.press("Search").await;
    let found = person.text().await;
    assert!(found.contains("Hill Practice") && !found.contains("Harbour"), "{found}");
    person.fill("q", "nowhere").await;
    person.press("Search").await;
    person.sees("None of the 2 workspaces").await;

    person.press("Sign out").await;
    person.sees("You are signed out.").await;
    person.go("/workspaces").await;
    assert_eq!(person.path().await, "/sign-in");
    person.done().await;
});

sqlite_only!(a_wrong_key_is_refused_in_words_and_never_shown_again, async || {
    let server = desk::server().await;
    let Some(person) = Person::at(&server).await else { return };
    person.sign_in("ward_not_a_key").await;
    person.sees("This key is not accepted.").await;
    assert_eq!(person.path().await, "/sign-in");
    let html = person.browser.run("return document.documentElement.outerHTML").await;
    assert!(!html.as_str().unwrap().contains("ward_not_a_key"));
    // The console has no private key, so its answer names the way out.
    let tenant = server.tenant("acme").await;
    let jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let body = json!({ "duration_days": 9, "role": "owner", "bound_to": { "jkt": jkt } });
    let (_, bound) = tenant.key(body).await;
    person.sign_in(bound["api_key"].as_str().unwrap()).await;
    person.sees("A key that is bound to a public key cannot sign in here, so use another key.").await;
    person.done().await;
});
