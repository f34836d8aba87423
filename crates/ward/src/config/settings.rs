//! The one table of settings. Flags, environment variables, file keys and `docs/operate/configuration.md` are
//! derived from it.

mod exports;
mod outbound;
mod platform;
mod quotas;

use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use super::draft::BootstrapMode;
use super::issuers::{IssuerConfig, issuers, show_issuers};
use super::setting::{HIDDEN, HOUR, SECOND, Setting, TENTH, key_bytes, path};
use super::value::{
    self, Read, choice, duration, number, rate, show_duration, show_list, show_rate, show_size, size,
};
use super::{Bootstrap, LogFormat, MasterKey, RatesMode};
use crate::text::pasted;

/// A setting that fills one field of the configuration and does not depend on others.
macro_rules! plain {
    ($chapter:literal, $key:literal, $form:literal, $($place:ident).+, $read:expr, $show:expr, $help:literal) => {
        Setting {
            key: $key,
            chapter: $chapter,
            form: $form,
            help: $help,
            secret: false,
            apply: |draft, text| {
                let read: fn(&str) -> Read<_> = $read;
                draft.config.$($place).+ = read(text)?;
                Ok(())
            },
            show: |config| ($show)(config.$($place).+.clone()),
        }
    };
}

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    plain!(
        "Serving",
        "listen",
        "ADDRESS",
        listen,
        value::address,
        |it: SocketAddr| it.to_string(),
        "Address and port of the API. Port 0 picks a free port, which start-up prints."
    ),
    plain!(
        "Serving",
        "database",
        "URL",
        database,
        value::database,
        |it: String| without_password(&it),
        "The database: `sqlite:PATH`, created when it is not there, or a `postgres://` URL."
    ),
    plain!(
        "Serving",
        "database_connections",
        "auto|COUNT",
        database_connections,
        |it| if it.trim() == "auto" { Ok(None) } else { number(it, 1..=10_000).map(Some) },
        |it: Option<usize>| it.map_or_else(|| "auto".to_owned(), |count| count.to_string()),
        "Upper bound of connections to PostgreSQL; 4 for long reads come on top. `auto`: four per core, at least 16. Ward uses two per core (at least 4) at once, and the others while requests wait."
    ),
    plain!(
        "Serving",
        "public_url",
        "URL",
        public_url,
        |it| value::public_url(it).map(Some),
        Option::unwrap_or_default,
        "Scheme and authority under which clients reach Ward behind a proxy, with the path prefix that the proxy has for Ward, \
         if any. Ward answers with and without the prefix."
    ),
    Setting {
        key: "tls_cert",
        chapter: "Serving",
        form: "FILE",
        help: "PEM file of the listener's certificate chain, leaf first. Needs `tls_key`.",
        secret: false,
        apply: |draft, text| {
            draft.tls_cert = Some(path(text)?);
            Ok(())
        },
        show: |config| {
            config.tls.as_ref().map(|files| files.certificate.display().to_string()).unwrap_or_default()
        },
    },
    Setting {
        key: "tls_key",
        chapter: "Serving",
        form: "FILE",
        help: "PEM file of the listener's private key, readable by its owner only. Needs `tls_cert`.",
        secret: false,
        apply: |draft, text| {
            draft.tls_key = Some(path(text)?);
            Ok(())
        },
        show: |config| config.tls.as_ref().map(|files| files.key.display().to_string()).unwrap_or_default(),
    },
    plain!(
        "Serving",
        "trusted_proxies",
        "NETWORKS",
        trusted_proxies,
        value::networks,
        |it: Vec<_>| show_list(&it),
        "Networks of proxies whose `x-forwarded-for` is trusted, comma-separated. They have no limit per address."
    ),
    plain!(
        "Serving",
        "cors_origins",
        "ORIGINS",
        cors_origins,
        value::origins,
        |it: Vec<_>| show_list(&it),
        "Origins whose pages may call the API from a browser, comma-separated. None: CORS is off."
    ),
    Setting {
        key: "metrics_listen",
        chapter: "Serving",
        form: "ADDRESS",
        help: "Address and port of `/metrics`, or `off`. If the default port is taken, Ward warns and runs without metrics; an \
               address that you set must be free.",
        secret: false,
        apply: |draft, text| {
            draft.config.metrics_listen =
                if text.trim() == "off" { None } else { Some(value::address(text)?) };
            draft.config.metrics_required = draft.config.metrics_listen.is_some();
            Ok(())
        },
        show: |config| config.metrics_listen.map_or_else(|| "off".to_owned(), |address| address.to_string()),
    },
    Setting {
        key: "bootstrap",
        chapter: "Bootstrap",
        form: "open|token|closed",
        help: "Callers that may create a workspace without a key. `open`: all. `token`: those with `bootstrap_token`. `closed`: none.",
        secret: false,
        apply: |draft, text| {
            use BootstrapMode::{Closed, Open, Token};
            draft.bootstrap = Some(choice(text, &[("open", Open), ("token", Token), ("closed", Closed)])?);
            Ok(())
        },
        show: |config| match config.bootstrap {
            Bootstrap::Open => "open".to_owned(),
            Bootstrap::Token(_) => "token".to_owned(),
            Bootstrap::Closed => "closed".to_owned(),
        },
    },
    Setting {
        key: "bootstrap_token",
        chapter: "Bootstrap",
        form: "TOKEN",
        help: "The bearer that creates workspaces under `bootstrap = \"token\"`: 22 or more printable ASCII characters.",
        secret: true,
        apply: |draft, text| {
            let text = pasted(text);
            if text.len() < 22 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("must be 22 or more printable ASCII characters without spaces".to_owned());
            }
            draft.bootstrap_token = Some(Zeroizing::new(text.to_owned()));
            Ok(())
        },
        show: |config| {
            if matches!(config.bootstrap, Bootstrap::Token(_)) { HIDDEN.to_owned() } else { String::new() }
        },
    },
    plain!(
        "Bootstrap",
        "unclaimed_lifetime",
        "TIME",
        unclaimed_lifetime,
        |it| duration(it, SECOND..=HOUR * 24 * 90),
        show_duration,
        "How long a workspace may stay unclaimed before it lapses and its slug is free again."
    ),
    plain!(
        "Bootstrap",
        "unclaimed_limit",
        "COUNT",
        unclaimed_limit,
        |it| number(it, 1..=10_000_000),
        |it: u32| it.to_string(),
        "How many workspaces may be unclaimed at once, over all replicas."
    ),
    plain!(
        "Bootstrap",
        "unclaimed_per_address",
        "COUNT",
        unclaimed_per_address,
        |it| number(it, 1..=10_000_000),
        |it: u32| it.to_string(),
        "How many of these one client address may have created (IPv6: one /64). Enforced together with the rates."
    ),
    Setting {
        key: "master_key",
        chapter: "Secrets",
        form: "BASE64",
        help: "The key under which secrets are sealed: 32 bytes in base64. Either this or `master_key_file`.",
        secret: true,
        apply: |draft, text| {
            draft.master_key = Some(key_bytes(text)?);
            Ok(())
        },
        show: |config| {
            if matches!(config.master_key, MasterKey::Given(_)) { HIDDEN.to_owned() } else { String::new() }
        },
    },
    Setting {
        key: "master_key_file",
        chapter: "Secrets",
        form: "FILE",
        help: "A file with the key under which secrets are sealed, readable by its owner only. Default: the \
               SQLite file's name with `.key`. `ward serve` creates it beside a new database if it listens on loopback only.",
        secret: false,
        apply: |draft, text| {
            draft.master_key_file = Some(path(text)?);
            Ok(())
        },
        show: |config| match &config.master_key {
            MasterKey::File { path, .. } => path.display().to_string(),
            MasterKey::Given(_) | MasterKey::Unset => String::new(),
        },
    },
    outbound::FORMER_MASTER_KEYS,
    outbound::FORMER_MASTER_KEY_FILES,
    outbound::ALLOW,
    outbound::PLAIN_HTTP,
    outbound::TIME,
    outbound::BODY_BYTES,
    outbound::CONCURRENCY,
    outbound::LANES,
    outbound::CALLS,
    outbound::CALLS_PER_WORKSPACE,
    outbound::MEMORY,
    outbound::NAME_SERVERS,
    outbound::CA_FILE,
    exports::DIR,
    exports::BUCKET,
    exports::ENDPOINT,
    exports::REGION,
    exports::ACCESS_KEY,
    exports::SECRET_KEY,
    platform::REGION,
    platform::REGION_HOSTS,
    platform::ENVIRONMENT_CHANGES,
    platform::LIST_LIMIT_MAX,
    platform::TEST_CALLER_LIMIT,
    plain!(
        "Identity",
        "issuers",
        "JSON",
        issuers,
        issuers,
        |it: Vec<IssuerConfig>| show_issuers(&it),
        "Issuers whose access tokens are accepted beside API keys: a JSON list here, `[[issuers]]` tables in the file. \
         See `docs/operate/identity.md`."
    ),
    plain!(
        "Limits",
        "body_bytes",
        "SIZE",
        limits.body_bytes,
        |it| size(it, 1024..=1 << 30),
        show_size,
        "Largest request body; beyond it 413."
    ),
    plain!(
        "Limits",
        "header_bytes",
        "SIZE",
        limits.header_bytes,
        |it| size(it, 8192..=1 << 20),
        show_size,
        "Largest request head; beyond it 431."
    ),
    plain!(
        "Limits",
        "json_depth",
        "COUNT",
        limits.json_depth,
        |it| number(it, 4..=128),
        |it: usize| it.to_string(),
        "Deepest nesting of a JSON body; beyond it 422."
    ),
    plain!(
        "Limits",
        "request_time",
        "TIME",
        limits.request_time,
        |it| duration(it, TENTH..=HOUR),
        show_duration,
        "Longest time from request head to answer; beyond it 503."
    ),
    plain!(
        "Limits",
        "header_time",
        "TIME",
        limits.header_time,
        |it| duration(it, TENTH..=HOUR),
        show_duration,
        "Longest time a client may take to send a request head, idle connections included."
    ),
    plain!(
        "Limits",
        "write_idle",
        "TIME",
        limits.write_idle,
        |it| duration(it, TENTH..=HOUR),
        show_duration,
        "Longest time that a client may leave its answer unread."
    ),
    plain!(
        "Limits",
        "connections",
        "COUNT",
        limits.connections,
        |it| number(it, 1..=1_000_000),
        |it: usize| it.to_string(),
        "Concurrent connections; beyond it 503. Each takes a file descriptor."
    ),
    plain!(
        "Limits",
        "connections_per_address",
        "COUNT",
        limits.connections_per_address,
        |it| number(it, 1..=1_000_000),
        |it: usize| it.to_string(),
        "Concurrent connections of one client address (IPv6: of one /64). At most `connections`."
    ),
    plain!(
        "Limits",
        "shutdown_time",
        "TIME",
        limits.shutdown_time,
        |it| duration(it, Duration::ZERO..=HOUR),
        show_duration,
        "How long a shutdown waits for accepted requests. A second signal ends it at once."
    ),
    Setting {
        key: "rates",
        chapter: "Rates",
        form: "auto|on|off",
        help: "Whether the rates below are enforced. `auto`: unless Ward listens on loopback only.",
        secret: false,
        apply: |draft, text| {
            use RatesMode::{Auto, Off, On};
            draft.rates = choice(text, &[("auto", Auto), ("on", On), ("off", Off)])?;
            Ok(())
        },
        show: |config| match config.rates.mode {
            RatesMode::Auto => "auto".to_owned(),
            RatesMode::On => "on".to_owned(),
            RatesMode::Off => "off".to_owned(),
        },
    },
    plain!(
        "Rates",
        "rate_failed_credentials",
        "BURST:PER_MINUTE",
        rates.failed_credentials,
        rate,
        show_rate,
        "Refused credentials per client address: the number at once, and the number that comes back per minute. \
         Valid credentials are never refused because of them."
    ),
    plain!(
        "Rates",
        "rate_failed_in_workspace",
        "BURST:PER_MINUTE",
        rates.failed_in_workspace,
        rate,
        show_rate,
        "Refused credentials for one workspace, from all addresses together."
    ),
    plain!(
        "Rates",
        "rate_bootstrap",
        "BURST:PER_MINUTE",
        rates.bootstrap,
        rate,
        show_rate,
        "Workspaces created without a key, per client address."
    ),
    plain!(
        "Rates",
        "rate_claims",
        "BURST:PER_MINUTE",
        rates.claims,
        rate,
        show_rate,
        "Failed claims of unclaimed workspaces, per client address. A claim that succeeds is never refused."
    ),
    plain!(
        "Rates",
        "rate_key_sets",
        "BURST:PER_MINUTE",
        rates.key_sets,
        rate,
        show_rate,
        "Requests of the public JWK sets of integrations, per client address."
    ),
    plain!(
        "Rates",
        "rate_addresses",
        "COUNT",
        rates.addresses,
        |it| number(it, 16..=10_000_000),
        |it: usize| it.to_string(),
        "How many client addresses or workspaces are remembered per rate; the least recently seen are forgotten first."
    ),
    quotas::KEYS,
    quotas::MEMBERS,
    quotas::OPEN_INVITATIONS,
    quotas::INTEGRATIONS,
    quotas::STORED_BYTES,
    quotas::CALLS_PER_DAY,
    quotas::REQUESTS_PER_SECOND,
    plain!(
        "Running",
        "flush_interval",
        "TIME",
        flush_interval,
        |it| duration(it, TENTH..=HOUR),
        show_duration,
        "How often last-used times and aggregated refusals are written."
    ),
    Setting {
        key: "log",
        chapter: "Running",
        form: "auto|text|json",
        help: "How log lines are written. `auto`: text on a terminal, JSON elsewhere.",
        secret: false,
        apply: |draft, text| {
            use LogFormat::{Auto, Json, Text};
            draft.config.log = choice(text, &[("auto", Auto), ("text", Text), ("json", Json)])?;
            Ok(())
        },
        show: |config| format!("{:?}", config.log).to_lowercase(),
    },
    Setting {
        key: "log_filter",
        chapter: "Running",
        form: "FILTER",
        help: "The logged events: a level (error, warn, info, debug, trace), or directives such as `info,ward::deliveries=debug`.",
        secret: false,
        apply: |draft, text| {
            tracing_subscriber::EnvFilter::try_new(text)
                .map_err(|_| "must be a level or directives such as info,ward=debug".to_owned())?;
            text.clone_into(&mut draft.config.log_filter);
            Ok(())
        },
        show: |config| config.log_filter.clone(),
    },
];

