//! Just enough of SQL's grammar to change words outside of quotes and comments.

use std::fmt::Write as _;

/// One piece of a statement's text. The pieces joined give the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'s> {
    /// White space or a comment.
    Blank(&'s str),
    /// A keyword or an unquoted name.
    Word(&'s str),
    /// Text in single quotes, or a name in double quotes, with its quotes.
    Quoted(&'s str),
    /// A parameter `$n`, with its number n.
    Parameter(u32),
    /// Anything else: a number, or one character.
    Other(&'s str),
}

/// The pieces of `sql`, in order.
pub(crate) fn tokens(sql: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        let (token, length) = first(rest)?;
        rest = &rest[length..];
        Some(token)
    })
}

fn first(rest: &str) -> Option<(Token<'_>, usize)> {
    let head = rest.chars().next()?;
    let upto = |pattern: fn(char) -> bool| rest.find(|c| !pattern(c)).unwrap_or(rest.len());
    Some(match head {
        c if c.is_ascii_whitespace() => {
            let end = upto(|c| c.is_ascii_whitespace());
            (Token::Blank(&rest[..end]), end)
        }
        '-' if rest.starts_with("--") => {
            let end = rest.find('\n').unwrap_or(rest.len());
            (Token::Blank(&rest[..end]), end)
        }
        '/' if rest.starts_with("/*") => {
            let end = rest[2..].find("*/").map_or(rest.len(), |at| at + 4);
            (Token::Blank(&rest[..end]), end)
        }
        // A doubled quote ends one quoted piece and starts the next. The pieces still join to the same text.
        '\'' | '"' => {
            let end = rest[1..].find(head).map_or(rest.len(), |at| at + 2);
            (Token::Quoted(&rest[..end]), end)
        }
        c if is_word_start(c) => {
            let end = upto(|c| is_word_start(c) || c.is_ascii_digit() || c == '$');
            (Token::Word(&rest[..end]), end)
        }
        c if c.is_ascii_digit() => {
            let end = upto(|c| c.is_ascii_alphanumeric() || c == '.');
            (Token::Other(&rest[..end]), end)
        }
        '$' => {
            let end = rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |at| at + 1);
            match rest[1..end].parse() {
                Ok(number) => (Token::Parameter(number), end),
                Err(_) => (Token::Other(&rest[..1]), 1),
            }
        }
        other => (Token::Other(&rest[..other.len_utf8()]), other.len_utf8()),
    })
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

/// `sql` as SQLite takes it. There, `$n` would be a *name*, numbered by first appearance, and `COLLATE "C"`
/// is called `BINARY`.
pub(crate) fn for_sqlite(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 8);
    let mut collate = false;
    for token in tokens(sql) {
        push_sqlite(&mut out, token, &mut collate);
    }
    out
}

fn push_sqlite(out: &mut String, token: Token<'_>, collate: &mut bool) {
    match token {
        Token::Blank(text) => return out.push_str(text),
        Token::Quoted("\"C\"") if *collate => out.push_str("BINARY"),
        Token::Parameter(number) => {
            // Writing into a String cannot fail.
            let _ = write!(out, "?{number}");
        }
        Token::Word(text) | Token::Quoted(text) | Token::Other(text) => out.push_str(text),
    }
    *collate = matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("collate"));
}

/// A migration step's text for SQLite. PostgreSQL's types get SQLite's names: an id becomes 16 bytes and a
/// timestamp microseconds, because text would make files two thirds larger. Every table becomes `STRICT`, so
/// that a wrong type is an error as on PostgreSQL. It also becomes `WITHOUT ROWID`, so that it is one tree
/// and not two.
pub(crate) fn schema_for_sqlite(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut collate = false;
    let mut words = Vec::new();
    let mut after_dot = false;
    for token in tokens(sql) {
        match token {
            Token::Other(";") => finish_table(&mut out, &mut words),
            Token::Word(word) => words.push(word),
            _ => {}
        }
        let type_name = match token {
            Token::Word(word) if !after_dot => sqlite_type(word),
            _ => None,
        };
        after_dot = token == Token::Other(".");
        match type_name {
            Some(name) => out.push_str(name),
            None => push_sqlite(&mut out, token, &mut collate),
        }
    }
    finish_table(&mut out, &mut words);
    out
}

/// Ends the statement that consists of `words`. A line break precedes the table options, so that a trailing
/// comment cannot swallow them.
fn finish_table(out: &mut String, words: &mut Vec<&str>) {
    let is_table = matches!(words.as_slice(), [create, table, ..]
        if create.eq_ignore_ascii_case("create") && table.eq_ignore_ascii_case("table"));
    if is_table {
        out.push_str("\nSTRICT, WITHOUT ROWID");
    }
    words.clear();
}

