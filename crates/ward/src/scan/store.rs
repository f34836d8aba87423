//! The SQL that lists share: conditions with their values, and lists by time.

use std::fmt::{Debug, Write as _};

use ward_db::{Error, FromColumn, Row, Timestamp, Tx, Value, decode};

use super::{List, Stretch};
use crate::ids::WorkspaceId;

/// Conditions of a statement, joined by AND, and the values that they bind. An absent condition is left out of the
/// SQL, so each combination has a plan of its own.
pub struct Conditions<'v> {
    sql: String,
    values: Vec<Value<'v>>,
}

impl<'v> Conditions<'v> {
    /// The conditions that begin with `first`, whose only value is the workspace, `$1`.
    pub fn of(first: &str, workspace: WorkspaceId) -> Self {
        Self { sql: first.to_owned(), values: vec![workspace.into()] }
    }

    /// Adds a condition on one value, which follows `left`, such as `status =`; nothing for `None`.
    pub fn and(&mut self, left: &str, value: Option<impl Into<Value<'v>>>) {
        if let Some(value) = value {
            let place = self.bind(value);
            let _ = write!(self.sql, " AND {left} {place}");
        }
    }

    /// Adds a condition without a value.
    pub fn and_sql(&mut self, condition: &str) {
        let _ = write!(self.sql, " AND {condition}");
    }

    /// Adds a comparison of a row's position, its time and its id, with another.
    pub fn and_position<I: Into<Value<'static>>>(
        &mut self,
        time: &str,
        sign: &str,
        (at, id): (Timestamp, I),
    ) {
        let id: Value<'static> = id.into();
        let (at, id) = (self.bind(at), self.bind(id));
        let _ = write!(self.sql, " AND ({time}, id) {sign} ({at}, {id})");
    }

    /// Adds a value, and returns its place, such as `$3`.
    pub fn bind(&mut self, value: impl Into<Value<'v>>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The values to bind, in the order of their places.
    pub fn values(&self) -> &[Value<'v>] {
        &self.values
    }
}

/// A list of a workspace's rows by a time and an id, newest first. Its index has these columns.
pub trait Timeline: Clone + Send + 'static {
    type Id: Copy + Debug + FromColumn + Into<Value<'static>> + Send + 'static;
    /// A row in the form that answers need.
    type Row: Send + 'static;

    const TABLE: &'static str;
    /// The column of the time, without an alias.
    const TIME: &'static str;
    /// The columns of a row, for [`Self::read`].
    const COLUMNS: &'static str;
    /// The comparison of the time with the end of the period: `<` or `<=`.
    const UNTIL: &'static str;

    /// The workspace whose rows the list has.
    fn workspace(&self) -> WorkspaceId;
    /// The start of the period, and its end.
    fn period(&self) -> (Option<Timestamp>, Option<Timestamp>);
    /// Adds the conditions of the filter, without those of the period.
    fn filter<'s>(&'s self, conditions: &mut Conditions<'s>);
    fn read(row: &Row<'_>) -> Result<Self::Row, Error>;

    /// The conditions that the index answers: the ends of the stretch, and the period where the stretch has
    /// no end.
    fn bounds(&self, stretch: Stretch<(Timestamp, Self::Id)>) -> Conditions<'_> {
        let mut bounds = Conditions::of("workspace_id = $1", self.workspace());
        let (from, until) = self.period();
        match stretch.after {
            Some(after) => bounds.and_position(Self::TIME, "<", after),
            None => bounds.and(&format!("{} {}", Self::TIME, Self::UNTIL), until),
        }
        match stretch.last {
            Some(last) => bounds.and_position(Self::TIME, ">=", last),
            None => bounds.and(&format!("{} >=", Self::TIME), from),
        }
        bounds
    }

    /// [`Self::bounds`] and the conditions of the filter.
    fn conditions(&self, stretch: Stretch<(Timestamp, Self::Id)>) -> Conditions<'_> {
        let mut conditions = self.bounds(stretch);
        self.filter(&mut conditions);
        conditions
    }
}

impl<T: Timeline> List for T {
    type Position = (Timestamp, T::Id);
    type Row = T::Row;

    fn end_of_step(
        &self,
        tx: &mut Tx<'_>,
        after: Option<Self::Position>,
        rows: i64,
    ) -> Result<Option<Self::Position>, Error> {
        let mut bounds = self.bounds(Stretch { after, last: None });
        let offset = bounds.bind(rows - 1);
        let (table, time) = (T::TABLE, T::TIME);
        let sql = format!(
            "SELECT {time}, id FROM {table} WHERE {} ORDER BY {time} DESC, id DESC LIMIT 1 OFFSET {offset}",
            bounds.sql()
        );
        tx.optional(&sql, bounds.values(), decode)
    }

    fn count(&self, tx: &mut Tx<'_>, stretch: Stretch<Self::Position>) -> Result<i64, Error> {
        let conditions = self.conditions(stretch);
        let sql = format!("SELECT count(*) FROM {} WHERE {}", T::TABLE, conditions.sql());
        tx.one(&sql, conditions.values(), decode)
    }

    fn rows(
        &self,
        tx: &mut Tx<'_>,
        stretch: Stretch<Self::Position>,
        limit: i64,
        offset: i64,
    ) -> Result<Vec<T::Row>, Error> {
        let mut conditions = self.conditions(stretch);
        let (limit, offset) = (conditions.bind(limit), conditions.bind(offset));
        let (table, time, columns) = (T::TABLE, T::TIME, T::COLUMNS);
        let sql = format!(
            "SELECT {columns} FROM {table} WHERE {} ORDER BY {time} DESC, id DESC LIMIT {limit} OFFSET {offset}",
            conditions.sql()
        );
        tx.all(&sql, conditions.values(), T::read)
    }
}