/// Finds a setting by its key.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// A database URL for display, without its password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let shown = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{scheme}://{name}:{HIDDEN}@{host}{path}"),
            None => url.to_owned(),
        },
        None => url.to_owned(),
    };
    // libpq also takes the password as a parameter.
    match shown.split_once("password=") {
        Some((before, after)) => {
            let end = after.find('&').unwrap_or(after.len());
            format!("{before}password={HIDDEN}{}", &after[end..])
        }
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::draft::Draft;

    #[test]
    fn every_default_reads_back_as_itself() {
        for setting in SETTINGS {
            let text = setting.default_text();
            if !text.is_empty() {
                let mut draft = Draft::default();
                (setting.apply)(&mut draft, &text)
                    .unwrap_or_else(|why| panic!("{} = {text:?} {why}", setting.key));
                assert_eq!(
                    (setting.show)(&draft.config),
                    (setting.show)(&Config::default()),
                    "{}",
                    setting.key
                );
            }
        }
    }

    #[test]
    fn keys_are_unique() {
        let mut keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), SETTINGS.len());
    }

    #[test]
    fn passwords_are_not_shown() {
        for url in [
            "postgres://ward:secret@db:5432/ward?sslmode=require",
            "postgres://ward:sec@ret@db/ward",
            "postgres://db/ward?password=secret&x=1",
        ] {
            let shown = without_password(url);
            assert!(!shown.contains("sec") && shown.contains(HIDDEN), "{shown}");
        }
        assert_eq!(without_password("sqlite:ward.db"), "sqlite:ward.db");
    }
}
