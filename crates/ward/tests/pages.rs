//! The project's Markdown pages: links lead somewhere, and the page of error codes is what the code says.
//!
//! `UPDATE_DOCS=1 cargo test -p ward --test pages` writes the page of error codes.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no page or source of the project.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", "snapshots"];

fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// The files with this ending below a folder.
fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                // Cargo marks its build folders, which can have any name.
                if !SKIPPED.contains(&name.as_str()) && !path.join("CACHEDIR.TAG").exists() {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A page's lines outside of fenced code, with code in back-ticks removed.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.extend(line.split('`').step_by(2));
            prose.push('\n');
        }
    }
    prose
}

/// The targets of `[text](target)` in a page.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let ends = |rest: &str| rest.split(')').next().unwrap_or_default().trim().to_owned();
    prose.split("](").skip(1).map(ends).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        }
        if let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

#[test]
fn every_link_within_the_project_leads_to_a_file_and_a_heading() {
    let root = root();
    let mut checked = 0;
    let mut broken = String::new();
    for page in files(&root, ".md") {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !found {
                let _ = writeln!(broken, "{}: {link}", page.strip_prefix(&root).unwrap().display());
            }
            checked += 1;
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{broken}");
    assert!(checked > 50, "only {checked} links were found");
}

#[test]
fn every_file_that_a_page_names_is_there() {
    let root = root();
    let folders = [
        "crates/",
        "docs/",
        "scripts/",
        "bench/",
        "contract/",
        "deploy/",
        "examples/",
        "migrations/",
        ".github/",
    ];
    let mut checked = 0;
    for page in files(&root, ".md") {
        let text = fs::read_to_string(&page).unwrap();
        for line in text.lines() {
            for code in line.split('`').skip(1).step_by(2) {
                let name = code.split_whitespace().next().unwrap_or_default();
                let is_path = folders.iter().any(|folder| name.starts_with(folder));
                if is_path && !name.contains(['*', '{', '…']) {
                    assert!(root.join(name).exists(), "{}: {name} is not there", page.display());
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 50, "only {checked} names were found");
}

#[test]
fn every_page_below_docs_is_reachable_from_the_readme() {
    let root = root();
    let mut reached = BTreeSet::new();
    let mut next = vec![root.join("README.md")];
    while let Some(page) = next.pop() {
        let page = fs::canonicalize(page).unwrap();
        let is_page = page.extension().is_some_and(|ending| ending == "md");
        if !is_page || !reached.insert(page.clone()) {
            continue;
        }
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let target = page.parent().unwrap().join(link.split('#').next().unwrap_or_default());
            if !link.contains("://") && target.is_file() {
                next.push(target);
            }
        }
    }
    for page in files(&root.join("docs"), ".md") {
        assert!(reached.contains(&page), "no page leads to {}", page.display());
    }
}

/// One error code: its statuses and its sentences.
#[derive(Default)]
struct Code {
    statuses: BTreeSet<u16>,
    sentences: BTreeSet<String>,
}

/// Constructors of errors and the statuses that each gives.
const CONSTRUCTORS: [(&str, &[u16]); 19] = [
    ("StatusCode::BAD_REQUEST,", &[400]),
    ("StatusCode::UNAUTHORIZED,", &[401]),
    ("StatusCode::FORBIDDEN,", &[403]),
    ("forbidden_because(", &[403]),
    ("StatusCode::NOT_FOUND,", &[404]),
    ("::missing(", &[404]),
    ("StatusCode::METHOD_NOT_ALLOWED,", &[405]),
    ("conflict(", &[409]),
    ("StatusCode::CONFLICT,", &[409]),
    ("::gone(", &[410]),
    ("StatusCode::PAYLOAD_TOO_LARGE,", &[413]),
    ("StatusCode::UNPROCESSABLE_ENTITY,", &[422]),
    ("unprocessable(", &[422]),
    ("StatusCode::TOO_MANY_REQUESTS,", &[429]),
    ("StatusCode::INTERNAL_SERVER_ERROR,", &[500]),
    ("StatusCode::SERVICE_UNAVAILABLE,", &[503]),
    ("unavailable(", &[503]),
    ("StatusCode::LOOP_DETECTED,", &[508]),
    // A quota: 429 where waiting helps.
    ("Self::new(status,", &[409, 429]),
];

/// A string literal at the beginning of `code`, with its escapes and line breaks resolved, and what follows it.
fn literal(code: &str) -> Option<(String, &str)> {
    let body = code.trim_start().strip_prefix('"')?;
    let mut text = String::new();
    let mut rest = body.chars();
    loop {
        match rest.next()? {
            '"' => return Some((text, rest.as_str())),
            '\\' => match rest.next()? {
                '\n' => {
                    let trimmed = rest.as_str().trim_start();
                    rest = trimmed.chars();
                }
                escaped => text.push(escaped),
            },
            plain => text.push(plain),
        }
    }
}

