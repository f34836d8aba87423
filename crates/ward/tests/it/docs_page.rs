//! The docs page in a real browser, as a developer who has just started Ward uses it.

use serde_json::{Value, json};
use ward_test::browser::Browser;
use ward_test::{Fields as _, Server, fresh_slug, sqlite_only};

/// Saves a screenshot for a person to look at, if `WARD_TEST_SCREENSHOTS` names a folder.
async fn show(browser: &Browser, name: &str) {
    use base64::Engine as _;
    if let Ok(folder) = std::env::var("WARD_TEST_SCREENSHOTS") {
        let bytes = base64::engine::general_purpose::STANDARD.decode(browser.screenshot().await).unwrap();
        std::fs::write(format!("{folder}/{name}.png"), bytes).unwrap();
    }
}

async fn is_visible(browser: &Browser, operation: &str) -> bool {
    let script = format!("return document.getElementById('{operation}').checkVisibility()");
    browser.run(&script).await == true
}

/// Sends a request from the card of an operation and returns the text that the card shows.
async fn send(browser: &Browser, operation: &str) -> String {
    browser.run(&format!("document.querySelector('#{operation} .answer').replaceChildren()")).await;
    browser.click(&format!("#{operation} .try .button")).await;
    let script = format!("return document.querySelector('#{operation} .answer').innerText");
    browser.until(&script).await.as_str().unwrap().to_owned()
}

async fn open_try(browser: &Browser, operation: &str) {
    browser
        .run(&format!("document.getElementById('{operation}').scrollIntoView({{ behavior: 'instant' }})"))
        .await;
    browser.click(&format!("#{operation} .try > summary")).await;
}

sqlite_only!(the_page_shows_every_operation_and_lets_it_be_tried, async || {
    let server = Server::start().await;
    let Some(browser) = Browser::open(1280, 900).await else { return };
    browser.go(&server.url()).await;
    browser.until("return document.querySelector('article.card h3')").await;
    assert_eq!(browser.run("return location.pathname").await, "/v1/docs");
    show(&browser, "desktop-top").await;
    for operation in server.app.contract.operations() {
        assert!(is_visible(&browser, &operation.id).await, "{}", operation.id);
    }
    let document: Value = serde_json::from_slice(server.app.contract.document()).unwrap();
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    for operation in operations.filter(|operation| operation["operationId"].is_string()) {
        let id = operation.text("operationId");
        let answers = operation["responses"].as_object().unwrap().iter();
        let shown = answers
            .filter(|(status, answer)| {
                let kinds = answer["content"].as_object();
                status.as_str() < "300" && kinds.is_some_and(|kinds| !kinds.contains_key("text/html"))
            })
            .count();
        let script = format!(
            "return [...document.querySelectorAll('#{id} h4')].filter((one) => one.innerText.toLowerCase().startsWith('example answer')).length"
        );
        assert_eq!(browser.run(&script).await, shown, "{id}");
    }
    // The page shows the document's own examples, those of the given operations too.
    for (operation, words) in [("get-me", "Dana Example"), ("get-workspace", "\"slug\": \"acme-health\"")] {
        let script = format!("return document.getElementById('{operation}').textContent");
        let card = browser.run(&script).await;
        assert!(card.as_str().unwrap().contains(words), "{operation}: {card}");
    }
    let page = browser.run("return document.body.innerText").await.as_str().unwrap().to_owned();
    assert!(!page.contains("uuidgen") && page.contains("request.headers.delete(\"authorization\")"));

    // The page alone is enough to create a workspace and a key.
    let slug = fresh_slug();
    open_try(&browser, "create-workspace").await;
    let body = json!({ "slug": slug, "name": "The first", "environment": "development" });
    browser.fill("#try-create-workspace-body", &body.to_string()).await;
    let made = send(&browser, "create-workspace").await;
    assert!(made.starts_with("201 ") && made.contains(&slug), "{made}");
    show(&browser, "desktop-created").await;
    open_try(&browser, "create-api-key").await;
    browser.click("#try-create-api-key-key").await;
    browser.fill("#try-create-api-key-body", "{ \"duration_days\": 1 }").await;
    let claimed = send(&browser, "create-api-key").await;
    assert!(claimed.starts_with("201 ") && claimed.contains("ward_"), "{claimed}");
    browser.click("#create-api-key .answer .button").await;
    open_try(&browser, "list-workspaces").await;
    let listed = send(&browser, "list-workspaces").await;
    assert!(listed.starts_with("200 ") && listed.contains(&slug), "{listed}");
    open_try(&browser, "get-workspace").await;
    let got = send(&browser, "get-workspace").await;
    assert!(got.starts_with("200 ") && got.contains("x-request-id"), "{got}");
    show(&browser, "desktop-tried").await;
    // The key exists only in the page's memory.
    let stored = "return [localStorage.length, sessionStorage.length, document.cookie.length]";
    assert_eq!(browser.run(stored).await, json!([0, 0, 0]));
    assert!(!browser.run("return location.href").await.as_str().unwrap().contains("ward_"));
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.go(&format!("{}/v1/docs", server.url())).await;
    browser.until("return document.querySelector('article.card h3')").await;
    assert_eq!(browser.run("return document.getElementById('key').value").await, "");
    open_try(&browser, "list-workspaces").await;
    assert!(send(&browser, "list-workspaces").await.contains("Enter a key"));
    browser.close().await;
});

