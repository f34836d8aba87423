//! What Ward tells its operator: log lines on standard error, numbers at `/metrics`.
//!
//! Neither holds a secret, a phone number or a patient datum: events name route templates and ids, labels are from
//! small closed sets.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;

use crate::config::{Limits, LogFormat};
use crate::http::server::{ServeOptions, serve};

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("the log filter cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process logs already.
    #[error("logging is set up already")]
    Logging,
    /// Something else in this process records metrics already.
    #[error("metrics cannot be recorded: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Upper bounds of the buckets of every histogram whose name ends in `_seconds`, in seconds. They begin where an
/// embedded read ends.
const SECONDS: [f64; 14] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 2.5, 10.0];

/// Upper bounds of the buckets of what is counted in hours: from owed to synced.
const HOURS: [f64; 14] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0];

/// How often recorded samples are folded into their buckets. Without it they pile up until somebody scrapes. What a busy
/// server records in five seconds takes tens of milliseconds to fold, in which whoever shares the core waits.
const UPKEEP: Duration = Duration::from_millis(100);

/// Sends events to standard error, in the form asked for. To be called once per process.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)?;
    let terminal = io::stderr().is_terminal();
    // An empty NO_COLOR says nothing (no-color.org).
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        // A line that cannot be written, because the disk is full that the log is on, is lost. It would be told of by
        // `eprintln!`, which panics for the same reason: the writer would die of a log line.
        .log_internal_errors(false);
    let set = if json {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder.try_init()
    };
    set.map_err(|_| TelemetryError::Logging)
}

/// Starts recording metrics. To be called once per process, before anything counts.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full("ward_sync_delivery_seconds".to_owned()), &HOURS)?
        .install_recorder()?;
    describe_gauge!("ward_share_used", "Units of a shared pool in use, by pool");
    describe_counter!(
        "ward_share_refused_total",
        "Requests refused because their share of a pool was used up, by pool"
    );
    describe_gauge!("ward_connections_open", "Open connections, those of /metrics included");
    describe_counter!("ward_connections_refused_total", "Connections refused, by the limit they met");
    describe_counter!(
        "ward_connections_given_up_total",
        "Silent connections closed to make room for new ones"
    );
    describe_counter!("ward_accept_errors_total", "Failed accepts; mostly a lack of file descriptors");
    describe_gauge!("ward_sync_queue_depth", "Deliveries that wait to be sent, counted up to 100,000");
    describe_gauge!("ward_sync_queue_oldest_seconds", "Since when the oldest of them is owed; 0 without any");
    describe_counter!("ward_sync_attempts_total", "Tries to deliver, by how they ended");
    describe_histogram!("ward_sync_delivery_seconds", "From owed to in the EHR");
    describe_counter!(
        "ward_sync_stopped_total",
        "Deliveries of calls that were not real, stopped before they were sent; anything but 0 is a fault"
    );
    describe_counter!(
        "ward_unknown_reported_values_total",
        "Values in reports of calls that Ward does not know and keeps, by the field they stood in"
    );
    describe_gauge!("ward_build_info", "Always 1; the label is the version that runs");
    describe_counter!("ward_http_requests_total", "Answers, by operation and class of status");
    describe_histogram!("ward_http_request_seconds", "From a request's head to its answer, by operation");
    describe_counter!("ward_audit_refusals_dropped_total", "Refusals that did not fit between two flushes");
    describe_counter!(
        "ward_last_used_dropped_total",
        "Times of last use that did not fit between two flushes"
    );
    describe_counter!(
        "ward_quota_refusals_total",
        "Requests refused because a workspace's quota is used up, by quota"
    );
    describe_gauge!(
        "ward_endings_waiting",
        "Members and workspaces whose remaining rows are still to be closed"
    );
    describe_counter!("ward_issuer_fetches_total", "Fetches of an issuer's keys, by how they ended");
    ward_db::describe_metrics();
    // There from the start, so that an alert on it can tell zero from missing.
    counter!("ward_sync_stopped_total").absolute(0);
    gauge!("ward_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Folds samples into their buckets, for ever, and not on a thread that answers requests.
pub async fn keep_metrics(handle: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let handle = handle.clone();
        // Fails only while the runtime ends.
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
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let page = move || async move {
        let headers =
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"), (CACHE_CONTROL, "no-store")];
        (headers, handle.render())
    };
    let router = Router::new().route("/metrics", get(page));
    // A scraper or two; what is not one of them need not be welcome.
    let limits = Limits {
        connections: 16,
        connections_per_address: 16,
        shutdown_time: Duration::from_secs(1),
        ..Limits::default()
    };
    let options = ServeOptions { limits, tls: None, trusted_proxies: Vec::new() };
    serve(listener, router, options, shutdown).await
}
