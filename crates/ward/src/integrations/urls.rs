//! The URLs in stored configurations.

use serde::Deserialize;
use ward_db::{Error, Json};

/// The fields of an `AuthConfig` that hold URLs.
#[derive(Deserialize)]
struct Auth {
    token_url: Option<String>,
}

/// The fields of an endpoint that hold URLs.
#[derive(Deserialize)]
struct Endpoint {
    base_url: Option<String>,
    auth: Option<Auth>,
}

/// The fields of an MCP server's configuration that hold URLs.
#[derive(Deserialize)]
struct Mcp {
    mcp_url: Option<String>,
}

/// The parts of an integration's configuration that may hold further URLs.
pub(super) struct Parts {
    pub auth: Option<Json>,
    pub endpoints: Json,
    pub mcp: Option<Json>,
}

const PLAIN: &str = "http://";

/// Whether this URL is called without TLS.
pub(super) fn is_plain(url: &str) -> bool {
    url.get(..PLAIN.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(PLAIN))
}

impl Parts {
    /// Whether one of the URLs that are called is called without TLS. A text without `http://` is not parsed: hardly any has
    /// it, and configurations are long.
    pub(super) fn any_is_plain(&self) -> Result<bool, Error> {
        Ok(self.auth_is_plain()? || self.an_endpoint_is_plain()? || self.mcp_is_plain()?)
    }

    fn auth_is_plain(&self) -> Result<bool, Error> {
        let auth: Option<Auth> = self.auth.as_ref().map_or(Ok(None), suspect)?;
        Ok(auth.as_ref().is_some_and(Auth::is_plain))
    }

    fn an_endpoint_is_plain(&self) -> Result<bool, Error> {
        let endpoints: Option<Vec<Endpoint>> = suspect(&self.endpoints)?;
        Ok(endpoints.iter().flatten().any(|endpoint| {
            endpoint.base_url.as_deref().is_some_and(is_plain)
                || endpoint.auth.as_ref().is_some_and(Auth::is_plain)
        }))
    }

    fn mcp_is_plain(&self) -> Result<bool, Error> {
        let mcp: Option<Mcp> = self.mcp.as_ref().map_or(Ok(None), suspect)?;
        Ok(mcp.and_then(|mcp| mcp.mcp_url).as_deref().is_some_and(is_plain))
    }
}

impl Auth {
    fn is_plain(&self) -> bool {
        self.token_url.as_deref().is_some_and(is_plain)
    }
}

/// The parsed value of the text, if the text contains `http://`.
fn suspect<'de, T: Deserialize<'de>>(Json(text): &'de Json) -> Result<Option<T>, Error> {
    let suspect =
        text.as_bytes().windows(PLAIN.len()).any(|part| part.eq_ignore_ascii_case(PLAIN.as_bytes()));
    if suspect { serde_json::from_str(text).map(Some).map_err(Error::unreadable) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Json {
        Json(text.to_owned())
    }

    #[test]
    fn only_urls_that_are_called_count() {
        for (auth, endpoints, mcp, plain) in [
            ("null", "[]", "null", false),
            (r#"{"token_url": "https://a/t"}"#, "[]", "null", false),
            (r#"{"token_url": "HTTP://a/t"}"#, "[]", "null", true),
            (r#"{"assertion_audience": "http://a"}"#, "[]", "null", false),
            ("null", r#"[{"base_url": null}, {"base_url": "http://a"}]"#, "null", true),
            ("null", r#"[{"auth": {"token_url": "http://a"}}]"#, "null", true),
            (
                "null",
                r#"[{"description": "http://a", "input_schema": {"base_url": "http://a"}}]"#,
                "null",
                false,
            ),
            ("null", "[]", r#"{"mcp_url": "http://a"}"#, true),
            ("null", "[]", r#"{"mcp_url": "https://a", "mcp_args": ["http://a"]}"#, false),
        ] {
            let parts = Parts {
                auth: (auth != "null").then(|| json(auth)),
                endpoints: json(endpoints),
                mcp: (mcp != "null").then(|| json(mcp)),
            };
            assert_eq!(parts.any_is_plain().unwrap(), plain, "{auth} {endpoints} {mcp}");
        }
    }
}
