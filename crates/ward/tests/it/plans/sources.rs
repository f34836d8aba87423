//! The statements in the source, so that a statement that no walk reaches is tested too.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::{Captures, Regex};

pub struct SourceStatement {
    /// The file, relative to the crate's sources.
    pub file: String,
    /// Its text, with constants filled in.
    pub sql: String,
}

impl SourceStatement {
    /// Whether parts of it are added at run time, such as the conditions of a filter.
    pub fn is_open(&self) -> bool {
        self.sql.contains('{')
    }

    /// Whether `sent` is a form of this statement at run time.
    pub fn became(&self, sent: &str) -> bool {
        let placeholder = Regex::new(r"\{\w*\}").unwrap();
        let pieces: Vec<&str> = placeholder.split(&self.sql).collect();
        let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
        let mut rest = sent;
        sent.starts_with(first)
            && sent.ends_with(last)
            && pieces.iter().all(|piece| match rest.split_once(piece) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
    }
}

/// Columns below this number stay in the snapshots, where they say more of the statement than "…".
const MANY_COLUMNS: usize = 4;

/// The constant texts of the sources by the last parts of their names: `LIVE`, `Member::COLUMNS`.
type Constants = HashMap<String, String>;

/// Every statement of the product, file by file.
pub fn statements() -> Vec<SourceStatement> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find(&root, &mut files);
    files.sort();
    let files: Vec<(String, String)> = files
        .iter()
        .map(|path| (path.strip_prefix(&root).unwrap().display().to_string(), code(path)))
        .collect();
    // A constant of one file can be a part of another's.
    let mut shared = Constants::new();
    for _ in 0..2 {
        let more: Vec<Constants> = files.iter().map(|(_, code)| constants(code, &shared)).collect();
        shared.extend(more.into_iter().flatten());
    }
    let found: Vec<SourceStatement> = files
        .iter()
        .flat_map(|(file, code)| {
            let known: Constants = shared.clone().into_iter().chain(constants(code, &shared)).collect();
            in_code(code, &known).into_iter().map(|sql| SourceStatement { file: file.clone(), sql })
        })
        .collect();
    assert!(found.len() > 150, "only {} statements are found", found.len());
    found
}

/// The files that may contain SQL: those that `architecture.rs` allows.
fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, files);
        } else if ["store.rs", "deliveries/outbox.rs", "gate/idempotency.rs"]
            .iter()
            .any(|end| path.ends_with(end))
        {
            files.push(path);
        }
    }
}

/// The text of a file without the lines that are comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    code.join("\n")
}

/// The constants of a file, and the columns of its structs.
fn constants(code: &str, shared: &Constants) -> Constants {
    let mut known = shared.clone();
    let constant = Regex::new(r"const (\w+): &(?:'static )?str =\s*").unwrap();
    let described = Regex::new(r#"columns! \{\s*(\w+)(?: as "(\w+)")? \{"#).unwrap();
    // A constant may contain others that stand below it.
    for _ in 0..4 {
        for found in constant.captures_iter(code) {
            let end = found.get(0).unwrap().end();
            if let Some(text) = evaluate(&code[end..end + length(&code[end..], ';')], &known) {
                known.insert(found[1].to_owned(), text);
            }
        }
        for found in described.captures_iter(code) {
            let end = found.get(0).unwrap().end();
            let fields = &code[end..end + length(&code[end..], '}')];
            let fields = &fields[..length(fields, ';')];
            let alias = found.get(2).map(|alias| format!("{}.", alias.as_str())).unwrap_or_default();
            let columns: Vec<String> = split(fields)
                .into_iter()
                .map(|field| {
                    let field = field.split(" => ").next().unwrap();
                    match field.split_once(": ") {
                        Some((_, column)) => evaluate(column, &known).unwrap_or("{}".to_owned()),
                        None => format!("{alias}{field}"),
                    }
                })
                .collect();
            known.insert(format!("{}::COLUMNS", &found[1]), columns.join(", "));
        }
    }
    known.retain(|name, text| shared.get(name) != Some(text));
    known
}

/// The statements of a file: the literals, and those that the macros of `ward-db` make.
fn in_code(code: &str, known: &Constants) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code.to_owned();
    // A whole statement that is a constant has the name `SQL`; others are parts of statements.
    let constant = Regex::new(r"const (\w+): &(?:'static )?str =\s*").unwrap();
    while let Some(at) = constant.captures(&rest) {
        let (start, end) = (at.get(0).unwrap().start(), at.get(0).unwrap().end());
        let value = end + length(&rest[end..], ';');
        if &at[1] == "SQL" {
            found.extend(evaluate(&rest[end..value], known));
        }
        rest.replace_range(start..value, "");
    }
    let made = Regex::new(r"\b(select|sql|insert|insert_later|update|update_later)!\(").unwrap();
    while let Some(at) = made.captures(&rest) {
        let (start, end) = (at.get(0).unwrap().start(), at.get(0).unwrap().end());
        let stop = end + length(&rest[end..], ')');
        let whole = rest[start..=stop].to_owned();
        let inner = &rest[end..stop];
        match &at[1] {
            "select" | "sql" => found.extend(evaluate(&whole, known)),
            "insert" | "insert_later" => found.push(insert(inner, known)),
            _ => found.push(update(inner, known)),
        }
        rest.replace_range(start..=stop, "");
    }
    let literal =
        Regex::new(r#""((?:SELECT|INSERT INTO|UPDATE|DELETE FROM) (?:[^"\\]|\\[\s\S])*)""#).unwrap();
    let name = Regex::new(r"\{(\w+)\}").unwrap();
    found.extend(literal.captures_iter(&rest).map(|literal| {
        let mut sql = one_line(&literal[1]);
        for _ in 0..3 {
            let filled = name.replace_all(&sql, |name: &Captures<'_>| {
                known.get(&name[1]).cloned().unwrap_or_else(|| name[0].to_owned())
            });
            sql = filled.into_owned();
        }
        sql
    }));
    found.retain(|sql| ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|verb| sql.starts_with(verb)));
    found
}

