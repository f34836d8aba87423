//! The product as the console uses it: its key for the cookie, its clock, its random bits and its settings.
//!
//! No other file of this crate names the product, and this one does not name its database.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use ward::app::App;
use ward::config::Bootstrap;
use ward_server::Peer;
use zeroize::Zeroizing;

/// The associated data of a sealed session. A value that was sealed for anything else does not open as a session.
const PURPOSE: &str = "console session";

/// The product, as far as the console knows it.
pub struct Host {
    app: Arc<App>,
}

impl Host {
    pub const fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    /// Seals a session for a cookie. `None`: the cipher refused, or there is no key.
    pub fn seal(&self, plain: &[u8]) -> Option<String> {
        self.app.vault.seal(plain, PURPOSE).ok().map(|sealed| URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens a session from a cookie. `None`: it was not sealed here, or not for this purpose.
    pub fn open(&self, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        self.app.vault.open(&sealed, PURPOSE).ok()
    }

    /// The present of the product's clock, in microseconds since 1970.
    pub fn now(&self) -> i64 {
        self.app.clock.now().micros()
    }

    /// A random value of 32 letters and digits, 192 bits. `None`: the system has no random bits.
    pub fn random() -> Option<String> {
        let mut bytes = [0; 24];
        ward::random::fill(&mut bytes).ok()?;
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// An id for a request and for all requests that it makes of the API.
    pub fn request_id() -> String {
        ward::random::request_id().to_string()
    }

    /// The path before every path of the product. Empty if there is none.
    pub fn path_prefix(&self) -> &str {
        self.app.config.path_prefix()
    }

    /// The origin at which visitors reach the product, if the settings say so.
    pub fn public_origin(&self) -> Option<&str> {
        let url = self.app.config.public_url.as_deref()?;
        let host_at = url.find("://")? + 3;
        let end = url[host_at..].find('/').map_or(url.len(), |at| host_at + at);
        Some(&url[..end])
    }

    /// Whether visitors come by https, so that the cookie may ask for it.
    pub fn is_https(&self) -> bool {
        self.app.config.tls.is_some()
            || self.public_origin().is_some_and(|origin| origin.starts_with("https://"))
    }

    /// The URL of the API for commands that a person copies, from the settings or else from this request.
    pub fn api_url(&self, host: &str) -> String {
        self.app.config.public_url.clone().unwrap_or_else(|| {
            let scheme = if self.is_https() { "https" } else { "http" };
            format!("{scheme}://{host}")
        })
    }

    /// The callers that may create a workspace without a key.
    pub fn bootstrap(&self) -> Start {
        match self.app.config.bootstrap {
            Bootstrap::Open => Start::Open,
            Bootstrap::Token(_) => Start::Token,
            Bootstrap::Closed => Start::Closed,
        }
    }

    /// Gives a request of the console the address of the visitor's connection.
    pub fn pass_peer(from: &Parts, to: &mut http::Extensions) {
        if let Some(peer) = from.extensions.get::<Peer>() {
            to.insert(*peer);
        }
    }
}

/// The setting for creating a workspace without a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Open,
    /// Only callers with the operator's token may create one.
    Token,
    Closed,
}
