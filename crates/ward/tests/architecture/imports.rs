//! Circles of imports: files that need each other can only be understood, moved and tested together.
//!
//! An arrow leads from a file to the file that declares what it names, in a `use` or in a path. Re-exports are followed to
//! their end and are no arrows themselves, and neither is `mod name;`. Unit tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{root, sources};

/// The most files that may form a circle. A room's nouns, rows and rules may know each other.
const LARGEST: usize = 4;

/// A module's path within its crate.
type Path = Vec<String>;

/// The references of one file to others.
#[derive(Default)]
struct File {
    /// Names that `use` brings in, with their paths.
    uses: BTreeMap<String, Path>,
    /// The same names and paths for `pub use`.
    exports: BTreeMap<String, Path>,
    /// Everything else, without comments and texts.
    body: String,
}

/// The files of one crate by their modules.
struct Crate(BTreeMap<Path, File>);

impl Crate {
    fn read(name: &str) -> Self {
        let mut files = BTreeMap::new();
        let src = format!("crates/{name}/src");
        for source in sources(&src) {
            let below = source.path.strip_prefix(&format!("{src}/")).unwrap();
            let mut module: Path = below.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            files.insert(module, File::read(&source.text));
        }
        // Modules of unit tests that have files of their own.
        let tests: BTreeSet<Path> = files
            .iter()
            .flat_map(|(module, file)| {
                let declared = file.body.split("#[cfg(test)]").skip(1);
                let names = declared.filter_map(|rest| rest.trim_start().strip_prefix("mod ")).map(word);
                names.map(|name| [module.clone(), vec![name.to_owned()]].concat())
            })
            .collect();
        files.retain(|module, _| !tests.contains(module));
        Self(files)
    }

    /// The file that declares what `path` names, as seen from `module`. `None`: another crate, a local name, or a module.
    fn declaring(&self, module: &Path, path: &[String], seen: &mut BTreeSet<(Path, String)>) -> Option<Path> {
        let (head, rest) = path.split_first()?;
        let (mut at, mut rest) = match head.as_str() {
            "crate" => (Vec::new(), rest),
            "self" => (module.clone(), rest),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                (module[..module.len().checked_sub(up)?].to_vec(), &path[up..])
            }
            name => {
                let child = [module.clone(), vec![name.to_owned()]].concat();
                if !self.0.contains_key(&child) {
                    let file = &self.0[module];
                    let used = file.uses.get(name).or_else(|| file.exports.get(name))?;
                    if !seen.insert((module.clone(), name.to_owned())) {
                        return None;
                    }
                    return self.declaring(module, &[used.clone(), rest.to_vec()].concat(), seen);
                }
                (module.clone(), path)
            }
        };
        while let Some((next, after)) = rest.split_first() {
            let child = [at.clone(), vec![next.clone()]].concat();
            if !self.0.contains_key(&child) {
                break;
            }
            (at, rest) = (child, after);
        }
        let item = rest.first()?;
        if let Some(exported) = self.0.get(&at)?.exports.get(item)
            && seen.insert((at.clone(), item.clone()))
            && let Some(found) = self.declaring(&at, &[exported.clone(), rest[1..].to_vec()].concat(), seen)
        {
            return Some(found);
        }
        Some(at)
    }

    /// The arrows, with the paths that make them.
    fn arrows(&self) -> BTreeMap<&Path, BTreeMap<Path, BTreeSet<String>>> {
        let mut arrows = BTreeMap::new();
        for (module, file) in &self.0 {
            let bare = file.exports.iter().filter(|(name, _)| has_word(&file.body, name));
            let used = file.uses.values().chain(bare.map(|(_, path)| path)).cloned();
            let mut out: BTreeMap<Path, BTreeSet<String>> = BTreeMap::new();
            for path in used.chain(paths_in(&file.body)) {
                if let Some(to) = self.declaring(module, &path, &mut BTreeSet::new())
                    && to != *module
                {
                    out.entry(to).or_default().insert(path.join("::"));
                }
            }
            arrows.insert(module, out);
        }
        arrows
    }

    /// The circles, each with its arrows written out.
    fn circles(&self) -> Vec<(usize, String)> {
        let arrows = self.arrows();
        let reached = |from: &Path| {
            let mut found: BTreeSet<&Path> = BTreeSet::new();
            let mut open: Vec<&Path> = arrows[from].keys().collect();
            while let Some(next) = open.pop() {
                if found.insert(next) {
                    open.extend(arrows[next].keys());
                }
            }
            found
        };
        let reach: BTreeMap<&Path, BTreeSet<&Path>> =
            self.0.keys().map(|from| (from, reached(from))).collect();
        let mut circles: BTreeSet<Vec<&Path>> = BTreeSet::new();
        for from in self.0.keys().filter(|from| reach[*from].contains(*from)) {
            circles.insert(
                self.0.keys().filter(|to| reach[from].contains(to) && reach[to].contains(from)).collect(),
            );
        }
        let written = |circle: Vec<&Path>| {
            let lines = circle.iter().flat_map(|from| {
                let within = arrows[from].iter().filter(|(to, _)| circle.contains(to));
                within.map(|(to, why)| format!("  {} -> {}  {why:?}", from.join("/"), to.join("/")))
            });
            (circle.len(), lines.collect::<Vec<_>>().join("\n"))
        };
        circles.into_iter().map(written).collect()
    }
}

