//! The local identity provider of `examples/identity-provider` for tests: a published `OpenID` Connect
//! server, and the scripts for a developer's laptop.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::AUDIENCE;

/// The first start installs the provider, which needs a network and takes time.
const PATIENCE: Duration = Duration::from_secs(40);
const TRIES: u32 = 3;

/// A running provider, which ends with this value.
pub struct LocalProvider {
    /// The provider's identifier, which is its base URL.
    pub issuer: String,
    program: Child,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/identity-provider").join(name)
}

impl LocalProvider {
    /// Starts the provider on a free port. `None` if `WARD_TEST_IDENTITY_PROVIDER=off` leaves it out, with a
    /// message.
    ///
    /// # Panics
    ///
    /// The provider does not start. Its output names the missing programs.
    pub async fn start() -> Option<Self> {
        if std::env::var("WARD_TEST_IDENTITY_PROVIDER").is_ok_and(|wanted| wanted == "off") {
            #[expect(clippy::print_stderr, reason = "what a test left out must be told")]
            {
                eprintln!("LEFT OUT: no test signed in at a real identity provider.");
            }
            return None;
        }
        // On a busy machine it twice printed nothing for three minutes, for an unknown reason. A second start
        // is cheap.
        for _ in 0..TRIES {
            if let Some(started) = Self::try_start().await {
                return Some(started);
            }
        }
        panic!(
            "the local identity provider did not start; the lines above say what is missing (Node.js with npm, and once \
             the npm registry). WARD_TEST_IDENTITY_PROVIDER=off leaves it out"
        );
    }

    async fn try_start() -> Option<Self> {
        let mut program = Command::new(script("start"))
            .args(["--port", "0", "--audience", AUDIENCE])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("examples/identity-provider/start can be run");
        let mut lines = BufReader::new(program.stdout.take().expect("its output")).lines();
        let told = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(issuer) = line.strip_prefix("issuer: ") {
                    return Some(issuer.to_owned());
                }
            }
            None
        };
        let issuer = tokio::time::timeout(PATIENCE, told).await.ok().flatten()?;
        // A program whose output is not read ends at its next line.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self { issuer, program })
    }

    /// Signs a person in with code and PKCE, and returns the access token.
    pub async fn sign_in(&self, login: &str) -> String {
        let signed_in = Command::new(script("sign-in"))
            .args(["--issuer", &self.issuer, "--audience", AUDIENCE, "--as", login])
            .stdin(Stdio::null())
            .output()
            .await
            .expect("examples/identity-provider/sign-in can be run");
        let said = String::from_utf8_lossy(&signed_in.stderr).into_owned();
        assert!(signed_in.status.success(), "the sign-in failed: {said}");
        String::from_utf8(signed_in.stdout).expect("a token").trim().to_owned()
    }

    /// A token of the provider's machine client, by client credentials.
    pub async fn machine(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let answer = client
            .post(format!("{}/token", self.issuer))
            .basic_auth("ward-machine", Some("not-a-secret"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials")
            .send()
            .await
            .expect("an answer");
        let told: serde_json::Value = answer.json().await.expect("JSON");
        told["access_token"].as_str().expect("a token").to_owned()
    }

    /// Ends the provider, like an outage.
    pub async fn stop(mut self) {
        self.program.kill().await.expect("it ends");
    }
}
