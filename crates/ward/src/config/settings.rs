//! The one table of settings. Flags, environment variables, file keys and `docs/operate/configuration.md` are
//! derived from it.

mod forms;

use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use self::forms::{
    bucket, ceilings, filter, hosts, region, show_ceilings, show_hosts, without_password, word,
};
use super::draft::BootstrapMode;
use super::issuers::{issuers, show_issuers};
use super::leaks::{leak_report_keys, show_leak_report_keys};
use super::setting::{HIDDEN, Setting, key_bytes};
use super::value::{
    self, Choice, Count, Kind, List, Maybe, Or, ParseResult, PathKind, RateKind, Size, Text, Time, With,
    items,
};
use super::{Bootstrap, Exports, FormerKey, LogFormat, MasterKey, RatesMode};
use crate::quotas::Quota;
use crate::text::pasted;

const SECOND: Duration = Duration::from_secs(1);
const TENTH: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A setting with one place in the configuration and a kind of value: `chapter key: form => place as kind; help`.
macro_rules! plain {
    ($chapter:literal $key:ident: $form:literal => $($place:ident).+ as $kind:expr; $help:literal) => {
        custom! {
            $chapter $key: $form; $help;
            |draft, text| { draft.config.$($place).+ = $kind.read(text)?; },
            |config| $kind.show(&config.$($place).+)
        }
    };
}

/// A setting that concerns others: `chapter key: form; help; how it is read, how it is shown`.
macro_rules! custom {
    (
        $chapter:literal $key:ident: $form:literal; $help:literal;
        |$draft:ident, $text:ident| $read:block, |$config:ident| $show:expr
    ) => {
        Setting {
            key: stringify!($key),
            chapter: $chapter,
            form: $form,
            help: $help,
            secret: false,
            apply: |$draft, $text| {
                $read
                Ok(())
            },
            show: |$config| $show,
        }
    };
}

/// A setting whose value is never shown: `… , |config| whether there is one`.
macro_rules! secret {
    (
        $chapter:literal $key:ident: $form:literal; $help:literal;
        |$draft:ident, $text:ident| $read:block, |$config:ident| $is_set:expr
    ) => {
        Setting {
            secret: true,
            ..custom! {
                $chapter $key: $form; $help;
                |$draft, $text| $read, |$config| if $is_set { HIDDEN.to_owned() } else { String::new() }
            }
        }
    };
}

/// A quota's default for every workspace.
macro_rules! quota {
    ($key:ident: $quota:ident; $help:literal) => {
        custom! {
            "Quotas" $key: "COUNT"; $help;
            |draft, text| {
                let allowed = Count(0..=Quota::$quota.greatest());
                draft.config.quotas.set(Quota::$quota, allowed.read(text)?);
            },
            |config| config.quotas.of(Quota::$quota).to_string()
        }
    };
}

