//! Bounded steps through a list of any length.
//!
//! A filter without matches has to read all rows of a workspace, which may be millions. Each step reads a
//! bounded number of rows and holds a long reader only for that time. Then other workspaces get their turn.
//! So a search costs its own workspace time, and delays others by one step only.

mod steps;
mod store;

use ward_db::{Error, Tx};

pub use steps::read;
pub use store::{Conditions, Timeline};

/// Rows that one step reads at most, matching or not.
pub const STEP: i64 = 10_000;

/// The part of a list that one step reads.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<P> {
    /// The row before the stretch; `None` at the start of the list.
    pub after: Option<P>,
    /// The last row of the stretch; `None` at the end of the list.
    pub last: Option<P>,
}

/// A list that is sorted by an index, and a filter on it.
pub trait List: Clone + Send + 'static {
    /// The position of a row in the order.
    type Position: Copy + Send + 'static;
    /// A row in the form that answers need.
    type Row: Send + 'static;

    /// The position of the row that comes `rows` rows after `after`, regardless of the filter. `None` if
    /// there are fewer.
    fn end_of_step(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Self::Position>,
        rows: i64,
    ) -> Result<Option<Self::Position>, Error>;

    /// The number of matching rows of a stretch.
    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<Self::Position>) -> Result<i64, Error>;

    /// The matching rows of a stretch, in order.
    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<Self::Position>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<Self::Row>, Error>;
}

/// The requested part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub limit: i64,
    /// Matching rows to skip before them.
    pub offset: i64,
    /// The number up to which matching rows are counted.
    pub counted: i64,
}

#[derive(Debug)]
pub struct ScanResult<R> {
    /// The requested rows in the order of the list.
    pub rows: Vec<R>,
    /// The number of matching rows, counted up to the requested number.
    pub total: i64,
}
