//! The visitor's session: a sealed cookie, and the checks that a form was sent from a page of the console.

use std::time::Duration;

use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::console::Console;
use crate::host::Host;

const NAME: &str = "ward_console";
/// The length of a session, with or without activity.
const LIFETIME: Duration = Duration::from_hours(12);
/// Browsers drop a cookie above 4,096 bytes, its name and attributes included.
const COOKIE_BYTES: usize = 3_800;
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The sealed content of the cookie.
#[derive(Serialize, Deserialize)]
pub struct Session {
    /// The visitor's API key or token.
    pub bearer: String,
    /// The token of every form of this session.
    pub csrf: String,
    /// The end of the session, in microseconds since 1970.
    until: i64,
}

impl Session {
    /// A session that begins now. `None`: the system has no random bits.
    pub fn begin(console: &Console, bearer: String) -> Option<Self> {
        let lifetime = i64::try_from(LIFETIME.as_micros()).unwrap_or(i64::MAX);
        Some(Self { bearer, csrf: Host::random()?, until: console.host.now().saturating_add(lifetime) })
    }

    /// The session of a request, if its cookie opens and has not ended.
    pub fn of(console: &Console, headers: &HeaderMap) -> Option<Self> {
        let sealed = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))?;
        let opened = console.host.open(sealed)?;
        let session: Self = serde_json::from_slice(&opened).ok()?;
        (session.until > console.host.now()).then_some(session)
    }

    /// The value of `set-cookie` that keeps this session. `None`: it is too long for a cookie, or there is no key.
    pub fn cookie(&self, console: &Console) -> Option<String> {
        let sealed = console.host.seal(&serde_json::to_vec(self).ok()?)?;
        (sealed.len() <= COOKIE_BYTES)
            .then(|| format!("{NAME}={sealed}; {}; Max-Age={}", attributes(console), LIFETIME.as_secs()))
    }

    /// Whether a form carries this session's token.
    pub fn owns(&self, token: &str) -> bool {
        self.csrf.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

/// The value of `set-cookie` that ends every session of this browser.
pub fn ending(console: &Console) -> String {
    format!("{NAME}=; {}; Max-Age=0", attributes(console))
}

fn attributes(console: &Console) -> String {
    let secure = if console.host.is_https() { "; Secure" } else { "" };
    format!("Path={}; HttpOnly; SameSite=Strict{secure}", console.base)
}

/// Whether a form was sent by a page of this origin. Browsers send at least one of both headers with a form, and no page can
/// choose their values.
pub fn is_own(console: &Console, headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(&FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(origin) = text(&ORIGIN) else { return false };
    // A proxy may change the host, so the setting counts as well.
    let to_host = text(&HOST).is_some_and(|host| {
        origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host))
    });
    to_host || console.host.public_origin().is_some_and(|public| origin.eq_ignore_ascii_case(public))
}