/// Every setting, in the order of the documentation.
pub static SETTINGS: &[Setting] = &[
    plain! { "Serving" listen: "ADDRESS" => listen as Text(value::address);
    "Address and port of the API. Port 0 picks a free port, which start-up prints." },
    plain! { "Serving" database: "URL" => database as With(value::database, |url| without_password(url));
    "The database: `sqlite:PATH`, created when it is not there, or a `postgres://` URL." },
    plain! { "Serving" database_connections: "auto|COUNT" => database_connections as Or("auto", Count(1..=10_000));
    "Upper bound of connections to PostgreSQL; 4 for long reads come on top. `auto`: four per core, at \
     least 16. Ward uses two per core (at least 4) at once, and the others while requests wait." },
    plain! { "Serving" public_url: "URL" => public_url as Maybe(Text(value::public_url));
    "Scheme and authority under which clients reach Ward behind a proxy, with the path prefix that the \
     proxy has for Ward, if any. Ward answers with and without the prefix." },
    custom! { "Serving" tls_cert: "FILE";
    "PEM file of the listener's certificate chain, leaf first. Needs `tls_key`.";
    |draft, text| { draft.tls_cert = Some(PathKind.read(text)?); },
    |config| config.tls.as_ref().map(|files| PathKind.show(&files.certificate)).unwrap_or_default() },
    custom! { "Serving" tls_key: "FILE";
    "PEM file of the listener's private key, readable by its owner only. Needs `tls_cert`.";
    |draft, text| { draft.tls_key = Some(PathKind.read(text)?); },
    |config| config.tls.as_ref().map(|files| PathKind.show(&files.key)).unwrap_or_default() },
    plain! { "Serving" trusted_proxies: "NETWORKS" => trusted_proxies as List(value::network);
    "Networks of proxies whose `x-forwarded-for` is trusted, comma-separated. They have no limit per \
     address." },
    plain! { "Serving" cors_origins: "ORIGINS" => cors_origins as List(value::origin_of_list);
    "Origins whose pages may call the API from a browser, comma-separated. None: CORS is off." },
    custom! { "Serving" metrics_listen: "ADDRESS";
    "Address and port of `/metrics`, or `off`. If the default port is taken, Ward warns and runs without \
     metrics; an address that you set must be free.";
    |draft, text| {
        draft.config.metrics_listen = METRICS.read(text)?;
        draft.config.metrics_required = draft.config.metrics_listen.is_some();
    },
    |config| METRICS.show(&config.metrics_listen) },
    custom! { "Bootstrap" bootstrap: "open|token|closed";
    "Callers that may create a workspace without a key. `open`: all. `token`: those with \
     `bootstrap_token`. `closed`: none.";
    |draft, text| { draft.bootstrap = Some(BOOTSTRAP.read(text)?); },
    |config| BOOTSTRAP.show(&match config.bootstrap {
        Bootstrap::Open => BootstrapMode::Open,
        Bootstrap::Token(_) => BootstrapMode::Token,
        Bootstrap::Closed => BootstrapMode::Closed,
    }) },
    secret! { "Bootstrap" bootstrap_token: "TOKEN";
    "The bearer that creates workspaces under `bootstrap = \"token\"`: 22 or more printable ASCII \
     characters.";
    |draft, text| {
        let text = pasted(text);
        if text.len() < 22 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("must be 22 or more printable ASCII characters without spaces".to_owned());
        }
        draft.bootstrap_token = Some(Zeroizing::new(text.to_owned()));
    },
    |config| matches!(config.bootstrap, Bootstrap::Token(_)) },
    plain! { "Bootstrap" unclaimed_lifetime: "TIME" => unclaimed_lifetime as Time(SECOND..=DAY * 90);
    "How long a workspace may stay unclaimed before it lapses and its slug is free again." },
    plain! { "Bootstrap" slug_quarantine: "TIME" => slug_quarantine as Time(DAY..=DAY * 3650);
    "How long a renamed workspace keeps its former slug. Until then, look-ups by it find the workspace, and no other \
     workspace can take it." },
    plain! { "Bootstrap" purge_after: "TIME" => purge_after as Time(DAY..=DAY * 3650);
    "How long after an archive the last owners can restore a workspace. A change concerns later archives." },
    plain! { "Bootstrap" unclaimed_limit: "COUNT" => unclaimed_limit as Count(1..=10_000_000);
    "How many workspaces may be unclaimed at once, over all replicas." },
    plain! { "Bootstrap" unclaimed_per_address: "COUNT" => unclaimed_per_address as Count(1..=10_000_000);
    "How many of these one client address may have created (IPv6: one /64). Enforced together with the \
     rates." },
    secret! { "Secrets" master_key: "BASE64";
    "The key under which secrets are sealed: 32 bytes in base64. Either this or `master_key_file`.";
    |draft, text| { draft.master_key = Some(key_bytes(text)?); },
    |config| matches!(config.master_key, MasterKey::Given(_)) },
    custom! { "Secrets" master_key_file: "FILE";
    "A file with the key under which secrets are sealed, readable by its owner only. Default: the SQLite \
     file's name with `.key`. `ward serve` creates it beside a new database if it listens on loopback \
     only.";
    |draft, text| { draft.master_key_file = Some(PathKind.read(text)?); },
    |config| match &config.master_key {
        MasterKey::File { path, .. } => PathKind.show(path),
        MasterKey::Given(_) | MasterKey::Unset => String::new(),
    } },
    secret! { "Secrets" former_master_keys: "BASE64,...";
    "Previous keys, comma-separated, each as `master_key`. They open values that were sealed before. \
     `ward secrets rotate` makes them unnecessary.";
    |draft, text| {
        let keys: ParseResult<Vec<_>> = text.split(',').map(pasted).filter(|key| !key.is_empty()).map(|key| key_bytes(key).map(FormerKey)).collect();
        draft.config.former_master_keys =
            keys.map_err(|_| "must be keys of 32 bytes in base64, with commas between".to_owned())?;
    },
    |config| !config.former_master_keys.is_empty() },
    custom! { "Secrets" former_master_key_files: "FILES";
    "Files with previous keys, comma-separated, each as `master_key_file`.";
    |draft, text| {
        draft.config.former_master_key_files =
            items(text).map(|file| PathKind.read(file)).collect::<Result<_, _>>()?;
    },
    |config| value::joined(config.former_master_key_files.iter().map(|file| PathKind.show(file))) },
    plain! { "Outbound calls" outbound_allow: "NETWORKS" => outbound.allow as List(value::network);
    "Networks that integrations may use although they are not globally routable, comma-separated. Other \
     addresses there are refused, because tenants choose them and this server stands inside your network." },
    plain! { "Outbound calls" outbound_plain_http: "on|off" => outbound.plain_http as Choice(&[("on", true), ("off", false)]);
    "Whether integrations may be called over http without TLS, which sends their credentials in clear \
     text." },
    plain! { "Outbound calls" outbound_time: "TIME" => outbound.time as Time(TENTH..=HOUR);
    "Time limit of one call, retries and token requests included. At most the time that `request_time` \
     leaves." },
    plain! { "Outbound calls" outbound_body_bytes: "SIZE" => outbound.body_bytes as Size(1024..=1 << 26);
    "Largest answer that Ward reads; a larger one is an error of the call." },
    plain! { "Outbound calls" outbound_concurrency: "COUNT" => outbound.concurrency as Count(1..=1024);
    "Concurrent calls of one integration, on one replica." },
    plain! { "Outbound calls" delivery_lanes: "COUNT" => outbound.lanes as Count(1..=10_000);
    "Integrations whose deliveries are sent at once, on one replica; each has up to 4 connections. One \
     workspace gets at most a sixteenth of them, and slow or failing integrations together get half." },
    plain! { "Outbound calls" calls_unfinished_after: "TIME" =>
    outbound.unfinished_after as Time(Duration::from_mins(1)..=Duration::from_hours(24 * 90));
    "Time after its last report at which a call without an end counts as unfinished. Metrics and the log then \
     show it, because it is never delivered." },
    plain! { "Outbound calls" outbound_calls: "COUNT" => outbound.calls as Count(1..=100_000);
    "Concurrent endpoint tests and health checks of all workspaces, on one replica. Workspaces take \
     turns." },
    custom! { "Outbound calls" outbound_calls_per_workspace: "COUNT";
    "Concurrent endpoint tests and health checks of one workspace, on one replica. Up to 64 more wait; \
     beyond them the workspace gets 429.";
    |draft, text| { draft.config.quotas.set(Quota::OutboundCalls, Count(1..=100_000).read(text)?); },
    |config| config.quotas.of(Quota::OutboundCalls).to_string() },
    plain! { "Outbound calls" outbound_memory: "SIZE" => outbound.memory as Size(16 << 20..=1 << 36);
    "Memory for parsed answers of endpoint tests, over all workspaces, on one replica. One workspace may \
     use a quarter of it; an answer that needs more is an error of its call." },
    plain! { "Outbound calls" outbound_name_servers: "ADDRESSES" => outbound.name_servers as List(value::name_server);
    "Name servers for the hosts of integrations, comma-separated, each an address with or without a port. \
     Default: those of /etc/resolv.conf. Entries of /etc/hosts apply in either case." },
    plain! { "Outbound calls" outbound_ca_file: "FILE" => outbound.ca_file as Maybe(PathKind);
    "PEM file of certificate authorities that are trusted in addition to the system's." },
    plain! { "Outbound calls" twilio_url: "URL" => outbound.twilio_url as Text(value::origin);
    "Scheme and host of Twilio's API, for accounts of another Twilio region." },
    plain! { "Outbound calls" twilio_reconciliation: "on|off" =>
    outbound.twilio_reconciliation as Choice(&[("on", true), ("off", false)]);
    "Whether the calls of each workspace with a Twilio account are compared with Twilio's own list every night. \
     A workspace chooses what follows." },
    custom! { "Exports" export_dir: "FOLDER";
    "Folder for exports of audit events, created if missing. Replicas need a shared one. Without this or \
     `export_s3_bucket`, exports are off.";
    |draft, text| { draft.export_dir = Some(PathKind.read(text)?); },
    |config| match &config.exports {
        Some(Exports::Folder(folder)) => PathKind.show(folder),
        _ => String::new(),
    } },
    custom! { "Exports" export_s3_bucket: "NAME";
    "Bucket of an S3-compatible store for exports of audit events.";
    |draft, text| { draft.export_bucket.name = word(text)?; },
    |config| bucket(config).map(|bucket| bucket.name.clone()).unwrap_or_default() },
    custom! { "Exports" export_s3_endpoint: "URL";
    "Scheme and authority of that store, if it is not Amazon's.";
    |draft, text| { draft.export_bucket.endpoint = Some(value::origin(text)?); },
    |config| bucket(config).and_then(|bucket| bucket.endpoint.clone()).unwrap_or_default() },
    custom! { "Exports" export_s3_region: "NAME";
    "Region of the bucket; without it, `us-east-1`.";
    |draft, text| { draft.export_bucket.region = Some(word(text)?); },
    |config| bucket(config).and_then(|bucket| bucket.region.clone()).unwrap_or_default() },
    custom! { "Exports" export_s3_access_key_id: "ID";
    "Id of the access key. Without one, the role of the machine is used.";
    |draft, text| { draft.export_bucket.access_key_id = Some(word(text)?); },
    |config| bucket(config).and_then(|bucket| bucket.access_key_id.clone()).unwrap_or_default() },
    secret! { "Exports" export_s3_secret_access_key: "SECRET";
    "Secret of the access key.";
    |draft, text| { draft.export_bucket.secret_access_key = Some(Zeroizing::new(word(text)?)); },
    |config| bucket(config).is_some_and(|bucket| bucket.secret_access_key.is_some()) },
    plain! { "Platform" region: "REGION" => platform.region as Maybe(Text(region));
    "The one region whose workspaces this Ward holds. It then creates no other workspaces, refuses to \
     change a region, and every answer has the header `x-ward-region`. Not set: workspaces of all \
     regions." },
    plain! { "Platform" region_hosts: "REGION=URL,..." => platform.region_hosts as With(hosts, |read| show_hosts(read));
    "Hosts that serve the other regions, comma-separated. A refusal for a wrong region names the right \
     host." },
    plain! { "Platform" environment_changes: "convert|patch" =>
    platform.environment_by_conversion as Choice(&[("convert", true), ("patch", false)]);
    "How a workspace's environment changes. `convert`: only by `convert-environment`, which checks first. \
     `patch`: also by an update, without a check." },
    plain! { "Platform" list_limit_max: "COUNT" => platform.list_limit_max as Count(20..=100);
    "The greatest `limit` of lists, in the served document and its validator. The contract says 20." },
    plain! { "Platform" test_caller_limit: "COUNT" => platform.test_caller_limit as Count(20..=100);
    "How many test callers a request may set, in the served document and its validator. The contract says \
     20." },
    plain! { "Identity" issuers: "JSON" => issuers as With(issuers, |read| show_issuers(read));
    "Issuers whose access tokens are accepted beside API keys: a JSON list here, `[[issuers]]` tables in \
     the file. See `docs/operate/identity.md`." },
    plain! { "Identity" leak_report_keys: "JSON" => leak_report_keys as With(leak_report_keys, |read| show_leak_report_keys(read));
    "Public keys whose reports of leaked API keys are accepted, in the form in which GitHub publishes those of \
     its secret scanning, or as `[[leak_report_keys]]` tables in the file. Not set: no report is accepted. See \
     `docs/operate/keys.md`." },
    plain! { "Identity" gate_origins: "ORIGINS" => gate_origins as List(value::origin_of_list);
    "Origins of other services whose requests `authorize` may decide by a DPoP proof, comma-separated. A \
     proxy in `trusted_proxies` states the request. See `docs/operate/gate.md`." },
    plain! { "Identity" dpop_nonces: "on|off" => dpop_nonces as Choice(&[("on", true), ("off", false)]);
    "Whether DPoP proofs need a nonce of this installation, so that no proof is made more than five minutes \
     before its use. See `docs/operate/dpop.md`." },
    plain! { "Limits" body_bytes: "SIZE" => body_bytes as Size(1024..=1 << 30);
    "Largest request body; beyond it 413." },
    plain! { "Limits" header_bytes: "SIZE" => limits.header_bytes as Size(8192..=1 << 20);
    "Largest request head; beyond it 431." },
    plain! { "Limits" json_depth: "COUNT" => json_depth as Count(4..=128);
    "Deepest nesting of a JSON body; beyond it 422." },
    plain! { "Limits" request_time: "TIME" => limits.request_time as Time(TENTH..=HOUR);
    "Longest time from request head to answer; beyond it 503." },
    plain! { "Limits" header_time: "TIME" => limits.header_time as Time(TENTH..=HOUR);
    "Longest time a client may take to send a request head, idle connections included." },
    plain! { "Limits" write_idle: "TIME" => limits.write_idle as Time(TENTH..=HOUR);
    "Longest time that a client may leave its answer unread." },
    plain! { "Limits" connections: "COUNT" => limits.connections as Count(1..=1_000_000);
    "Concurrent connections; beyond it 503. Each takes a file descriptor." },
    plain! { "Limits" connections_per_address: "COUNT" => limits.connections_per_address as Count(1..=1_000_000);
    "Concurrent connections of one client address (IPv6: of one /64). At most `connections`." },
    plain! { "Limits" shutdown_time: "TIME" => limits.shutdown_time as Time(Duration::ZERO..=HOUR);
    "How long a shutdown waits for accepted requests. A second signal ends it at once." },
    custom! { "Rates" rates: "auto|on|off";
    "Whether the rates below are enforced. `auto`: unless Ward listens on loopback only.";
    |draft, text| { draft.rates = RATES.read(text)?; },
    |config| RATES.show(&config.rates.mode) },
    plain! { "Rates" rate_failed_credentials: "BURST:PER_MINUTE" => rates.failed_credentials as RateKind;
    "Refused credentials per client address: the number at once, and the number that comes back per \
     minute. Valid credentials are never refused because of them." },
    plain! { "Rates" rate_failed_in_workspace: "BURST:PER_MINUTE" => rates.failed_in_workspace as RateKind;
    "Refused credentials for one workspace, from all addresses together." },
    plain! { "Rates" rate_bootstrap: "BURST:PER_MINUTE" => rates.bootstrap as RateKind;
    "Workspaces created without a key, per client address." },
    plain! { "Rates" rate_claims: "BURST:PER_MINUTE" => rates.claims as RateKind;
    "Failed claims of unclaimed workspaces, per client address. A claim that succeeds is never refused." },
    plain! { "Rates" rate_key_sets: "BURST:PER_MINUTE" => rates.key_sets as RateKind;
    "Requests of the public JWK sets of integrations, per client address." },
    plain! { "Rates" rate_addresses: "COUNT" => rates.addresses as Count(16..=10_000_000);
    "How many client addresses or workspaces are remembered per rate; the least recently seen are \
     forgotten first." },
    quota! { quota_keys: Keys; "API keys that one workspace may have, expired ones included until they are deleted." },
    quota! { quota_members: Members; "Members that one workspace may have, services included." },
    quota! { quota_open_invitations: OpenInvitations; "Invitations of one workspace that wait to be accepted." },
    quota! { quota_integrations: Integrations; "Integrations that one workspace may have." },
    quota! { quota_stored_bytes: StoredBytes;
    "Bytes that one workspace may store: audit events, details of calls, integrations, exports, and answers \
     kept for replays." },
    quota! { quota_calls_per_day: CallsPerDay; "New calls that one workspace may report per day (UTC)." },
    quota! { quota_requests_per_second: RequestsPerSecond;
    "Requests per second with valid credentials of one workspace, on one replica. Enforced together with \
     the rates." },
    plain! { "Keys" key_ceilings: "CEILINGS" => key_ceilings as With(ceilings, |shown| show_ceilings(shown));
    "The longest lives of new and rotated keys in days, comma-separated: `owner=30` for a role everywhere, \
     `production/owner=7` in one environment. The smallest that applies counts. A workspace can have \
     smaller ones." },
    plain! { "Running" flush_interval: "TIME" => flush_interval as Time(TENTH..=HOUR);
    "How often last-used times and aggregated refusals are written." },
    plain! { "Running" log: "auto|text|json" => log as
    Choice(&[("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)]);
    "How log lines are written. `auto`: text on a terminal, JSON elsewhere." },
    plain! { "Running" log_filter: "FILTER" => log_filter as Text(filter);
    "The logged events: a level (error, warn, info, debug, trace), or directives such as \
     `info,ward::deliveries=debug`." },
];

const METRICS: Or<Text<SocketAddr>> = Or("off", Text(value::address));
const BOOTSTRAP: Choice<BootstrapMode> = Choice(&[
    ("open", BootstrapMode::Open),
    ("token", BootstrapMode::Token),
    ("closed", BootstrapMode::Closed),
]);
const RATES: Choice<RatesMode> =
    Choice(&[("auto", RatesMode::Auto), ("on", RatesMode::On), ("off", RatesMode::Off)]);

/// Finds a setting by its key.
pub fn by_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
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
}
