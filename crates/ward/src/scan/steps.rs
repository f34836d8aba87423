//! The steps in which a list is read.

use ward_db::Error;

use super::{List, STEP, ScanResult, Stretch, Window};
use crate::app::App;
use crate::error::ApiError;
use crate::ids::WorkspaceId;

/// Reads a workspace's list after `after`, in steps, until the requested rows and count are known.
pub async fn read<L: List>(
    app: &App,
    workspace: WorkspaceId,
    name: &'static str,
    list: L,
    mut after: Option<L::Position>,
    wanted: Window,
) -> Result<ScanResult<L::Row>, ApiError> {
    let Window { limit, offset, counted } = wanted;
    let mut found = ScanResult { rows: Vec::new(), total: 0 };
    loop {
        let missing = limit - length(&found.rows);
        let skipped = (offset - found.total).max(0);
        let list = list.clone();
        let step = app.read_long(workspace, name, move |tx| {
            let last = list.end_of_step(tx, after, STEP)?;
            let stretch = Stretch { after, last };
            let counted = list.count(tx, stretch)?;
            let has_wanted = missing > 0 && counted > skipped;
            let rows = if has_wanted { list.rows(tx, stretch, missing, skipped)? } else { Vec::new() };
            Ok::<_, Error>((last, counted, rows))
        });
        let (last, more, rows) = step.await?;
        found.rows.extend(rows);
        found.total += more;
        let is_done = length(&found.rows) >= limit && found.total >= counted;
        if last.is_none() || is_done {
            found.total = found.total.min(counted);
            return Ok(found);
        }
        after = last;
    }
}

fn length<R>(rows: &[R]) -> i64 {
    i64::try_from(rows.len()).unwrap_or(i64::MAX)
}
