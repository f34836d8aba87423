//! `docs/operate/configuration.md`, made from the table of settings.

use std::fmt::Write as _;

use super::settings::SETTINGS;

/// The text of `docs/operate/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Ward reads its settings once, at start: from flags, from the environment, and from an optional TOML file that\n\
         `--config FILE` or `WARD_CONFIG` names. A flag wins over the environment, the environment over the file, the file\n\
         over the default. `ward config` prints the values in force and the source of each.\n\n\
         Ward does not start with a setting that does not exist, has a wrong value or contradicts another. The error\n\
         names every such setting. Secrets have no flag, because a process list shows flags to every user of the machine.\n\n\
         In the file, every setting is a key at the top level: `listen = \"127.0.0.1:8080\"`. Lists may be written as TOML\n\
         lists, and `issuers` as `[[issuers]]` tables at the end of the file. Sizes read `64KiB`, times `20s`.\n\n\
         *This page is made from the table in `crates/ward/src/config/settings.rs`; a test keeps the two equal.*\n",
    );
    let mut chapter = "";
    for setting in SETTINGS {
        if setting.chapter != chapter {
            chapter = setting.chapter;
            let _ = write!(
                text,
                "\n## {chapter}\n\n| setting | variable | flag | default | |\n|---|---|---|---|---|\n"
            );
        }
        let code = |text: String| {
            if text.is_empty() { "–".to_owned() } else { format!("`{}`", text.replace('|', "\\|")) }
        };
        let flag = setting.flag().map(|flag| format!("--{flag} {}", setting.form)).unwrap_or_default();
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} | {} | {} |",
            setting.key,
            setting.variable(),
            code(flag),
            code(setting.default_text()),
            setting.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operate/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, markdown()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == markdown(),
            "docs/operate/configuration.md is stale: UPDATE_DOCS=1 cargo test -p ward documentation"
        );
    }
}
