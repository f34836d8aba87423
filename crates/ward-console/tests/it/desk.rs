//! A server with its console, and a person in front of it.

use serde_json::Value;
use ward::config::Config;
use ward_test::Server;
use ward_test::browser::Browser;

/// A server with the console and the default settings.
pub async fn server() -> Server {
    server_with(|_| {}).await
}

/// A server with the console and settings that the test changes.
pub async fn server_with(choose: impl FnOnce(&mut Config)) -> Server {
    Server::beside(choose, ward_console::beside).await
}

/// A person at a browser, with a session after the sign-in.
pub struct Person {
    pub browser: Browser,
    url: String,
}

impl Person {
    /// A person with a desktop window. `None`: the setting leaves browsers out.
    pub async fn at(server: &Server) -> Option<Self> {
        Self::with_window(server, 1280, 900).await
    }

    pub async fn with_window(server: &Server, width: u32, height: u32) -> Option<Self> {
        let browser = Browser::open(width, height).await?;
        Some(Self { browser, url: format!("{}/console", server.url()) })
    }

    /// Opens a page of the console.
    pub async fn go(&self, path: &str) {
        self.browser.go(&format!("{}{path}", self.url)).await;
    }

    /// Follows the link or presses the button with this text, and waits for the next page.
    pub async fn press(&self, text: &str) {
        let mark = "window.before = true; \
             const said = (one) => one.textContent.replace(/\\s+/g, ' ').trim(); \
             const found = [...document.querySelectorAll('main a, main button, header a, header button, nav a')] \
               .filter((one) => one.checkVisibility() && said(one) === TEXT); \
             if (found.length === 0) return 'nothing: ' + document.body.innerText; \
             document.querySelectorAll('[data-press]').forEach((one) => one.removeAttribute('data-press')); \
             found[0].setAttribute('data-press', ''); return 'found';";
        let script = mark.replace("TEXT", &Value::from(text).to_string());
        assert_eq!(self.browser.run(&script).await, "found", "{text}");
        self.browser.click("[data-press]").await;
        self.browser.until("return window.before === undefined && document.readyState === 'complete'").await;
    }

    /// The visible text of the page's content.
    pub async fn text(&self) -> String {
        self.browser.run("return document.querySelector('main').innerText").await.as_str().unwrap().to_owned()
    }

    /// Checks that the page shows these words.
    pub async fn sees(&self, words: &str) {
        let text = self.text().await;
        assert!(text.contains(words), "{words:?} is not shown:\n{text}");
    }

    pub async fn fill(&self, name: &str, text: &str) {
        self.browser.fill(&format!("[name='{name}']:not([type=hidden])"), text).await;
    }

    /// Chooses an option of a list.
    pub async fn choose(&self, name: &str, value: &str) {
        self.browser.click(&format!("select[name='{name}'] option[value='{value}']")).await;
    }

    pub async fn sign_in(&self, key: &str) {
        self.go("/sign-in").await;
        self.fill("key", key).await;
        self.press("Sign in").await;
    }

    /// The path of the open page below the console's.
    pub async fn path(&self) -> String {
        let path = self.browser.run("return location.pathname").await;
        path.as_str().unwrap().trim_start_matches("/console").to_owned()
    }

    /// Ends the visit. Neither the page's policy nor a script may have complained.
    pub async fn done(self) {
        let errors = self.browser.errors().await;
        // The browser lists every page with an error status as an error.
        let errors: Vec<_> =
            errors.iter().filter(|error| !error.contains("Failed to load resource")).collect();
        assert!(errors.is_empty(), "{errors:?}");
        self.browser.close().await;
    }
}