impl File {
    fn read(text: &str) -> Self {
        let mut file = Self::default();
        let whole = code_of(text);
        let mut rest = whole.as_str();
        while let Some(at) = find_use(rest) {
            let (before, from) = rest.split_at(at);
            let (tree, after) = from["use ".len()..].split_once(';').unwrap();
            let before = before.trim_end();
            let words = before.rsplit([';', '{', '}', ']']).next().unwrap_or_default().trim_start();
            let public = words == "pub" || words.starts_with("pub(") && words.ends_with(')');
            let mut names = Vec::new();
            expand(tree, &[], &mut names);
            if public { &mut file.exports } else { &mut file.uses }.extend(names);
            file.body.push_str(before);
            file.body.push('\n');
            rest = after;
        }
        file.body.push_str(rest);
        file
    }
}

/// The code without comments, and without what texts and characters hold.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|after| after.bytes().take_while(|byte| *byte == b'#').count());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(hashes) = raw.filter(|hashes| rest[1 + hashes..].starts_with('"'))
            && !code.ends_with(|before: char| before.is_alphanumeric() || before == '_')
        {
            let end = format!("\"{}", "#".repeat(hashes));
            let opened = hashes + 2;
            rest[opened..].find(&end).map_or(rest.len(), |at| opened + at + end.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("'\\") || c == '\'' && rest.chars().nth(2) == Some('\'') {
            // A character; a lifetime has no second apostrophe there.
            let second = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
            rest[second..].find('\'').map_or(rest.len(), |at| second + at + 1)
        } else {
            code.push(c);
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    code
}

/// Where the next `use` statement begins.
fn find_use(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].find("use ").map(|at| from + at) {
        if !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The names that a tree of `use` brings in, with their paths.
fn expand(tree: &str, prefix: &[String], out: &mut Vec<(String, Path)>) {
    let tree = tree.trim();
    if let Some((head, list)) = tree.split_once('{') {
        let parts = head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned);
        let prefix: Path = prefix.iter().cloned().chain(parts).collect();
        let (mut depth, mut item) = (0, String::new());
        for c in list[..list.rfind('}').unwrap()].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&std::mem::take(&mut item), &prefix, out);
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        if !item.trim().is_empty() {
            expand(&item, &prefix, out);
        }
        return;
    }
    let (path, alias) =
        tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim())));
    let parts = path.split("::").map(|part| part.trim().to_owned());
    let mut path: Path = prefix.iter().cloned().chain(parts).collect();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(name) = alias.map(str::to_owned).or_else(|| path.last().cloned()) {
        out.push((name, path));
    }
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn has_word(text: &str, wanted: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == wanted)
}

/// Every path of two parts or more.
fn paths_in(body: &str) -> Vec<Path> {
    let text: String =
        body.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::").replace(":: ", "::");
    let tokens = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let split = |token: &str| -> Path {
        token
            .split("::")
            .map(|part| part.trim_matches(':').to_owned())
            .take_while(|part| !part.is_empty())
            .collect()
    };
    tokens.filter(|token| token.contains("::")).map(split).filter(|path| path.len() > 1).collect()
}

fn crates() -> Vec<String> {
    let entries = fs::read_dir(root().join("crates")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn no_circle_of_imports_has_more_than_four_files() {
    let mut too_large = Vec::new();
    let mut arrows = 0;
    for name in crates() {
        let files = Crate::read(&name);
        arrows += files.arrows().values().map(BTreeMap::len).sum::<usize>();
        for (size, written) in files.circles().into_iter().filter(|(size, _)| *size > LARGEST) {
            too_large.push(format!("{name}: a circle of {size} files\n{written}\n"));
        }
    }
    assert!(arrows > 300, "the search finds {arrows} arrows");
    assert!(too_large.is_empty(), "{}", too_large.concat());
}

#[test]
fn a_circle_is_found_through_re_exports() {
    let file = |text: &str| File::read(text);
    let path =
        |text: &str| -> Path { text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect() };
    let files = [
        ("", "mod a; mod b; mod c; pub use c::Thing;"),
        ("a", "use crate::{b, Thing}; fn one() { b::two(); }"),
        ("b", "// use crate::nothing::Here;\npub fn two() { crate::c::three(\"crate::a::one\") }"),
        (
            "c",
            "use super::a::{self}; const QUOTE: char = '\"'; pub struct Thing; pub fn three(_: &str) { a::one() }",
        ),
    ];
    let found = Crate(files.map(|(module, text)| (path(module), file(text))).into()).circles();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, 3);
    assert!(found[0].1.contains("a -> c  {\"crate::Thing\"}"), "{}", found[0].1);
}
