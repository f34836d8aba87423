//! A person's first hour: from an empty server to a delivered call, and a dead letter that is mended.

use serde_json::json;
use ward_test::ehr::ScriptedEhr;
use ward_test::{fresh_slug, sqlite_only};

use crate::desk::{self, Person};
use crate::scene;

sqlite_only!(from_an_empty_server_to_a_delivered_call_and_a_mended_dead_letter, async || {
    let server = desk::server().await;
    let ehr = ScriptedEhr::start().await;
    let worker = scene::worker(&server);
    let Some(person) = Person::at(&server).await else { return };
    person.go("/start").await;
    person.fill("name", "Harbour Clinic").await;
    person.fill("slug", &fresh_slug()).await;
    person.press("Create workspace").await;
    let key = person.browser.run("return document.getElementById('secret').textContent").await;
    let key = key.as_str().unwrap().to_owned();
    person.press("To the workspace").await;
    let path = person.path().await;
    let id = path.trim_start_matches("/w/").to_owned();

    // The steps of the empty overview lead through the rest.
    person.press("Choose the connector of your EHR").await;
    person.choose("connector_type", "fhir_store").await;
    person.press("Save").await;
    person.sees("The changes are saved.").await;
    person.press("Provision").await;
    person.sees("The workspace is provisioned.").await;
    person.press("Integrations").await;
    person.press("Google Cloud FHIR store").await;
    person.sees("workload identity pool").await;

    // A refused form has the reason at its field. It keeps the typed values, but no secret.
    person.fill("base_url", "not a url").await;
    person.fill("auth.private_key_value", "a secret that nobody may see").await;
    person.press("Save").await;
    let error = person.browser.run("return document.getElementById('f-base_url-error').innerText").await;
    assert!(!error.as_str().unwrap().is_empty());
    let html = person.browser.run("return document.documentElement.outerHTML").await;
    assert!(!html.as_str().unwrap().contains("nobody may see"), "a secret came back");
    scene::point_at(&server, &id, &ehr).await;

    person.press("Test callers").await;
    person.fill("numbers", "+1 (555) 010-0001\n12").await;
    person.press("Save the list").await;
    person.sees("Item 2:").await;
    person.fill("numbers", "+1 (555) 010-0001").await;
    person.press("Save the list").await;
    person.sees("The changes are saved.").await;
    let kept = person.browser.run("return document.querySelector('[name=numbers]').value").await;
    assert_eq!(kept, scene::TESTER);

    // The runtime reports a test call and two real ones, of which the EHR refuses the second.
    let runtime = server.bearing(&key);
    let report = async |sid: &str, caller: &str| {
        let body = json!({ "status": "completed", "caller_id": caller, "direction": "inbound", "duration_seconds": 61 });
        runtime.put(&format!("/v1/{id}/calls/{sid}"), body).await.ok();
        worker.turn().await;
    };
    report("CA1", scene::TESTER).await;
    report("CA2", scene::PATIENT).await;
    ehr.script([scene::refusal()]);
    report("CA3", scene::PATIENT).await;
    assert_eq!(ehr.kept().len(), 1);

    person.press("Calls").await;
    person.press("CA1").await;
    person.sees("Why this call is a test").await;
    person.sees("Nothing was sent.").await;
    person.press("Calls").await;
    person.press("CA2").await;
    person.press("The delivery").await;
    person.sees("The EHR has it.").await;
    person.sees("Communication/1").await;

    person.press("Deliveries").await;
    person.sees("The EHR refused it").await;
    person.press("CA3").await;
    person.sees("The patient's chart is closed.").await;
    person.press("Retry").await;
    person.sees("The delivery will be tried again.").await;
    worker.turn().await;
    assert_eq!(ehr.kept().len(), 2);
    person.press("All deliveries").await;
    person.sees("2 synced").await;
    person.press("Overview").await;
    person.sees("Nothing waits.").await;

    // The audit has the actions of the person and the reads of the calls.
    person.press("Audit").await;
    person.sees("delivery.retry").await;
    person.press("Access to patient data").await;
    person.sees("call.read").await;
    person.done().await;
});

sqlite_only!(people_are_invited_changed_and_removed, async || {
    let server = desk::server().await;
    let tenant = server.tenant(&fresh_slug()).await;
    let guest = server.tenant(&fresh_slug()).await;
    let Some(owner) = Person::at(&server).await else { return };
    owner.sign_in(tenant.claimed["api_key"].as_str().unwrap()).await;
    owner.go(&format!("/w/{}/people", tenant.id)).await;
    owner.press("Invite someone").await;
    owner.choose("role", "member").await;
    owner.press("Create invitation").await;
    let invitation = owner.browser.run("return document.getElementById('invitation').textContent").await;
    let invitation = invitation.as_str().unwrap().to_owned();

    let Some(person) = Person::at(&server).await else { return };
    person.sign_in(guest.claimed["api_key"].as_str().unwrap()).await;
    person.press("Invitations").await;
    person.fill("invitation", "not an invitation").await;
    person.press("Accept").await;
    assert!(person.browser.run("return document.querySelector('.problem, .error') !== null").await == true);
    person.fill("invitation", &invitation).await;
    person.press("Accept").await;
    person.sees("You are a member now.").await;

    let me = guest.owner.get("/v1/me").await.ok();
    let entity = me["entity_id"].as_str().unwrap().to_owned();
    owner.press("To the people").await;
    owner.press(&format!("Change {entity}")).await;
    owner.choose("role", "admin").await;
    owner.press("Change role").await;
    owner.sees("The role is changed.").await;
    owner.press(&format!("Change {entity}")).await;
    owner.press("Nominate as owner").await;
    owner.sees("Transfer of ownership").await;
    person.go(&format!("/w/{}/people", tenant.id)).await;
    person.press("Accept ownership").await;
    person.sees("You are the owner now.").await;
    let role = guest.owner.get("/v1/me").await.ok();
    let memberships = role["memberships"]["items"].as_array().unwrap();
    assert!(
        memberships.iter().any(|one| one["workspace_id"] == tenant.id.as_str() && one["role"] == "owner")
    );
    owner.done().await;
    person.done().await;
});
