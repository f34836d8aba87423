//! Every page: at two widths, for a screen reader, with pictures for a person to look at, and for a viewer.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::json;
use tokio::process::Command;
use ward_test::{Fields as _, Tenant, sqlite_only};

use crate::desk::{self, Person};
use crate::scene;

/// The pages of a workspace, with a name for their pictures.
async fn of_workspace(tenant: &Tenant) -> Vec<(String, String)> {
    let id = &tenant.id;
    let list = tenant.owner.get(&format!("/v1/{id}/api-keys")).await.ok();
    let key = list["items"][1].text("key_id").to_owned();
    let integration = tenant.owner.get(&format!("/v1/{id}/integrations")).await.ok();
    let integration = integration["items"][0].text("id").to_owned();
    let members = tenant.owner.get(&tenant.workspace("/members")).await.ok();
    let member = members["items"][1].text("entity_id").to_owned();
    let failed = scene::delivery_in(tenant, "failed").await;
    let synced = scene::delivery_in(tenant, "synced").await;
    let pages = [
        ("overview", String::new()),
        ("calls", "/calls".to_owned()),
        ("call-real", "/calls/CA0000000000000000000000005eed0001".to_owned()),
        ("call-test", "/calls/CA0000000000000000000000005eed0004".to_owned()),
        ("deliveries", "/deliveries".to_owned()),
        ("delivery-failed", format!("/deliveries/{failed}")),
        ("delivery-synced", format!("/deliveries/{synced}")),
        ("integrations", "/integrations".to_owned()),
        ("integration", format!("/integrations/{integration}?auth=smart_backend_services")),
        ("integration-new", "/integrations/new".to_owned()),
        ("test-callers", "/test-callers".to_owned()),
        ("keys", "/keys".to_owned()),
        ("key-new", "/keys/new".to_owned()),
        ("key-rotate", format!("/keys/{key}/rotate")),
        ("key-revoke", format!("/keys/{key}/revoke")),
        ("people", "/people".to_owned()),
        ("invite", "/people/invite".to_owned()),
        ("member", format!("/people/{member}")),
        ("leave", "/people/leave".to_owned()),
        ("audit", "/audit".to_owned()),
        ("audit-patients", "/audit?phi=yes".to_owned()),
        ("exports", "/audit/exports".to_owned()),
        ("usage", "/usage".to_owned()),
        ("settings", "/settings".to_owned()),
        ("environment", "/settings/environment/staging".to_owned()),
        ("not-found", "/nowhere".to_owned()),
    ];
    pages.into_iter().map(|(name, path)| (name.to_owned(), format!("/w/{id}{path}"))).collect()
}

/// The pages outside a workspace, with a name for their pictures.
fn outside() -> Vec<(String, String)> {
    let pages = ["/sign-in", "/start", "/workspaces", "/workspaces?q=nothing", "/workspaces/new", "/join"];
    let name = |path: &str| path.trim_start_matches('/').replace(['/', '?', '='], "-");
    pages.iter().map(|path| (name(path), (*path).to_owned())).collect()
}

/// axe-core from npm. `None`: npm installs nothing here, and the test is left out.
async fn axe() -> Option<String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/axe");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let servers = std::env::var("WARD_TEST_SERVERS").unwrap_or_default();
    let script = folder.join("node_modules/axe-core/axe.min.js");
    if servers != "off" && !script.exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
        let _ = npm.output().await;
    }
    if script.exists() {
        return Some(std::fs::read_to_string(script).unwrap());
    }
    assert!(servers != "require", "npm ci does not install axe-core");
    let said = b"\nLEFT OUT: no page was checked for screen readers, because npm does not install axe-core\n";
    let _ = std::io::stderr().write_all(said);
    None
}

