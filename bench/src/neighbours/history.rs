//! A long audit, written directly into the database.

use ward_db::{Db, Options, Timestamp, Uuid, Value};

use super::Failure;

/// The number of events in one transaction.
const BATCH: u64 = 5_000;

/// Adds this many audit events to a workspace.
pub async fn fill(database: &str, workspace: &str, events: u64) -> Result<(), Failure> {
    let options = Options { create: false, ..Options::default() };
    let db = Db::open(database, options)?;
    let workspace: Uuid = workspace.parse()?;
    for from in (0..events).step_by(usize::try_from(BATCH)?) {
        let write = db.write("bench.fill", move |tx| {
            for number in from..(from + BATCH).min(events) {
                let at = Timestamp::from_micros(1_760_000_000_000_000 + i64::try_from(number).unwrap_or_default());
                tx.execute_later(
                    "INSERT INTO audit_events (workspace_id, at, id, service, action, resource_type, phi_accessed) \
                     VALUES ($1, $2, $3, 'calls', 'call.read', 'call', $4)",
                    &[
                        Value::Uuid(workspace),
                        Value::Time(at),
                        Value::Uuid(Uuid::from_u128(u128::from(number))),
                        Value::Bool(true),
                    ],
                )?;
            }
            Ok::<_, ward_db::Error>(())
        });
        write.await?;
    }
    let closed = tokio::task::spawn_blocking(move || db.close());
    closed.await?;
    Ok(())
}
