//! Finding a server that takes writes, and a connection to it.
//!
//! The driver could go through the servers of a URL itself, but it limits only how long one may take to accept: a server
//! that is frozen accepts, for its system does, and then never says a word. Here the limit is on the whole of one
//! address: TLS, authentication, the question whether it takes writes, and the session's settings.

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
use super::url::Place;

/// A connection, and the task that moves its bytes.
pub(super) type Connected = (Client, JoinHandle<()>);

/// The reasons for which there is no connection.
pub(super) struct Refused {
    /// One reason per server, joined.
    pub(super) why: String,
    /// A server only lacks room: it may take a connection when another one ends.
    pub(super) is_full: bool,
}

/// Connects to the first server that can be used, before `until`. The error says why none can be, one by one.
pub(super) async fn connect(source: &Source, until: Instant) -> Result<Connected, Refused> {
    let places = &source.target.places;
    let balanced = source.target.config.get_load_balance_hosts() == LoadBalanceHosts::Random;
    let mut order: Vec<usize> = (0..places.len()).collect();
    if balanced {
        order.sort_by_cached_key(|_| getrandom::u32().unwrap_or(0));
    } else {
        // Beginning where the last connection was made: the ones before it were no good then.
        order.rotate_left(source.preferred.load(Ordering::Relaxed));
    }
    let mut reasons = Vec::new();
    let mut is_full = false;
    for (tried, &index) in order.iter().enumerate() {
        let place = &places[index];
        // One that says nothing leaves the others their share of the time.
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
    Err(Refused { why: reasons.join("; "), is_full })
}

/// An even part of the time that is left.
fn share(until: Instant, parts: usize) -> Duration {
    until.saturating_duration_since(Instant::now()) / u32::try_from(parts).unwrap_or(u32::MAX)
}

fn limit(source: &Source, until: Instant, parts: usize) -> Duration {
    share(until, parts).min(source.target.connect_time)
}

/// Where a server is. `None`: at a socket file.
async fn addresses(place: &Place, balanced: bool) -> std::io::Result<Vec<Option<IpAddr>>> {
    let Host::Tcp(name) = &place.host else { return Ok(vec![None]) };
    if let Some(address) = place.address {
        return Ok(vec![Some(address)]);
    }
    let found = tokio::net::lookup_host((name.as_str(), place.port)).await?;
    let mut addresses: Vec<Option<IpAddr>> = found.map(|address| Some(address.ip())).collect();
    if balanced {
        addresses.sort_by_cached_key(|_| getrandom::u32().unwrap_or(0));
    }
    Ok(addresses)
}

async fn one(
    source: &Source,
    place: &Place,
    address: Option<IpAddr>,
) -> Result<Connected, tokio_postgres::Error> {
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
        // An engine that speaks PostgreSQL's protocol and plans in its own way has no such settings.
        for (what, told) in [("plans", planned), ("memory", kept)] {
            if let Err(error) = told {
                if error.as_db_error().is_none() {
                    return Err(error);
                }
                tracing::debug!(%error, what, "the database is not to be told so");
            }
        }
    }
    Ok((client, driver))
}

/// Whether a server refused a connection for want of room, or because it is about to start.
fn lacks_room(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|db| match db.code().code() {
        // Too many connections, for the server, the database or the role; the server starts.
        "53300" | "57P03" => true,
        // pgbouncer has this code for all of its own refusals.
        "08P01" => db.message().contains("no more connections allowed") || db.message().contains("too many"),
        _ => false,
    })
}

fn why(error: &tokio_postgres::Error) -> String {
    if error.as_db_error().is_some() { told(error).0.to_string() } else { chain(error) }
}

/// An error and what caused it. Only for errors of connecting, which hold no value.
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
