//! The request to another service that a proxy asks `authorize` about, so that a DPoP proof can be compared with it.
//!
//! The proof of the client names the method and the URL of the service, and only the proxy knows these. The sender that states them
//! decides what a proof is worth. So they count only from an address of `trusted_proxies`, and only for the services of
//! `gate_origins`: a proxy often takes the host from the client, and a proof for another host must open nothing here.

use http::{HeaderName, HeaderValue};
use ward_server::Peer;

use crate::address::is_within;
use crate::http::Request;
use crate::identity::proof::canonical;

/// The headers of a question, as Traefik's `forwardAuth` sends them.
const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const SCHEME: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TARGET: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The method and the URL of a request to another service.
pub struct OriginalRequest<'r> {
    pub method: &'r str,
    /// The URL of that request, as [`canonical`] writes it.
    pub url: String,
}

/// The request that this question is about. `None`: the question states none, so a proof is about the question itself.
///
/// # Errors
/// The rest of the sentence "The DPoP proof is not valid: …".
pub fn stated(request: &Request) -> Result<Option<OriginalRequest<'_>>, &'static str> {
    let states = request.header(&METHOD).is_some() || request.header(&TARGET).is_some();
    if request.operation.id != "authorize" || !states {
        return Ok(None);
    }
    let config = &request.app.config;
    let peer = request.parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    if !peer.is_some_and(|peer| is_within(peer, &config.trusted_proxies)) {
        return Err("the sender is not in `trusted_proxies`, so it cannot state the request to a service.");
    }
    let text = |name: &HeaderName| request.only_header(name).map(HeaderValue::to_str)?.ok();
    let parts = (text(&METHOD), text(&SCHEME), text(&HOST), text(&TARGET));
    let (Some(method), Some(scheme), Some(host), Some(target)) = parts else {
        return Err("the proxy must state the service's request once in each of `x-forwarded-method`, \
                    `x-forwarded-proto`, `x-forwarded-host` and `x-forwarded-uri`.");
    };
    let url = url(scheme, host, target).ok_or("the proxy states no URL of HTTP.")?;
    let mut origins = config.gate_origins.iter().filter_map(|origin| canonical(origin));
    if !origins.any(|origin| url.starts_with(&origin)) {
        return Err("the service is not in `gate_origins`. The operator of this server must add it.");
    }
    Ok(Some(OriginalRequest { method, url }))
}

/// The URL of these parts. `None` if one of them could change the meaning of another: a host with a slash would move the path.
fn url(scheme: &str, host: &str, target: &str) -> Option<String> {
    let is_host = !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    let is_path = target.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\\".contains(&byte));
    let whole = is_host && is_path && target.starts_with('/') && ["http", "https"].contains(&scheme);
    whole.then(|| canonical(&format!("{scheme}://{host}{target}"))).flatten()
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn no_part_changes_another() {
        let whole = |scheme, host, target| url(scheme, host, target);
        let plain = Some("https://api.example:443/a/b".to_owned());
        assert_eq!(whole("https", "api.example", "/a/b"), plain);
        assert_eq!(whole("https", "API.example:443", "/a/./b?c=/d"), plain);
        assert_eq!(whole("http", "[::1]:9000", "/").as_deref(), Some("http://[::1]:9000/"));
        for (scheme, host, target) in [
            ("https", "api.example/a?", "/b"),
            ("https", "api.example#", "/b"),
            ("https", "api.example\\", "/b"),
            ("https", "user@api.example", "/b"),
            ("https", "api.example, other.example", "/b"),
            ("https", "", "/b"),
            ("https", "api.example", "b"),
            ("https", "api.example", ""),
            ("https", "api.example", "https://other.example/b"),
            ("https", "api.example", "/b#c"),
            ("https", "api.example", "/a\\b"),
            ("https", "api.example", "/a\tb"),
            ("https", "api.example", "/a b"),
            ("HTTPS", "api.example", "/b"),
            ("ftp", "api.example", "/b"),
            ("https://other.example/?", "api.example", "/b"),
        ] {
            assert_eq!(whole(scheme, host, target), None, "{scheme} {host} {target}");
        }
    }
}
