//! The tables that two databases share, and the statements that move their rows.

use std::fmt::Write as _;

use super::value::{Kind, OwnedValue};
use crate::{Db, Error, Row, Value};

/// A table that both databases have.
pub(super) struct Table {
    pub(super) name: String,
    columns: Vec<(String, Kind)>,
    /// The indices of the primary key's columns, in the key's order.
    key: Vec<usize>,
}

/// The tables of both databases. Each table comes after the tables that it refers to.
pub(super) async fn read(source: &Db, target: &Db) -> Result<Vec<Table>, Error> {
    let mut tables = typed(target).await?;
    for table in &tables {
        let mut there: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut here = names(source, table.name.clone()).await?;
        there.sort_unstable();
        here.sort_unstable();
        if here != there {
            return Err(differ(&table.name));
        }
    }
    let known = source
        .read("copy.tables", |tx| {
            tx.all(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_steps' \
                 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
                &[],
                |row| row.get::<String>(0),
            )
        })
        .await?;
    if let Some(other) = known.iter().find(|name| tables.iter().all(|table| table.name != **name)) {
        return Err(differ(other));
    }
    let mut ordered: Vec<Table> = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let mut next = None;
        for (index, table) in tables.iter().enumerate() {
            let wanted = references(source, table.name.clone()).await?;
            let waits = |name: &String| *name != table.name && tables.iter().any(|other| other.name == *name);
            if !wanted.iter().any(waits) {
                next = Some(index);
                break;
            }
        }
        let next = next.ok_or_else(|| Error::schema("tables refer to each other in a circle"))?;
        ordered.push(tables.remove(next));
    }
    Ok(ordered)
}

fn differ(table: &str) -> Error {
    Error::schema(format!("the table {table} is not the same in both databases"))
}

/// The tables of the target, whose schema tells all portable types apart.
async fn typed(target: &Db) -> Result<Vec<Table>, Error> {
    let columns = target
        .read("copy.columns", |tx| {
            tx.all(
                "SELECT CAST(t.table_name AS text), CAST(c.column_name AS text), CAST(c.data_type AS text) \
                 FROM information_schema.tables t JOIN information_schema.columns c \
                   ON c.table_schema = t.table_schema AND c.table_name = t.table_name \
                 WHERE t.table_schema = current_schema() AND t.table_type = 'BASE TABLE' \
                   AND t.table_name <> 'schema_steps' \
                 ORDER BY 1, c.ordinal_position",
                &[],
                |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?, row.get::<String>(2)?)),
            )
        })
        .await?;
    let keys = target
        .read("copy.keys", |tx| {
            tx.all(
                "SELECT CAST(k.table_name AS text), CAST(k.column_name AS text) \
                 FROM information_schema.table_constraints c JOIN information_schema.key_column_usage k \
                   ON k.constraint_schema = c.constraint_schema AND k.constraint_name = c.constraint_name \
                  AND k.table_name = c.table_name \
                 WHERE c.table_schema = current_schema() AND c.constraint_type = 'PRIMARY KEY' \
                 ORDER BY 1, k.ordinal_position",
                &[],
                |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?)),
            )
        })
        .await?;
    let mut tables: Vec<Table> = Vec::new();
    for (table, column, kind) in columns {
        let kind = Kind::named(&kind).ok_or_else(|| {
            Error::schema(format!("the column {table}.{column} has the type {kind}, which cannot be copied"))
        })?;
        match tables.last_mut() {
            Some(last) if last.name == table => last.columns.push((column, kind)),
            _ => tables.push(Table { name: table, columns: vec![(column, kind)], key: Vec::new() }),
        }
    }
    for (name, column) in keys {
        if let Some(table) = tables.iter_mut().find(|table| table.name == name) {
            table.key.extend(table.columns.iter().position(|(known, _)| *known == column));
        }
    }
    match tables.iter().find(|table| table.key.is_empty()) {
        Some(table) => Err(Error::schema(format!("the table {} has no primary key", table.name))),
        None => Ok(tables),
    }
}

async fn names(source: &Db, table: String) -> Result<Vec<String>, Error> {
    source
        .read("copy.names", move |tx| {
            tx.all("SELECT name FROM pragma_table_info($1)", &[table.as_str().into()], |row| row.get(0))
        })
        .await
}

async fn references(source: &Db, table: String) -> Result<Vec<String>, Error> {
    source
        .read("copy.references", move |tx| {
            tx.all(
                "SELECT DISTINCT \"table\" FROM pragma_foreign_key_list($1)",
                &[table.as_str().into()],
                |row| row.get(0),
            )
        })
        .await
}

/// The names in double quotes, separated by commas.
fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

impl Table {
    fn columns(&self) -> String {
        list(self.columns.iter().map(|(name, _)| name.as_str()))
    }

    fn keys(&self) -> String {
        list(self.key.iter().map(|&index| self.columns[index].0.as_str()))
    }

    pub(super) async fn count(&self, db: &Db) -> Result<u64, Error> {
        let sql = format!("SELECT count(*) FROM \"{}\"", self.name);
        let counted: i64 = db.read_long("copy.count", move |tx| tx.one(&sql, &[], |row| row.get(0))).await?;
        Ok(u64::try_from(counted).unwrap_or(0))
    }

    /// The next rows after the key `after`, in the order of keys; `None` at the end of the table.
    pub(super) async fn page(
        &self,
        db: &Db,
        after: Option<Vec<OwnedValue>>,
        most: usize,
    ) -> Result<Option<Vec<Vec<OwnedValue>>>, Error> {
        let mut sql = format!("SELECT {} FROM \"{}\"", self.columns(), self.name);
        if let Some(after) = &after {
            let places: Vec<String> = (1..=after.len()).map(|number| format!("${number}")).collect();
            let _ = write!(sql, " WHERE ({}) > ({})", self.keys(), places.join(", "));
        }
        let _ = write!(sql, " ORDER BY {} LIMIT {most}", self.keys());
        let kinds: Vec<Kind> = self.columns.iter().map(|(_, kind)| *kind).collect();
        let rows = db
            .read("copy.page", move |tx| {
                let values: Vec<Value<'_>> = after.iter().flatten().map(OwnedValue::value).collect();
                tx.all(&sql, &values, |row: &Row<'_>| {
                    kinds.iter().enumerate().map(|(index, kind)| kind.read(row, index)).collect()
                })
            })
            .await?;
        Ok(if rows.is_empty() { None } else { Some(rows) })
    }

    /// The values of a row's primary key.
    pub(super) fn key_of(&self, row: Option<&Vec<OwnedValue>>) -> Vec<OwnedValue> {
        row.map(|row| self.key.iter().map(|&index| row[index].clone()).collect()).unwrap_or_default()
    }

    pub(super) fn insert(&self, rows: usize) -> String {
        let mut sql = format!("INSERT INTO \"{}\" ({}) VALUES ", self.name, self.columns());
        let mut number = 0;
        for row in 0..rows {
            sql.push_str(if row == 0 { "(" } else { ", (" });
            for column in 0..self.columns.len() {
                number += 1;
                let _ = write!(sql, "{}${number}", if column == 0 { "" } else { ", " });
            }
            sql.push(')');
        }
        sql
    }

    pub(super) fn delete_some(&self, most: usize) -> String {
        let (name, keys) = (&self.name, self.keys());
        format!("DELETE FROM \"{name}\" WHERE ({keys}) IN (SELECT {keys} FROM \"{name}\" LIMIT {most})")
    }
}
