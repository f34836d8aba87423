//! The message of `ward serve` when it is ready: the addresses, and how to create the first workspace.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};
use ward::access::Role;
use ward::api_keys::ceilings::{Ceilings, LONGEST};
use ward::config::{Bootstrap, Config};

use crate::health::reachable;

/// The text for standard output. `listen` and `metrics` are the actual addresses of the listeners.
pub fn text(config: &Config, listen: SocketAddr, metrics: Option<SocketAddr>) -> String {
    let base = base_url(config, listen);
    let metrics = metrics.map_or_else(|| "off".to_owned(), |address| format!("http://{address}/metrics"));
    let mut text = format!(
        "Ward {} listens on {listen}.\n\n  \
           API       {base}/v1\n  \
           Document  {base}/v1/openapi.json\n  \
           Docs      {base}/v1/docs\n  \
           Console   {base}/console\n  \
           Metrics   {metrics}\n\n",
        env!("CARGO_PKG_VERSION")
    );
    if !config.rates.enforced {
        let why = if listen.ip().is_loopback() { "only this machine can connect" } else { "by setting" };
        let _ = write!(text, "Rates per client address are off: {why}. WARD_RATES=on enforces them.\n\n");
    }
    text.push_str(&getting_in(config, &base));
    text
}

/// The same information for scripts, on one line.
pub fn json(config: &Config, listen: SocketAddr, metrics: Option<SocketAddr>) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "listen": listen.to_string(),
        "api": format!("{}/v1", base_url(config, listen)),
        "metrics": metrics.map(|address| format!("http://{address}/metrics")),
        "rates": config.rates.enforced,
    })
}

/// The URL at which clients reach the API, without a slash at the end.
fn base_url(config: &Config, listen: SocketAddr) -> String {
    config.public_url.clone().unwrap_or_else(|| {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", reachable(listen))
    })
}

/// Instructions for the first workspace. The lines need a POSIX shell, curl and sed; the second one uses the
/// result of the first.
fn getting_in(config: &Config, base: &str) -> String {
    let bearer = match config.bootstrap {
        Bootstrap::Open => "",
        Bootstrap::Token(_) => "-H \"authorization: Bearer $WARD_BOOTSTRAP_TOKEN\" ",
        Bootstrap::Closed => {
            return "Workspaces cannot be created without a key (bootstrap is closed). The operator creates the first one:\n\n  \
                    ward workspace create demo --name Demo\n  \
                    ward key issue demo --role owner --name first-key\n"
                .to_owned();
        }
    };
    // The time makes the slug new for every paste: claimed slugs are taken for ever.
    let create = format!(
        "WORKSPACE_ID=$(curl -fsS {base}/v1/workspaces {bearer}-H 'content-type: application/json' \
         -d '{{\"slug\":\"demo-'$(date +%s)'\",\"name\":\"Demo\",\"environment\":\"development\"}}' \
         | sed -n 's/.*\"id\": *\"\\([^\"]*\\)\".*/\\1/p')"
    );
    let ceilings = Ceilings::of_installation(&config.key_ceilings, "development");
    let days = ceilings.of(Role::Owner).unwrap_or(LONGEST);
    let claim = format!(
        "curl -fsS {base}/v1/$WORKSPACE_ID/api-keys -H 'content-type: application/json' \
         -d '{{\"name\":\"first key\",\"duration_days\":{days}}}'"
    );
    format!(
        "Create a workspace, then claim its owner key, which is shown only this once:\n\n  {create}\n  {claim}\n"
    )
}

#[cfg(test)]
mod tests {
    use ward::api_keys::ceilings::Ceiling;

    use super::*;

    fn at(listen: &str, config: &Config) -> String {
        text(config, listen.parse().unwrap(), None)
    }

    #[test]
    fn addresses_can_be_followed() {
        let text = at("0.0.0.0:81", &Config::default());
        assert!(text.contains("API       http://127.0.0.1:81/v1\n"), "{text}");
        let public = Config { public_url: Some("https://ward.example.com".to_owned()), ..Config::default() };
        let text = at("[::]:81", &public);
        assert!(text.contains("Docs      https://ward.example.com/v1/docs\n"), "{text}");
        assert!(text.contains("curl -fsS https://ward.example.com/v1/workspaces -H"), "{text}");
    }

    #[test]
    fn the_first_key_lives_as_long_as_its_ceiling_allows() {
        let ceiling = Ceiling { environment: None, role: Role::Owner, days: 7 };
        let bounded = Config { key_ceilings: [ceiling].into(), ..Config::default() };
        for (config, days) in [(Config::default(), 90), (bounded, 7)] {
            let text = at("127.0.0.1:81", &config);
            assert!(text.contains(&format!("\"duration_days\":{days}}}'")), "{text}");
        }
    }

    #[test]
    fn getting_in_follows_bootstrap() {
        let token = Bootstrap::Token("a-token-that-nobody-may-see".to_owned().into());
        let text = at("127.0.0.1:81", &Config { bootstrap: token, ..Config::default() });
        assert!(text.contains("Bearer $WARD_BOOTSTRAP_TOKEN") && !text.contains("nobody-may-see"), "{text}");
        let text = at("127.0.0.1:81", &Config { bootstrap: Bootstrap::Closed, ..Config::default() });
        assert!(!text.contains("curl") && text.contains("bootstrap is closed"), "{text}");
        assert!(
            text.contains("ward workspace create demo") && text.contains("ward key issue demo --role"),
            "{text}"
        );
    }
}
