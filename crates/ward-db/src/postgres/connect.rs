//! Finds a server that takes writes, and connects to it.
//!
//! The driver could try the servers of a URL itself, but it limits only the time until a server accepts. A
//! frozen server accepts, because its operating system does, and then never answers. Here the limit covers
//! the whole attempt on one address: TLS, authentication, the check that it takes writes, and the session's
//! settings.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join3;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::config::{Host, LoadBalanceHosts};

use super::error::told;
use super::mode::{MEMORY, PLANS, Source, settings};
use super::url::ServerAddress;

/// A connection, and the task that drives its socket.
pub(super) type Connection = (Client, JoinHandle<()>);

/// The reasons why no connection could be made.
pub(super) struct ConnectFailure {
    /// One reason per address, joined by semicolons.
    pub(super) why: String,
    /// A server lacks only room: it may accept a connection when another one ends.
    pub(super) is_full: bool,
}

/// Connects to the first usable server before `until`. The error gives one reason per server.
pub(super) async fn connect(source: &Source, until: Instant) -> Result<Connection, ConnectFailure> {
    let places = &source.target.places;
    let balanced = source.target.config.get_load_balance_hosts() == LoadBalanceHosts::Random;
    let mut order: Vec<usize> = (0..places.len()).collect();
    if balanced {
        order.sort_by_cached_key(|_| crate::ambient::number().unwrap_or(0));
    } else {
        // Starts with the server of the last connection: the ones before it were not usable then.
        order.rotate_left(source.preferred.load(Ordering::Relaxed));
    }
    let mut reasons = Vec::new();
    let mut is_full = false;
    for (tried, &index) in order.iter().enumerate() {
        let place = &places[index];
        // A server that does not answer leaves the others their share of the time.
        let ends = Instant::now() + share(until, order.len() - tried);
        let addresses = match timeout(limit(source, ends, 1), addresses(place, balanced)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                reasons.push(format!("{place}: {error}"));
                continue;
            }
            Err(_) => {
                reasons.push(format!("{place}: its name was not resolved in time"));
                continue;
            }
        };
        for (tried, address) in addresses.iter().enumerate() {
            let limit = limit(source, ends, addresses.len() - tried);
            match timeout(limit, one(source, place, *address)).await {
                Ok(Ok(connected)) => {
                    source.preferred.store(index, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(error)) => {
                    is_full |= lacks_room(&error);
                    reasons.push(format!("{place}: {}", why(&error)));
                }
                Err(_) => reasons.push(format!("{place}: no answer within {limit:?}")),
            }
        }
    }
    Err(ConnectFailure { why: reasons.join("; "), is_full })
}

/// An even part of the remaining time.
fn share(until: Instant, parts: usize) -> Duration {
    until.saturating_duration_since(Instant::now()) / u32::try_from(parts).unwrap_or(u32::MAX)
}

fn limit(source: &Source, until: Instant, parts: usize) -> Duration {
    share(until, parts).min(source.target.connect_time)
}

/// The addresses of a server. `None` stands for a socket file.
async fn addresses(place: &ServerAddress, balanced: bool) -> std::io::Result<Vec<Option<IpAddr>>> {
    let Host::Tcp(name) = &place.host else { return Ok(vec![None]) };
    if let Some(address) = place.address {
        return Ok(vec![Some(address)]);
    }
    let found = tokio::net::lookup_host((name.as_str(), place.port)).await?;
    let mut addresses: Vec<Option<IpAddr>> = found.map(|address| Some(address.ip())).collect();
    if balanced {
        addresses.sort_by_cached_key(|_| crate::ambient::number().unwrap_or(0));
    }
    Ok(addresses)
}

async fn one(
    source: &Source,
    place: &ServerAddress,
    address: Option<IpAddr>,
) -> Result<Connection, tokio_postgres::Error> {
    let mut config = source.target.config.clone();
    match &place.host {
        Host::Tcp(name) => config.host(name),
        #[cfg(unix)]
        Host::Unix(folder) => config.host_path(folder),
    };
    config.port(place.port);
    if let Some(address) = address {
        config.hostaddr(address);
    }
    let (client, connection) = config.connect(source.target.tls.clone()).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = told(&error).0.to_string(), "a database connection ended");
        }
    });
    if source.target.sessions {
        let settings = settings(&source.options);
        let (limited, planned, kept) =
            join3(client.batch_execute(&settings), client.batch_execute(PLANS), client.batch_execute(MEMORY))
                .await;
        limited?;
        // Engines that speak PostgreSQL's protocol but plan in their own way lack these settings.
        for (what, told) in [("plans", planned), ("memory", kept)] {
            if let Err(error) = told {
                if error.as_db_error().is_none() {
                    return Err(error);
                }
                tracing::debug!(%error, what, "the database does not support a session setting and runs without it");
            }
        }
    }
    Ok((client, driver))
}

/// Whether a server refused a connection for lack of room, or because it is starting.
fn lacks_room(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| match db.code().code() {
        // The server, the database or the role has too many connections; or the server is starting.
        "53300" | "57P03" => true,
        // pgbouncer uses this code for all of its own refusals.
        "08P01" => db.message().contains("no more connections allowed") || db.message().contains("too many"),
        _ => false,
    })
}

fn why(error: &tokio_postgres::Error) -> String {
    if error.as_db_error().is_some() { told(error).0.to_string() } else { chain(error) }
}

/// An error with its causes. It is only for errors of connecting, which hold no bound value.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