/// Saves a picture of the whole page, if `WARD_TEST_SCREENSHOTS` names a folder.
async fn show(person: &Person, name: &str) {
    if let Ok(folder) = std::env::var("WARD_TEST_SCREENSHOTS") {
        let png = person.browser.screenshot_of_page().await;
        let bytes = base64::engine::general_purpose::STANDARD.decode(png).unwrap();
        std::fs::write(format!("{folder}/console-{name}.png"), bytes).unwrap();
    }
}

sqlite_only!(every_page_fits_both_widths_and_axe_reports_nothing_serious, async || {
    let server = desk::server().await;
    let tenant = scene::busy(&server).await;
    let axe = axe().await;
    let pages = [outside(), of_workspace(&tenant).await].concat();
    let mut found = Vec::new();
    for (width, height, dark) in [(1280, 900, false), (1280, 900, true), (390, 844, false)] {
        let Some(person) = Person::with_window(&server, width, height).await else { return };
        person.sign_in(tenant.claimed.text("api_key")).await;
        person.browser.dark(dark).await;
        for (name, path) in &pages {
            person.go(path).await;
            let heading = person.browser.run("return document.querySelectorAll('h1').length").await;
            assert_eq!(heading, 1, "{name}: one heading says what the page is");
            let broken = person.text().await.contains("Something went wrong");
            assert!(!broken, "{name}: {}", person.text().await);
            // A phone's browser widens `innerWidth` to the page, so it says nothing.
            let fits = format!("return document.documentElement.scrollWidth <= {width}");
            assert_eq!(person.browser.run(&fits).await, true, "{name} is wider than {width} pixels");
            show(&person, &format!("{name}-{width}{}", if dark { "-dark" } else { "" })).await;
            let Some(axe) = &axe else { continue };
            let script = format!(
                "{axe}; return axe.run(document, {{ resultTypes: ['violations'] }}).then((all) => all.violations \
                     .filter((one) => ['serious', 'critical'].includes(one.impact)) \
                     .map((one) => one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')))"
            );
            let said = person.browser.run(&script).await;
            for one in said.as_array().unwrap() {
                found.push(format!("{name} at {width}, dark {dark}: {one}"));
            }
        }
        person.done().await;
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
});

sqlite_only!(a_viewer_sees_no_button_that_would_be_refused, async || {
    let server = desk::server().await;
    let tenant = scene::busy(&server).await;
    let body = json!({ "name": "looks only", "role": "viewer", "duration_days": 1 });
    let viewer = tenant.owner.post(&format!("/v1/{}/api-keys", tenant.id), body).await;
    let viewer = viewer.expect(reqwest::StatusCode::CREATED);
    let Some(person) = Person::at(&server).await else { return };
    person.sign_in(viewer.text("api_key")).await;
    person.sees("Harbour Clinic").await;
    let create =
        "return [...document.querySelectorAll('main a')].some((one) => one.textContent === 'New workspace')";
    assert_eq!(person.browser.run(create).await, false, "a service creates no workspace");
    person.go(&format!("/w/{}", tenant.id)).await;
    let places = "return [...document.querySelectorAll('.side a')].map((one) => one.textContent)";
    let seen = person.browser.run(places).await;
    assert_eq!(seen, json!(["Overview", "Integrations", "Test callers", "People", "Usage", "Settings"]));
    let buttons = "return [...document.querySelectorAll('main button, main input, main textarea, main select')] \
                   .filter((one) => one.type !== 'hidden').map((one) => one.textContent || one.name)";
    for (place, allowed) in [
        ("", json!([])),
        ("/integrations", json!([])),
        ("/test-callers", json!([])),
        ("/people", json!([])),
        ("/usage", json!([])),
        ("/settings", json!([])),
    ] {
        person.go(&format!("/w/{}{place}", tenant.id)).await;
        assert_eq!(person.browser.run(buttons).await, allowed, "{place}");
    }
    // A typed address is refused in words.
    person.go(&format!("/w/{}/calls", tenant.id)).await;
    person.sees("permission").await;
    person.done().await;
});