fn sqlite_type(word: &str) -> Option<&'static str> {
    const TYPES: [(&str, &str); 7] = [
        ("uuid", "BLOB"),
        ("timestamptz", "INTEGER"),
        ("jsonb", "TEXT"),
        ("boolean", "INTEGER"),
        ("bigint", "INTEGER"),
        ("text", "TEXT"),
        ("bytea", "BLOB"),
    ];
    TYPES.iter().find(|(portable, _)| word.eq_ignore_ascii_case(portable)).map(|(_, sqlite)| *sqlite)
}

/// Whether `sql` begins or ends a transaction. A closure *is* a transaction: one that ended its own would end
/// its whole batch.
pub(crate) fn controls_transaction(sql: &str) -> bool {
    const WORDS: [&str; 8] = ["begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"];
    let first = tokens(sql).find(|token| !matches!(token, Token::Blank(_) | Token::Other(";")));
    matches!(first, Some(Token::Word(word)) if WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// The number of values that `sql` takes: the highest number among its parameters.
pub(crate) fn parameters(sql: &str) -> usize {
    let numbers = tokens(sql).filter_map(|token| match token {
        Token::Parameter(number) => usize::try_from(number).ok(),
        _ => None,
    });
    numbers.max().unwrap_or(0)
}

/// Whether `sql` changes data: it is not a query, or a query with a change inside.
pub(crate) fn changes(sql: &str) -> bool {
    const QUERIES: [&str; 6] = ["select", "with", "values", "table", "show", "explain"];
    const CHANGES: [&str; 5] = ["insert", "update", "delete", "merge", "into"];
    let is_one_of = |word: &str, list: &[&str]| list.iter().any(|known| word.eq_ignore_ascii_case(known));
    let mut words = tokens(sql).filter_map(|token| match token {
        Token::Word(word) => Some(word),
        _ => None,
    });
    words.next().is_none_or(|first| !is_one_of(first, &QUERIES))
        || words.any(|word| is_one_of(word, &CHANGES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_rewritten_only_where_they_are_parameters() {
        for (portable, sqlite) in [
            ("select $1, $12 from t where a=$2", "select ?1, ?12 from t where a=?2"),
            ("select '$1', \"$2\", 'it''s $3', $1", "select '$1', \"$2\", 'it''s $3', ?1"),
            ("select 1 -- $1\n, $2", "select 1 -- $1\n, ?2"),
            ("select /* $1 */ $2", "select /* $1 */ ?2"),
            ("select a$1, $x, $ from t", "select a$1, $x, $ from t"),
            ("select 'ä$1' || $1 || ä", "select 'ä$1' || ?1 || ä"),
            ("select '$1", "select '$1"),
            ("select /* $1", "select /* $1"),
            ("order by name collate \"C\", \"C\"", "order by name collate BINARY, \"C\""),
        ] {
            assert_eq!(for_sqlite(portable), sqlite);
        }
    }

    #[test]
    fn tables_are_spelled_for_sqlite() {
        assert_eq!(
            schema_for_sqlite(
                "-- a uuid\ncreate table \"text\" (id uuid primary key, at timestamptz, j jsonb, b boolean default true,\n n bigint check (n <> 0), t text collate \"C\", x bytea, c text default 'uuid;');\ncreate index i on \"text\" (n, t.uuid); "
            ),
            "-- a uuid\ncreate table \"text\" (id BLOB primary key, at INTEGER, j TEXT, b INTEGER default true,\n n INTEGER check (n <> 0), t TEXT collate BINARY, x BLOB, c TEXT default 'uuid;')\nSTRICT, WITHOUT ROWID;\ncreate index i on \"text\" (n, t.uuid); "
        );
        let unended = schema_for_sqlite("create table t (a bigint primary key) -- the end");
        assert_eq!(unended, "create table t (a INTEGER primary key) -- the end\nSTRICT, WITHOUT ROWID");
    }

    #[test]
    fn parameters_and_changes_are_seen() {
        assert_eq!(parameters("select $2, '$9', $1 -- $8"), 2);
        assert_eq!(parameters("select 1"), 0);
        for change in [
            "insert into t values (1)",
            "-- x\nDELETE FROM t",
            "create table t (a bigint)",
            "with gone as (delete from t returning a) select * from gone",
            "select a into u from t",
        ] {
            assert!(changes(change), "{change}");
        }
        for query in [
            "select 'insert'",
            "(select 1) union (select 2)",
            "with n as (select 1) select \"update\" from n",
        ] {
            assert!(!changes(query), "{query}");
        }
    }

    #[test]
    fn transaction_words_are_seen_through_comments() {
        assert!(controls_transaction(" -- x\n /* y */ ; Commit"));
        assert!(controls_transaction("savepoint s"));
        assert!(!controls_transaction("select 'commit'"));
        assert!(!controls_transaction("update t set a = case when b then 1 end"));
        assert!(!controls_transaction(""));
    }
}
