//! `ward serve`: starts everything, prints the addresses, and serves until a signal stops it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use ward::app::App;
use ward::config::{Config, MasterKey, load_master_key};
use ward::http::{cors, region};
use ward::{router, telemetry};
use ward_server::{ServeOptions, tls};

use crate::failure::Failure;
use crate::show::Output;
use crate::{show, welcome};

/// File descriptors other than connections: those of the database, the listeners, the runtime and the EHR
/// clients.
const OTHER_DESCRIPTORS: u64 = 256;
/// The maximum number of connections that one integration queue uses at once.
const CONNECTIONS_PER_QUEUE: u64 = 4;

/// Runs the server until it stops.
pub fn run(config: Config, out: Output) -> Result<(), Failure> {
    telemetry::init_logging(config.log, &config.log_filter)?;
    raise_descriptor_limit(&config);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config, out))
}

async fn serve(config: Config, out: Output) -> Result<(), Failure> {
    let recorder = telemetry::install_metrics()?;
    let mut signals = Signals::new()?;
    let tls = config.tls.as_ref().map(tls::load).transpose()?;
    // This comes before the database: a second Ward that is started by mistake fails at the address and
    // touches no file.
    let listener = bind("listen", config.listen).await?;
    let listen = listener.local_addr()?;
    warn_of_clear_text(&config, listen);

    if matches!(config.master_key, MasterKey::Unset) {
        load_master_key(&config.master_key)?;
    }
    let app = App::open(config.clone()).await?;
    if let Some(seconds) = app.clock.moved_by_environment() {
        tracing::warn!(seconds, "WARD_TEST_CLOCK_OFFSET MOVES THE CLOCK: this is for tests only");
    }
    app.listens_at(listen);
    app.check_master_key().await?;
    let service = ward_console::beside(&app, router::service(&app)?);
    app.start_background();

    tokio::spawn(telemetry::keep_metrics(recorder.clone()));
    let metrics = Metrics::start(&config, recorder).await?;
    if let Some(address) = metrics.address {
        app.wire.listens_at(address);
    }
    if out.is_json() {
        show::line(&welcome::json(&config, listen, metrics.address).to_string());
    } else {
        show::line(&welcome::text(&config, listen, metrics.address));
    }
    tracing::info!(%listen, tls = tls.is_some(), rates = config.rates.enforced, "serving");

    let sync = app.sync.clone();
    let options = ServeOptions {
        limits: config.limits.clone(),
        tls,
        trusted_proxies: config.trusted_proxies.clone(),
        fields: region::fields(config.platform.region.as_deref()),
        early_fields: cors::early_fields(&config.cors_origins),
    };
    let served = ward_server::serve(listener, service, options, async {
        let name = signals.next().await;
        tracing::info!(signal = name, "finishing accepted requests; a second signal ends the server at once");
        sync.stop();
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::warn!(signal = name, "ending at once; unanswered requests are lost");
            // Committed work is safe at any time. Only work whose answer was not sent yet is lost.
            std::process::exit(130);
        });
    })
    .await;
    app.shutdown().await;
    metrics.stop().await;
    tracing::info!("stopped");
    Ok(served?)
}

/// The signals that stop a server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The name of the next signal.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

async fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = match TcpListener::bind(address).await {
        // The kernel has no IPv6, and `[::]` was meant as every available address.
        Err(error) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && has_no_ipv6(&error) => {
            tracing::warn!(%address, "this machine has no IPv6: Ward listens on IPv4 only");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|error| format!("{setting} {address} cannot be used: {error}").into())
}

/// Whether the kernel does not support IPv6: 97 is `EAFNOSUPPORT` on Linux.
fn has_no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

struct Metrics {
    address: Option<SocketAddr>,
    running: Option<(oneshot::Sender<()>, JoinHandle<io::Result<()>>)>,
}

impl Metrics {
    async fn start(
        config: &Config,
        recorder: metrics_exporter_prometheus::PrometheusHandle,
    ) -> Result<Self, Failure> {
        let off = Self { address: None, running: None };
        let Some(wanted) = config.metrics_listen else { return Ok(off) };
        let listener = match bind("metrics_listen", wanted).await {
            Ok(listener) => listener,
            Err(error) if config.metrics_required => return Err(error),
            Err(error) => {
                tracing::warn!(
                    "{error}: the server continues WITHOUT METRICS; set metrics_listen to another address, or to off"
                );
                return Ok(off);
            }
        };
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "every client that reaches this address can read the metrics");
        }
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            // An error means a dropped sender, which is a stop too.
            let _: Result<(), _> = stopped.await;
        };
        let fields = region::fields(config.platform.region.as_deref());
        let running = tokio::spawn(telemetry::serve_metrics(listener, recorder, fields, stopped));
        Ok(Self { address: Some(address), running: Some((stop, running)) })
    }

    /// Stops the listener last, so that the shutdown itself can still be observed.
    async fn stop(self) {
        if let Some((stop, running)) = self.running {
            let _ = stop.send(());
            let _ = running.await;
        }
    }
}

fn warn_of_clear_text(config: &Config, listen: SocketAddr) {
    if config.tls.is_none() && !listen.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %listen,
            "KEYS CROSS THE NETWORK IN CLEAR: this listener is open to other machines and has no TLS. Set tls_cert and \
             tls_key, or listen on loopback behind a proxy with TLS"
        );
    }
}

/// Raises the soft limit on open files to the hard limit, and warns if it is still too low for `connections`.
fn raise_descriptor_limit(config: &Config) {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let needed = count(config.limits.connections)
        .saturating_add(count(config.outbound.lanes).saturating_mul(CONNECTIONS_PER_QUEUE))
        .saturating_add(OTHER_DESCRIPTORS);
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) if limit < needed => tracing::warn!(
            limit,
            needed,
            connections = config.limits.connections,
            "the limit on open files is too low for this many connections: raise it, or lower connections"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files cannot be read"),
    }
}