sqlite_only!(the_search_ranks_and_says_when_it_finds_nothing, async || {
    let server = Server::start().await;
    let Some(browser) = Browser::open(1280, 900).await else { return };
    browser.go(&format!("{}/v1/docs", server.url())).await;
    browser.until("return document.querySelector('article.card h3')").await;
    let shown = "return [...document.querySelectorAll('article.card[aria-labelledby]')].filter((one) => one.checkVisibility()).map((one) => one.id)";
    let all = browser.run(shown).await;
    for (words, first) in [
        ("rotate", "rotate-api-key"),
        ("list members", "list-members"),
        ("claim", "create-api-key"),
        ("get-workspace", "get-workspace"),
        ("  Archive ", "archive-workspace"),
    ] {
        browser.fill("#search", words).await;
        let found = browser.run(shown).await;
        let found = found.as_array().unwrap();
        assert!(found.len() < all.as_array().unwrap().len(), "{words}");
        if words != "claim" {
            assert_eq!(found[0], first, "{words}: {found:?}");
        }
        assert!(found.iter().any(|one| one == first), "{words}: {found:?}");
        let links = "return [...document.querySelectorAll('nav li a')].filter((one) => one.checkVisibility()).map((one) => one.hash.slice(1))";
        let links = browser.run(links).await;
        assert_eq!(&links.as_array().unwrap()[..found.len()], &found[..], "the list is in the same order");
    }
    show(&browser, "desktop-search").await;
    browser.fill("#search", "xylophone").await;
    assert_eq!(browser.run(shown).await, json!([]));
    let said = browser.run("return document.querySelector('main').innerText").await;
    assert!(said.as_str().unwrap().contains("No operation matches “xylophone”"), "{said}");
    assert_eq!(
        browser.run("return document.getElementById('count').innerText").await,
        "No operation matches."
    );
    show(&browser, "desktop-nothing").await;
    browser.click(".empty .button").await;
    assert_eq!(browser.run(shown).await, all);

    // A link shows its operation even if the search hides it.
    browser.fill("#search", "twilio").await;
    assert!(!is_visible(&browser, "archive-workspace").await);
    browser.run("location.hash = '#archive-workspace'").await;
    browser.until("return document.getElementById('archive-workspace').checkVisibility()").await;
    assert_eq!(browser.run("return document.getElementById('search').value").await, "");
    browser.fill("#search", "twilio").await;
    browser.run("document.querySelector('#set-twilio a[href=\"#errors\"]').click()").await;
    browser.until("return document.getElementById('errors').checkVisibility()").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.close().await;
});

sqlite_only!(the_page_fits_a_phone, async || {
    let server = Server::with(|config| config.public_url = Some("https://example.com/ward".to_owned())).await;
    let Some(browser) = Browser::open(390, 844).await else { return };
    browser.go(&format!("{}/ward/v1/docs", server.url())).await;
    browser.until("return document.querySelector('article.card h3')").await;
    show(&browser, "phone-top").await;
    let fits = "return document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.run(fits).await, true);
    assert_eq!(browser.run("return document.getElementById('nav').checkVisibility()").await, false);
    browser.click("#menu").await;
    assert_eq!(browser.run("return document.getElementById('nav').checkVisibility()").await, true);
    show(&browser, "phone-menu").await;
    browser.click("nav a[href='#create-workspace']").await;
    assert_eq!(browser.run("return document.getElementById('nav').checkVisibility()").await, false);
    open_try(&browser, "create-workspace").await;
    let body = json!({ "slug": fresh_slug(), "name": "From a phone", "environment": "development" });
    browser.fill("#try-create-workspace-body", &body.to_string()).await;
    let made = send(&browser, "create-workspace").await;
    assert!(made.starts_with("201 "), "under the prefix as well: {made}");
    show(&browser, "phone-tried").await;
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true })").await;
    assert_eq!(browser.run(fits).await, true, "with everything open");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.close().await;
});
