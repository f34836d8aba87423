//! The statements in the source, so that a statement that no walk reaches is tested too.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A statement in the source.
pub struct Written {
    /// The file, relative to the crate's sources.
    pub file: String,
    /// Its text, with the file's own constants filled in.
    pub sql: String,
}

impl Written {
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

/// Every statement of the product, file by file.
pub fn statements() -> Vec<Written> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find(&root, &mut files);
    files.sort();
    let found: Vec<Written> = files.iter().flat_map(|path| in_file(&root, path)).collect();
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

fn in_file(root: &Path, path: &Path) -> Vec<Written> {
    let text = fs::read_to_string(path).unwrap();
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let constant = Regex::new(r#"const (\w+): &str =\s*"((?:[^"\\]|\\[\s\S])*)""#).unwrap();
    let constants: Vec<(String, String)> = constant
        .captures_iter(&code)
        .map(|found| (format!("{{{}}}", &found[1]), one_line(&found[2])))
        .collect();
    let literal =
        Regex::new(r#""((?:SELECT|INSERT INTO|UPDATE|DELETE FROM) (?:[^"\\]|\\[\s\S])*)""#).unwrap();
    let file = path.strip_prefix(root).unwrap().display().to_string();
    literal
        .captures_iter(&code)
        .map(|found| {
            let mut sql = one_line(&found[1]);
            // A constant may contain other constants.
            while let Some((name, value)) = constants.iter().find(|(name, _)| sql.contains(name)) {
                sql = sql.replace(name, value);
            }
            Written { file: file.clone(), sql }
        })
        .collect()
}

/// A literal's lines as the compiler joins them.
fn one_line(literal: &str) -> String {
    Regex::new(r"\\\n\s*").unwrap().replace_all(literal, "").into_owned()
}