/// The text of a constant expression; `None` for one that only the program knows.
fn evaluate(expression: &str, known: &Constants) -> Option<String> {
    let expression = expression.trim();
    if let Some(literal) = expression.strip_prefix('"') {
        return Some(one_line(literal.strip_suffix('"')?));
    }
    if let Some(parts) = expression.strip_prefix("sql!(") {
        let parts = split(parts.strip_suffix(')')?);
        return parts.iter().map(|part| evaluate(part, known)).collect();
    }
    if let Some(parts) = expression.strip_prefix("select!(") {
        let parts = split(parts.strip_suffix(')')?);
        let columns = evaluate(&format!("{}::COLUMNS", parts[0]), known)?;
        let rest: Option<String> = parts[1..].iter().map(|part| evaluate(part, known)).collect();
        return Some(format!("SELECT {columns} {}", rest?));
    }
    let name = match expression.rsplit_once("::") {
        Some((of, "COLUMNS")) => format!("{}::COLUMNS", of.rsplit("::").next()?),
        Some((_, name)) => name.to_owned(),
        None => expression.to_owned(),
    };
    known.get(&name).cloned()
}

/// The table, the columns in braces, and the text after them.
fn row(inner: &str) -> (String, Vec<String>, &str) {
    let table = inner.split('"').nth(1).unwrap().to_owned();
    let open = inner.find('{').unwrap() + 1;
    let close = open + length(&inner[open..], '}');
    let columns = split(&inner[open..close]).into_iter();
    let columns = columns.map(|column| column.split(':').next().unwrap().to_owned()).collect();
    (table, columns, inner[close + 1..].trim())
}

fn insert(inner: &str, known: &Constants) -> String {
    let (table, columns, end) = row(inner);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let end = if end.is_empty() { String::new() } else { format!(" {}", evaluate(end, known).unwrap()) };
    ward_db::insert_statement(&table, &columns, &end)
}

fn update(inner: &str, known: &Constants) -> String {
    let (table, columns, rest) = row(inner);
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rest = split(rest);
    let bound = split(rest[1].trim_matches(['[', ']'])).len();
    ward_db::update_statement(&table, &columns, &evaluate(&rest[0], known).unwrap(), bound)
}

/// The number of bytes before `end`, outside of texts and brackets.
fn length(code: &str, end: char) -> usize {
    let (mut depth, mut in_text, mut escaped) = (0_i32, false, false);
    for (at, one) in code.char_indices() {
        if in_text {
            in_text = escaped || one != '"';
            escaped = !escaped && one == '\\';
            continue;
        }
        if one == end && depth == 0 {
            return at;
        }
        match one {
            '"' => in_text = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The parts between commas, outside of texts and brackets.
fn split(code: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = code;
    while !rest.trim().is_empty() {
        let end = length(rest, ',');
        parts.push(rest[..end].trim().to_owned());
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    parts
}

/// A literal's lines as the compiler joins them.
fn one_line(literal: &str) -> String {
    Regex::new(r"\\\n\s*").unwrap().replace_all(literal, "").into_owned()
}

/// The statement with "…" in place of columns that are read or written without a condition. A new column then leaves
/// the snapshots as they are, because a plan depends on the other parts.
pub fn without_columns(sql: &str) -> String {
    let inserted = Regex::new(r"^(INSERT INTO \w+) \([^()]*\) VALUES \([^()]*\)").unwrap();
    let updated = Regex::new(r"^UPDATE \w+ SET ").unwrap();
    let (start, end, column) = match updated.find(sql) {
        Some(found) => (found.end(), " WHERE ", r"^\w+ = \$\d+$"),
        None if sql.starts_with("SELECT ") => ("SELECT ".len(), " FROM ", r"^(\w+\.)?\w+$"),
        None => return inserted.replace(sql, "$1 (…)").into_owned(),
    };
    let outside = |at: &usize| {
        let before = &sql[start..*at];
        before.matches('(').count() == before.matches(')').count()
    };
    let end = sql.match_indices(end).map(|(at, _)| at).find(outside).unwrap_or(sql.len());
    let column = Regex::new(column).unwrap();
    let mut columns: Vec<String> = split(&sql[start..end])
        .into_iter()
        .map(|part| if column.is_match(&part) { "…".to_owned() } else { part })
        .collect();
    if columns.iter().filter(|part| *part == "…").count() < MANY_COLUMNS {
        return sql.to_owned();
    }
    columns.dedup();
    format!("{}{}{}", &sql[..start], columns.join(", "), &sql[end..])
}
