//! Keyset pages: a token is the position of the last row of the page before.

use serde::{Deserialize, Serialize};

/// Totals are exact up to this number, and omitted beyond it.
pub const TOTAL_LIMIT: i64 = 1_000;

/// The `limit` and `continuation_token` of a list, validated.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct PageQuery {
    limit: i64,
    continuation_token: i64,
}

impl PageQuery {
    /// The requested page, with a token of at least 0.
    pub fn page(self) -> Page {
        Page { after: self.continuation_token.max(0), limit: self.limit }
    }
}

/// A page: at most `limit` rows whose position is above `after`.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The position after which it begins. It is never negative, because rows that are kept but not listed
    /// have negative positions.
    ///
    /// A list over an index of live rows also needs the condition `position > 0`, or the index cannot be
    /// used. That condition comes second: `SQLite` searches by the first of two lower bounds, so a late
    /// page would read all rows before it.
    pub after: i64,
    /// The most rows of the page.
    pub limit: i64,
}

impl Page {
    /// The number of rows to fetch: the extra row shows whether another page follows.
    pub const fn fetch(self) -> i64 {
        self.limit + 1
    }
}

/// How many further queries may fill a page after rows that the list omits.
const FILLED_UP: usize = 8;
/// Rows that each of these queries reads.
const FILLED_UP_BY: i64 = 100;

/// Reads the rows of a page that `listed` accepts. If they do not fill the page, it also returns the
/// position up to which the list was read. Ended rows stay in a list until they are closed, so a page could
/// otherwise read a million of them.
pub fn fill<R, E>(
    page: Page,
    position: impl Fn(&R) -> i64,
    listed: impl Fn(&R) -> bool,
    mut fetch: impl FnMut(Page) -> Result<Vec<R>, E>,
) -> Result<(Vec<R>, Option<i64>), E> {
    let mut found = Vec::new();
    let mut next = page;
    for _ in 0..=FILLED_UP {
        let rows = fetch(next)?;
        let is_last = i64::try_from(rows.len()).unwrap_or(i64::MAX) < next.fetch();
        let until = rows.last().map_or(next.after, &position);
        found.extend(rows.into_iter().filter(&listed));
        if is_last || found.len() > usize::try_from(page.limit).unwrap_or(usize::MAX) {
            return Ok((found, None));
        }
        next = Page { after: until, limit: FILLED_UP_BY };
    }
    Ok((found, Some(next.after)))
}

/// The length of a list, of which `looked_at` rows were read, up to `most`, and `listed` of these are in
/// the list. If not all rows were read, the list counts as longer than any exact total.
pub const fn counted(looked_at: i64, listed: i64, most: i64) -> i64 {
    if looked_at < most { listed } else { most }
}

#[derive(Debug, Serialize)]
pub struct Paginated<T> {
    items: Vec<T>,
    has_more: bool,
    continuation_token: Option<i64>,
    total: Option<i64>,
}

impl<T> Paginated<T> {
    /// The page of these rows, which may be one more than the page has. `counted` is the length of the
    /// whole list, counted no further than [`TOTAL_LIMIT`] plus one.
    pub fn new<R>(
        rows: Vec<R>,
        page: Page,
        counted: i64,
        position: impl Fn(&R) -> i64,
        mut show: impl FnMut(R) -> T,
    ) -> Self {
        Self::some(rows, page, counted, position, |row| Some(show(row)))
    }

    /// As [`Self::new`], without the rows that `show` leaves out. A page may then have fewer items than its limit before
    /// another one follows.
    pub fn some<R>(
        mut rows: Vec<R>,
        page: Page,
        counted: i64,
        position: impl Fn(&R) -> i64,
        show: impl FnMut(R) -> Option<T>,
    ) -> Self {
        let mut shown = Self::of(Vec::new(), &rows, page, counted, position);
        rows.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
        shown.items = rows.into_iter().filter_map(show).collect();
        shown
    }

    /// The page of these items, which represent `rows`. There may be one row more than the page has.
    pub fn of<R>(items: Vec<T>, rows: &[R], page: Page, counted: i64, position: impl Fn(&R) -> i64) -> Self {
        let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > most;
        let last = rows.get(most.saturating_sub(1));
        let continuation_token = if has_more { last.map(position) } else { None };
        let total = (counted <= TOTAL_LIMIT).then_some(counted);
        Self { items, has_more, continuation_token, total }
    }

    /// Marks a page whose list was read only up to this position, so that another page may follow.
    #[must_use]
    pub fn looked_through(mut self, until: Option<i64>) -> Self {
        if let (false, Some(until)) = (self.has_more, until) {
            (self.has_more, self.continuation_token) = (true, Some(until));
        }
        self
    }
}
