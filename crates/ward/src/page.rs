//! Keyset pages: a token is the position of the last row seen.

use serde::{Deserialize, Serialize};

/// Totals are exact up to here and not given beyond.
pub const TOTAL_LIMIT: i64 = 1_000;

/// The `limit` and `continuation_token` of a list, validated.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct PageQuery {
    limit: i64,
    continuation_token: i64,
}

impl PageQuery {
    /// The page asked for.
    pub fn page(self) -> Page {
        Page { after: self.continuation_token.max(0), limit: self.limit }
    }
}

/// A page: at most `limit` rows whose position is above `after`.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The position after which it starts. Never negative: rows that are kept but not listed have negative positions.
    ///
    /// A list by an index of live rows says `position > 0` too, or the index cannot be used, and says it second: of two
    /// lower bounds `SQLite` searches by the first, and a page far down would read all before it.
    pub after: i64,
    /// The most rows that it has.
    pub limit: i64,
}

impl Page {
    /// How many rows to fetch: one more than the page has tells whether another follows.
    pub const fn fetch(self) -> i64 {
        self.limit + 1
    }
}

/// How many times a page is filled up after rows that the list leaves out.
const FILLED_UP: usize = 8;
/// How many rows each of these looks at.
const FILLED_UP_BY: i64 = 100;

/// The rows of a page that `listed` lets through, and the position up to which the list was looked through if that did not
/// fill the page. Ended rows stand in a list until they are closed, so a page could else look at a million of them.
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

/// The count of a list of which `looked_at` rows were looked at, up to `most`, and `listed` rows are listed. A list that was
/// not looked through counts as longer than its total says.
pub const fn counted(looked_at: i64, listed: i64, most: i64) -> i64 {
    if looked_at < most { listed } else { most }
}

/// A page as it is answered.
#[derive(Debug, Serialize)]
pub struct Paginated<T> {
    items: Vec<T>,
    has_more: bool,
    continuation_token: Option<i64>,
    total: Option<i64>,
}

impl<T> Paginated<T> {
    /// The page of these rows, which may be one more than it has. `counted` is the number of rows in the whole list,
    /// counted no further than [`TOTAL_LIMIT`] plus one.
    pub fn new<R>(
        mut rows: Vec<R>,
        page: Page,
        counted: i64,
        position: impl Fn(&R) -> i64,
        show: impl FnMut(R) -> T,
    ) -> Self {
        let mut shown = Self::of(Vec::new(), &rows, page, counted, position);
        rows.truncate(usize::try_from(page.limit).unwrap_or(usize::MAX));
        shown.items = rows.into_iter().map(show).collect();
        shown
    }

    /// The page of these items, which show `rows`. There may be one row more than the page has.
    pub fn of<R>(items: Vec<T>, rows: &[R], page: Page, counted: i64, position: impl Fn(&R) -> i64) -> Self {
        let most = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > most;
        let last = rows.get(most.saturating_sub(1));
        let continuation_token = if has_more { last.map(position) } else { None };
        let total = (counted <= TOTAL_LIMIT).then_some(counted);
        Self { items, has_more, continuation_token, total }
    }

    /// The same page of a list that was looked through up to this position only: another page may follow.
    #[must_use]
    pub fn looked_through(mut self, until: Option<i64>) -> Self {
        if let (false, Some(until)) = (self.has_more, until) {
            (self.has_more, self.continuation_token) = (true, Some(until));
        }
        self
    }
}
