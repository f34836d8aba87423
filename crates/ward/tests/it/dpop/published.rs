//! Published programs: tokens that oidc-provider binds to keys, and proofs of two client libraries.
//!
//! npm installs them at pinned versions, on the first run. Where that is not possible the test says that it is LEFT OUT;
//! `WARD_TEST_SERVERS=require` makes that a failure.

use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::Mutex;
use ward::config::issuers::IssuerConfig;
use ward_test::{AUDIENCE, LocalProvider, Server, both};

use super::credential;
use crate::support::{folder_with, left_out, npm_installs};

/// Runs the clients against a server, and returns what they print.
async fn run(provider: &LocalProvider, nonces: bool) -> Option<String> {
    static INSTALLING: Mutex<()> = Mutex::const_new(());
    let one_at_a_time = INSTALLING.lock().await;
    let folder = folder_with("dpop", "dpop", &["package.json", "package-lock.json", "client.mjs"]);
    let installed = folder.join("node_modules/oauth4webapi/package.json").exists();
    if !installed && !npm_installs(&folder).await {
        left_out("no published DPoP client: npm ci does not install it, or WARD_TEST_SERVERS=off");
        return None;
    }
    drop(one_at_a_time);
    let issuer = IssuerConfig::new(&provider.issuer, AUDIENCE);
    let server = Server::with(|config| {
        config.issuers = vec![issuer];
        config.dpop_nonces = nonces;
    })
    .await;
    let tenant = server.tenant("acme").await;
    let keys = format!("{}{}", server.url(), tenant.path("/api-keys"));
    let mut client = Command::new("node");
    client.arg("client.mjs").args([&provider.issuer, &server.url(), &keys]).arg(credential(&tenant.owner));
    client.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    let output = client.output().await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    Some(said)
}

both!(published_clients_prove_tokens_and_keys_with_and_without_nonces, threads = 2, async || {
    let Some(provider) = LocalProvider::start().await else { return };
    let Some(said) = run(&provider, false).await else { return };
    let steps = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((steps("token"), steps("key"), steps("challenged"), steps("done")), (2, 4, 0, 1), "{said}");
    let Some(said) = run(&provider, true).await else { return };
    // One challenge for each key pair of a token: later requests have a nonce.
    let steps = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((steps("token"), steps("key"), steps("done")), (2, 4, 1), "{said}");
    assert_eq!(steps("challenged"), 2, "{said}");
});
