//! No dependency is declared and not used, in any crate of the project. Checked from the text, as a compiler that sees one
//! target at a time cannot: a dependency counts as used when a source of its kind names it.

#![expect(clippy::unwrap_used, reason = "a test that fails stops at the failing line")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn names(manifest: &str, table: &str) -> BTreeSet<String> {
    let header = format!("[{table}]");
    manifest
        .lines()
        .skip_while(|line| line.trim() != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| {
            let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')?;
            (end > 0).then(|| line[..end].to_owned())
        })
        .collect()
}

/// All code below these folders of a crate, without comments.
fn code(package: &Path, folders: &[&str]) -> String {
    let mut all = String::new();
    let mut next: Vec<PathBuf> = folders.iter().map(|folder| package.join(folder)).collect();
    while let Some(path) = next.pop() {
        if path.is_dir() {
            next.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() && path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(path).unwrap();
            all.extend(
                text.lines()
                    .filter(|line| !line.trim_start().starts_with("//"))
                    .flat_map(|line| [line, "\n"]),
            );
        }
    }
    all
}

/// Whether code names a crate, as in `name::thing`, `use name;` or `use name as other`.
fn uses(code: &str, package: &str) -> bool {
    let name = package.replace('-', "_");
    code.match_indices(&name).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let after = &code[at + name.len()..];
        let begins = !before.is_alphanumeric() && before != '_' && before != ':';
        let imported = code[..at].ends_with("use ") && after.starts_with([';', ' ']);
        begins && (after.starts_with("::") || imported)
            // A path from the root of all crates: `::name::thing`.
            || code[..at].ends_with(" ::") && after.starts_with("::")
    })
}

#[test]
fn every_dependency_is_used() {
    let mut packages: Vec<PathBuf> =
        fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path()).collect();
    packages.push(root().join("bench"));
    let mut unused = Vec::new();
    let mut declared = BTreeSet::new();
    let mut checked = 0;
    for package in packages {
        let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
        for (table, folders) in [
            ("dependencies", &["src", "build.rs"][..]),
            ("dev-dependencies", &["src", "tests", "examples", "benches"]),
            ("build-dependencies", &["build.rs"]),
        ] {
            let code = code(&package, folders);
            for name in names(&manifest, table) {
                if !uses(&code, &name) {
                    unused.push(format!("{}: {name} in [{table}]", package.file_name().unwrap().display()));
                }
                declared.insert(name);
                checked += 1;
            }
        }
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in names(&workspace, "workspace.dependencies") {
        if !declared.contains(&name) {
            unused.push(format!("the workspace: {name}"));
        }
    }
    assert!(unused.is_empty(), "declared and not used:\n{}", unused.join("\n"));
    assert!(checked > 100, "only {checked} dependencies were found");
}

/// `bench/` is a workspace of its own, so the product's build does not notice when this ends.
#[test]
fn measurements_import_nothing_from_the_product() {
    let code = code(&root().join("bench"), &["src"]);
    for package in ["ward", "ward-contract", "ward-guard", "ward-server", "ward-ehr", "ward-test"] {
        assert!(!uses(&code, package), "bench/src names {package}");
    }
    assert!(uses(&code, "ward-db"), "the search finds no crate at all");
}

#[test]
fn a_crate_is_used_only_where_code_names_it() {
    for used in [
        "use serde_json::json;",
        "let a = serde_json::Value::Null;",
        "use serde_json;",
        "(serde_json::to_string)",
    ] {
        assert!(uses(used, "serde-json"), "{used}");
    }
    for unused in
        ["let serde_json = 1;", "my_serde_json::x()", "crate::serde_json::x()", "use serde_jsonx::a;"]
    {
        assert!(!uses(unused, "serde-json"), "{unused}");
    }
}
