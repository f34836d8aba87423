//! A real browser, controlled by the W3C's `WebDriver` standard.
//!
//! It needs `chromium` and `chromedriver`. Without them a test fails, unless `WARD_TEST_BROWSER=off` leaves it out.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// The time limit for each action of the browser.
const PATIENCE: Duration = Duration::from_mins(1);

/// A window of a browser of its own. It ends with the test.
pub struct Browser {
    client: reqwest::Client,
    session: String,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    /// Opens a window of this width and height in CSS pixels. `None`: the setting leaves browsers out.
    ///
    /// # Panics
    ///
    /// No browser is installed.
    #[expect(clippy::print_stderr, reason = "a test that is left out must be told")]
    pub async fn open(width: u32, height: u32) -> Option<Self> {
        if std::env::var("WARD_TEST_BROWSER").is_ok_and(|value| value == "off") {
            eprintln!("WARD_TEST_BROWSER=off, so no page is tested in a browser");
            return None;
        }
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver: {error}. Install chromium and chromium-driver, or set WARD_TEST_BROWSER=off")
            });
        let mut lines = BufReader::new(driver.stdout.take().expect("its output")).lines();
        let port = loop {
            let line = lines.next_line().await.expect("its output").expect("chromedriver says its port");
            let said = line.split("on port ").nth(1).filter(|_| line.contains("started successfully"));
            if let Some(port) = said {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-prefers-reduced-motion",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let metrics = json!({ "width": width, "height": height, "pixelRatio": 1.0, "touch": width < 600 });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments, "mobileEmulation": { "deviceMetrics": metrics } },
        } } });
        let driver_url = format!("http://127.0.0.1:{port}/session");
        let made = Self::ask(&client, reqwest::Method::POST, &driver_url, Some(wanted)).await;
        let id = made["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}"));
        let session = format!("{driver_url}/{id}");
        Some(Self { client, session, _driver: driver, _profile: profile })
    }

    async fn ask(client: &reqwest::Client, method: reqwest::Method, url: &str, body: Option<Value>) -> Value {
        let mut request = client.request(method, url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.expect("the driver answers");
        let (status, text) = (answer.status(), answer.text().await.expect("text"));
        let mut said: Value = serde_json::from_str(&text).expect("JSON");
        assert!(status.is_success(), "{url}: {text}");
        said["value"].take()
    }

    async fn post(&self, command: &str, body: Value) -> Value {
        let url = format!("{}/{command}", self.session);
        Self::ask(&self.client, reqwest::Method::POST, &url, Some(body)).await
    }

    /// Opens a URL in the window.
    pub async fn go(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    /// Runs a script in the page and returns its result.
    pub async fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Waits until a script returns a true value.
    ///
    /// # Panics
    ///
    /// The script does not do so in time.
    pub async fn until(&self, script: &str) -> Value {
        let began = Instant::now();
        loop {
            let value = self.run(script).await;
            if !matches!(value, Value::Null | Value::Bool(false)) && value != "" && value != 0 {
                return value;
            }
            assert!(began.elapsed() < PATIENCE, "it did not become true in time: {script}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.post("element", json!({ "using": "css selector", "value": selector })).await;
        let id = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        id.unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Clicks on an element as a person does: it must be visible and not covered.
    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.post(&format!("element/{element}/click"), json!({})).await;
    }

    /// Replaces the content of a field by typing.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.post(&format!("element/{element}/clear"), json!({})).await;
        if !text.is_empty() {
            self.post(&format!("element/{element}/value"), json!({ "text": text })).await;
        }
    }

    /// The errors in the browser's console, including violations of a page's policy.
    pub async fn errors(&self) -> Vec<String> {
        let lines = self.post("se/log", json!({ "type": "browser" })).await;
        let lines = lines.as_array().cloned().unwrap_or_default();
        lines
            .iter()
            .filter(|line| line["level"] == "SEVERE")
            .map(|line| line["message"].to_string())
            .collect()
    }

    /// A screenshot of the window: PNG in base64.
    pub async fn screenshot(&self) -> String {
        let url = format!("{}/screenshot", self.session);
        let shown = Self::ask(&self.client, reqwest::Method::GET, &url, None).await;
        shown.as_str().unwrap_or_default().to_owned()
    }

    /// A screenshot of the whole page, however long it is: PNG in base64.
    pub async fn screenshot_of_page(&self) -> String {
        let params = json!({ "captureBeyondViewport": true, "format": "png" });
        let shown =
            self.post("goog/cdp/execute", json!({ "cmd": "Page.captureScreenshot", "params": params })).await;
        shown["data"].as_str().unwrap_or_default().to_owned()
    }

    /// Lets pages believe that the person prefers dark colours, or light ones.
    pub async fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let params = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.post("goog/cdp/execute", json!({ "cmd": "Emulation.setEmulatedMedia", "params": params })).await;
    }

    /// Ends the session and its browser.
    pub async fn close(self) {
        Self::ask(&self.client, reqwest::Method::DELETE, &self.session, None).await;
    }
}
