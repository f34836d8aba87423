//! Sends several statements at once: the start of a transaction, deferred changes, and the statement whose
//! answer is needed.
//!
//! All are sent before the first answer arrives. The server runs them in the order of sending. So one round
//! trip carries any number of statements, and each sees the effects of those before it.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::TryStreamExt as _;
use futures_util::future::{MaybeDone, join3, maybe_done};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::values::{BoundValue, EncodedValue};
use crate::value::Value;

/// A prepared change that is deferred until another statement is sent.
pub(super) struct DeferredChange {
    pub(super) statement: Statement,
    pub(super) values: Vec<EncodedValue>,
}

/// The outcome of each part of a flight.
pub(super) struct FlightOutcome<T> {
    /// The start of the transaction; `Ok` if none was needed.
    pub(super) begun: Result<(), Error>,
    /// The first error of a deferred change.
    pub(super) kept: Result<(), Error>,
    /// The number of deferred changes that succeeded.
    pub(super) ran: usize,
    /// The outcome of the last statement.
    pub(super) last: Result<T, Error>,
}

/// Sends everything, then waits for all answers.
pub(super) async fn together<T>(
    client: &Client,
    begin: Option<&str>,
    kept: &[DeferredChange],
    last: impl Future<Output = Result<T, Error>>,
) -> FlightOutcome<T> {
    let begun = async {
        match begin {
            Some(begin) => client.batch_execute(begin).await,
            None => Ok(()),
        }
    };
    let (begun, kept, last) = join3(begun, all(client, kept), last).await;
    let ran = kept.iter().filter(|change| change.is_ok()).count();
    FlightOutcome { begun, kept: kept.into_iter().collect(), ran, last }
}

async fn all(client: &Client, kept: &[DeferredChange]) -> Vec<Result<(), Error>> {
    let mut changes: Vec<_> = kept
        .iter()
        .map(|kept| {
            Box::pin(maybe_done(async { client.execute_raw(&kept.statement, &kept.values).await.map(drop) }))
        })
        .collect();
    // A change is sent when its future is first polled.
    poll_fn(|cx| {
        let mut landed = true;
        for change in &mut changes {
            landed &= change.as_mut().poll(cx).is_ready();
        }
        if landed { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    changes.iter_mut().filter_map(|change| MaybeDone::take_output(change.as_mut())).collect()
}

/// Sends a statement; returns its rows and the number of rows that it changed.
pub(super) async fn perform(
    client: &Client,
    prepared: &mut Option<Statement>,
    sql: &str,
    bound: &[BoundValue<'_>],
    named: bool,
) -> Result<(Vec<Row>, u64), Error> {
    let stream = if named {
        let statement = match prepared.take_if(|known| !fits(known, bound)) {
            None if let Some(known) = &*prepared => known.clone(),
            _ => {
                let types: Vec<_> = bound.iter().map(BoundValue::declared).collect();
                prepared.insert(client.prepare_typed(sql, &types).await?).clone()
            }
        };
        client.query_raw(&statement, bound).await?
    } else {
        let typed = bound.iter().map(|value| (value as &(dyn ToSql + Sync), value.declared()));
        client.query_typed_raw(sql, typed).await?
    };
    let mut stream = std::pin::pin!(stream);
    let mut rows = Vec::new();
    while let Some(row) = stream.try_next().await? {
        rows.push(row);
    }
    Ok((rows, stream.rows_affected().unwrap_or(0)))
}

/// Whether a prepared statement takes these values. The values of its first run declared its types; for a
/// NULL, the server chose the type.
pub(super) fn fits(statement: &Statement, bound: &[BoundValue<'_>]) -> bool {
    statement.params().len() == bound.len()
        && statement
            .params()
            .iter()
            .zip(bound)
            .all(|(kind, value)| matches!(value.0, Value::Null) || *kind == value.declared())
}