/// The value of the constant whose name stands at the beginning of `code`, defined in the same file.
fn constant<'c>(code: &'c str, file: &str) -> Option<(String, &'c str)> {
    let code = code.trim_start();
    let end = code.find(|c: char| !c.is_ascii_uppercase() && c != '_')?;
    let (name, rest) = code.split_at(end);
    let (_, value) = file.split_once(&format!("const {name}: &str = ")).filter(|_| !name.is_empty())?;
    Some((literal(value)?.0, rest))
}

/// Adds the code and the sentence that stand at the beginning of `code`.
fn note(codes: &mut BTreeMap<String, Code>, statuses: &[u16], code: &str, file: &str) {
    let Some((name, rest)) = literal(code).or_else(|| constant(code, file)) else { return };
    let is_code =
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') && !name.is_empty();
    let Some(rest) = rest.trim_start().strip_prefix(',').filter(|_| is_code) else { return };
    let known = codes.entry(name).or_default();
    known.statuses.extend(statuses);
    if let Some((sentence, _)) = literal(rest).filter(|(sentence, _)| !sentence.is_empty()) {
        known.sentences.insert(sentence);
    }
}

fn codes() -> BTreeMap<String, Code> {
    let mut codes = BTreeMap::new();
    for source in files(&root().join("crates"), ".rs") {
        if !source.components().any(|part| part.as_os_str() == "src") {
            continue;
        }
        let text = fs::read_to_string(&source).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for (constructor, statuses) in CONSTRUCTORS {
            for code in text.split(constructor).skip(1) {
                note(&mut codes, statuses, code, text);
            }
        }
        // Answers of the connection layer name the sentence first, then the code.
        for (status, number) in [
            ("let body = body(", 503),
            ("b\"400\" => (", 400),
            ("b\"414\" => (", 414),
            ("b\"431\" => (", 431),
        ] {
            for code in text.split(status).skip(1) {
                let Some((sentence, rest)) = literal(code) else { continue };
                let Some((name, _)) = literal(rest.trim_start_matches(',')) else { continue };
                let known: &mut Code = codes.entry(name).or_default();
                known.statuses.insert(number);
                known.sentences.insert(sentence);
            }
        }
    }
    codes
}

fn error_codes_page(codes: &BTreeMap<String, Code>) -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         An error's body is `{\"detail\": \"<sentence>\", \"error_code\": \"<code>\", \"request_id\": \"<id>\"}`. Clients decide by the\n\
         status and the code. Sentences are for people and may change in any release; [a code keeps its\n\
         meaning](compatibility.md#the-api). A 403 also has `missing` and `because`. [API conventions](api.md#errors) has the rest.\n\n\
         *A test makes this page from the code: `UPDATE_DOCS=1 cargo test -p ward --test pages`.*\n\n\
         | code | status | sentence |\n|---|---|---|\n",
    );
    for (name, code) in codes {
        let statuses: Vec<String> = code.statuses.iter().map(ToString::to_string).collect();
        let sentences: Vec<String> = code.sentences.iter().map(|text| text.replace('|', "\\|")).collect();
        let sentences =
            if sentences.is_empty() { "*depends on the request*".to_owned() } else { sentences.join("<br>") };
        let _ = writeln!(page, "| `{name}` | {} | {sentences} |", statuses.join(", "));
    }
    page
}

#[test]
fn the_page_of_error_codes_is_what_the_code_says() {
    let codes = codes();
    assert!(codes.len() > 60, "only {} codes were found", codes.len());
    let path = root().join("docs/design/error-codes.md");
    let page = error_codes_page(&codes);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/design/error-codes.md is stale: UPDATE_DOCS=1 cargo test -p ward --test pages"
    );
}

/// A code that a test expects and that the page does not have would show that the search misses a constructor.
#[test]
fn the_page_has_every_code_that_a_test_expects() {
    let codes = codes();
    let mut expected = 0;
    for test in files(&root().join("crates/ward/tests/it"), ".rs") {
        let text = fs::read_to_string(&test).unwrap();
        // `answer.refused(409), "code"`, `answer.refused_as(409, "code")` and `No::Because(409, "code")`.
        let forms = ["refused(", "refused_as(", "No::Because("];
        for rest in forms.iter().flat_map(|form| text.split(form).skip(1)) {
            let Some((status, rest)) = rest.split_at_checked(3) else { continue };
            let Ok(status) = status.parse::<u16>() else { continue };
            let Some((code, _)) = literal(rest.trim_start_matches(')').trim_start_matches(',')) else {
                continue;
            };
            let known = codes.get(&code).unwrap_or_else(|| panic!("{} expects `{code}`", test.display()));
            assert!(known.statuses.contains(&status), "{} expects {status} `{code}`", test.display());
            expected += 1;
        }
    }
    assert!(expected > 100, "only {expected} expectations were found");
}
