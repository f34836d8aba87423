//! One setting: its names, its help, its parser and its notation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Config;
use super::draft::Draft;
use super::value::ParseResult;
use crate::text::pasted;

/// One setting: its names, its help text, its parser and its display.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file. The variable is `WARD_` and the key in capitals; the flag has dashes.
    pub key: &'static str,
    /// The chapter in the documentation and in `--help`.
    pub chapter: &'static str,
    /// The placeholder for the value in help texts.
    pub form: &'static str,
    /// The effect, in one or two sentences.
    pub help: &'static str,
    /// Whether the value is a secret. Secrets are never shown and have no flag, because a process list
    /// shows flags to every user of the machine.
    pub secret: bool,
    /// Parses a value into the draft.
    pub(super) apply: fn(&mut Draft, &str) -> ParseResult<()>,
    /// The value in force, as it would be written; empty when there is none.
    pub(super) show: fn(&Config) -> String,
}

impl Setting {
    /// The name of the environment variable.
    pub fn variable(&self) -> String {
        format!("WARD_{}", self.key.to_ascii_uppercase())
    }

    /// The flag, without its two dashes; `None` for secrets.
    pub fn flag(&self) -> Option<String> {
        (!self.secret).then(|| self.key.replace('_', "-"))
    }

    /// The default as it would be written; empty when there is none.
    pub fn default_text(&self) -> String {
        match self.key {
            // This default depends on `database`.
            "master_key_file" => String::new(),
            _ => (self.show)(&Config::default()),
        }
    }
}

/// The text that replaces a secret.
pub const HIDDEN: &str = "**********";

/// Decodes 32 bytes from base64. The error never repeats the text.
pub(super) fn key_bytes(text: &str) -> ParseResult<Zeroizing<[u8; 32]>> {
    let wrong = || "must be 32 bytes in base64 (44 characters)".to_owned();
    let bytes = Zeroizing::new(STANDARD.decode(pasted(text)).map_err(|_| wrong())?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(wrong());
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}
