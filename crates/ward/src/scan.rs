//! Reading a list of any length in bounded steps.
//!
//! A filter that finds nothing has to look at every row of a workspace, and a tenant may have millions. Each step looks at a
//! bounded number of rows and has a long reader for that time only; then it is the turn of other workspaces. So a search
//! costs the workspace that makes it time, and the others one step.

use ward_db::{Error, Tx};

use crate::app::App;
use crate::error::ApiError;
use crate::ids::WorkspaceId;

/// Rows that one step looks at.
pub const STEP: i64 = 10_000;

/// The part of a list that one step looks at.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<P> {
    /// It begins after this row; `None`: at the first.
    pub after: Option<P>,
    /// It ends with this row; `None`: with the last.
    pub last: Option<P>,
}

/// A list that is sorted by an index, and a filter on it.
pub trait List: Clone + Send + 'static {
    /// A row's place in the order.
    type Place: Copy + Send + 'static;
    /// A row as the list shows it.
    type Row: Send + 'static;

    /// The place of the row so many rows after `after`, whatever the filter. `None`: there are fewer.
    fn end_of_step(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Self::Place>,
        rows: i64,
    ) -> Result<Option<Self::Place>, Error>;

    /// How many rows of a stretch the filter finds.
    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<Self::Place>) -> Result<i64, Error>;

    /// Rows of a stretch that the filter finds, in order.
    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<Self::Place>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Self::Row>, Error>;
}

/// How much of a list is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The most rows that are read.
    pub limit: i64,
    /// Rows that are left out before them.
    pub offset: i64,
    /// How far the rows that the filter finds are counted.
    pub counted: i64,
}

/// The rows that were asked for.
#[derive(Debug)]
pub struct Found<R> {
    /// The rows that were asked for, in order.
    pub rows: Vec<R>,
    /// How many the filter finds, counted as far as was asked.
    pub total: i64,
}

/// Reads a workspace's list after `after`, step by step, until all that was asked for is known.
pub async fn read<L: List>(
    app: &App,
    workspace: WorkspaceId,
    name: &'static str,
    list: L,
    mut after: Option<L::Place>,
    wanted: Wanted,
) -> Result<Found<L::Row>, ApiError> {
    let Wanted { limit, offset, counted } = wanted;
    let mut found = Found { rows: Vec::new(), total: 0 };
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
