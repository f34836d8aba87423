//! Telemetry for the operator: log lines on standard error, metrics at `/metrics`.
//!
//! Neither contains a secret, a phone number or patient data. Events name route templates and ids, and
//! labels come from small closed sets.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;
use ward_server::{Limits, ServeOptions, serve};

use crate::config::LogFormat;

/// The reason why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter does not parse: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process has already set up logging.
    #[error("logging is already set up in this process")]
    Logging,
    /// This process has already set up metrics.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Upper bounds of the buckets of histograms whose name ends in `_seconds`. They begin at the duration of
/// an embedded read.
const SECONDS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 2.5, 10.0];

/// Upper bounds of the buckets, in seconds, of durations that may last hours: from queueing to delivery.
const HOURS: [f64; 14] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0];

/// Pause between folds of recorded samples into their buckets. Without folds, samples accumulate until the
/// next scrape. Folding five seconds of a busy server's samples takes tens of milliseconds, in which other
/// work on that core waits.
const UPKEEP: Duration = Duration::from_millis(100);

/// Sends events to standard error in this format. It must be called once per process.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)?;
    let terminal = io::stderr().is_terminal();
    // An empty NO_COLOR counts as not set (no-color.org).
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        // A line that cannot be written, because the disk of the log is full, is lost. `tracing` would
        // report that by `eprintln!`, which panics for the same reason, so a log line would end its thread.
        .log_internal_errors(false);
    let set = if json {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder.try_init()
    };
    set.map_err(|_| TelemetryError::Logging)
}

/// Starts recording metrics. It must be called once per process, before the first metric is used.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("ward_sync_delivery_seconds".to_owned()), &HOURS)?
        .install_recorder()?;
    describe_server();
    describe_deliveries();
    ward_db::describe_metrics();
    // The counter exists from the start, so that an alert can distinguish zero from missing.
    counter!("ward_sync_stopped_total").absolute(0);
    gauge!("ward_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

fn describe_server() {
    describe_gauge!("ward_share_used", "Units of a shared pool in use, by pool");
    describe_counter!(
        "ward_share_refused_total",
        "Requests refused because their share of a pool was used up, by pool"
    );
    describe_gauge!("ward_connections_open", "Open connections, including those to /metrics");
    describe_counter!("ward_connections_refused_total", "Refused connections, by limit");
    describe_counter!("ward_connections_given_up_total", "Idle connections closed to make room for new ones");
    describe_counter!(
        "ward_forbidden_waits_total",
        "Answers of 403 that waited, because their workspace has many in this second"
    );
    describe_counter!("ward_accept_errors_total", "Failed accepts, mostly for lack of file descriptors");
    describe_counter!("ward_dpop_proofs_total", "DPoP proofs, and bound credentials without one, by outcome");
    describe_gauge!("ward_build_info", "Always 1; the label is the running version");
    describe_counter!("ward_http_requests_total", "Answers, by operation and status class");
    describe_histogram!(
        "ward_http_request_seconds",
        "Time from a request's head to its answer, by operation"
    );
    describe_counter!(
        "ward_audit_refusals_dropped_total",
        "Refusals that found no room in the buffer between two flushes"
    );
    describe_counter!(
        "ward_last_used_dropped_total",
        "Last uses of keys that found no room in the buffer between two flushes"
    );
    describe_counter!(
        "ward_quota_refusals_total",
        "Requests refused because a workspace's quota is used up, by quota"
    );
    describe_counter!(
        "ward_leaked_keys_total",
        "Tokens in reports of leaked keys, by the effect on their keys"
    );
    describe_gauge!("ward_endings_waiting", "Endings whose rows are not all closed yet");
    describe_gauge!(
        "ward_api_keys_expiring",
        "Keys of active workspaces that expire within this number of days"
    );
    describe_counter!("ward_issuer_fetches_total", "Fetches of an issuer's keys, by outcome");
    describe_counter!(
        "ward_workload_issuer_fetches_total",
        "Fetches of the keys of issuers that trust rules name, by outcome"
    );
}

fn describe_deliveries() {
    describe_gauge!("ward_sync_queue_depth", "Deliveries waiting to be sent, counted up to 100,000");
    describe_gauge!("ward_sync_queue_oldest_seconds", "Age of the oldest waiting delivery; 0 without any");
    describe_counter!("ward_sync_attempts_total", "Delivery attempts, by outcome");
    describe_gauge!(
        "ward_sync_reviews",
        "Open reviews of patients and encounters, by missing fact and reason"
    );
    describe_gauge!("ward_sync_reviews_oldest_seconds", "Age of the oldest open review; 0 without any");
    describe_gauge!("ward_sync_waiting_queues", "Integration queues in which nothing is sent now, by reason");
    describe_gauge!(
        "ward_sync_waiting_queues_oldest_seconds",
        "Time since the first of these queues began to wait, by reason"
    );
    describe_gauge!(
        "ward_sync_stuck_deliveries",
        "Deliveries that are held one by one or failed, by state and reason, counted up to 100,000"
    );
    describe_gauge!(
        "ward_sync_stuck_deliveries_oldest_seconds",
        "Time since the first of these deliveries was held or failed, by state and reason"
    );
    describe_gauge!(
        "ward_calls_unfinished",
        "Calls without a reported end for longer than the setting allows"
    );
    describe_gauge!(
        "ward_calls_unfinished_oldest_seconds",
        "Time since the first report of the oldest such call"
    );
    describe_gauge!(
        "ward_twilio_calls_missing",
        "Calls that Twilio's list has and that Ward lacks, by the last comparison of each workspace"
    );
    describe_gauge!(
        "ward_twilio_reconciliations_failing",
        "Workspaces whose comparison with Twilio's list fails, counted up to 100,000"
    );
    describe_gauge!(
        "ward_twilio_reconciliations_failing_oldest_seconds",
        "Time since the first failure of the comparison that has failed longest"
    );
    describe_counter!(
        "ward_sync_duplicates_total",
        "Deliveries that the EHR was found to have more than once"
    );
    describe_histogram!(
        "ward_sync_delivery_seconds",
        "Time from queueing a delivery to its arrival in the EHR"
    );
    describe_counter!(
        "ward_sync_stopped_total",
        "Deliveries of calls that were not real, stopped before sending; any number above 0 is a fault of Ward"
    );
    describe_counter!(
        "ward_unknown_reported_values_total",
        "Values in reports of calls that Ward does not know but keeps, by field"
    );
}

/// Folds samples into their buckets for ever, on a thread that answers no requests.
pub async fn keep_metrics(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let handle = handle.clone();
        // This fails only while the runtime shuts down.
        let _ = tokio::task::spawn_blocking(move || handle.run_upkeep()).await;
    }
}

/// Serves `/metrics` in Prometheus' text format on `listener` until `shutdown` resolves.
///
/// # Errors
/// As [`serve`].
pub async fn serve_metrics(
    listener: TcpListener,
    handle: PrometheusHandle,
    fields: HeaderMap,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let page = move || async move {
        let headers =
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
        (headers, handle.render())
    };
    let router = Router::new().route("/metrics", get(page));
    // A few scrapers connect here; other clients need no room.
    let limits = Limits {
        connections: 16,
        connections_per_address: 16,
        shutdown_time: Duration::from_secs(1),
        ..Limits::default()
    };
    let options = ServeOptions {
        limits,
        tls: None,
        trusted_proxies: Vec::new(),
        fields,
        early_fields: HeaderMap::new(),
    };
    serve(listener, router, options, shutdown).await
}
