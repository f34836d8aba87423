//! `ward key scan`: live keys in files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Serialize;
use ward::api_keys::secret::{LENGTH, Presented, find_all};
use ward::app::App;
use ward::operator::{self, FoundKey};

use crate::failure::Failure;
use crate::show::Output;

/// The bytes that are read and looked through at once.
const PART: usize = 1 << 20;
/// The maximum number of keys that one read of the database looks up.
const LOOKED_UP: usize = 500;
/// The maximum number of places that are listed. Later ones are only counted.
const LISTED: usize = 10_000;

/// A place with a live key.
#[derive(Serialize)]
struct KeyPlace {
    file: String,
    /// The number of the line, counted from 1.
    line: u64,
    #[serde(flatten)]
    key: FoundKey,
}

/// Prints the places of live keys in these files. It fails if there are any, so that a pipeline stops.
pub async fn files(app: &App, files: &[impl AsRef<Path>], out: Output) -> Result<(), Failure> {
    let (mut places, mut count) = (Vec::new(), 0_usize);
    for file in files {
        let file = file.as_ref();
        let named = |error: io::Error| format!("{} cannot be read: {error}", file.display());
        let mut input: Box<dyn Read> = if file == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(file).map_err(named)?)
        };
        let mut parts = FileParts::default();
        while let Some(found) = parts.next(&mut input).map_err(named)? {
            for some in found.chunks(LOOKED_UP) {
                let texts = some.iter().map(|(_, text)| *text).collect();
                let keys = operator::found_keys(app, texts).await?;
                for ((line, _), key) in some.iter().zip(keys) {
                    let Some(key) = key else { continue };
                    count += 1;
                    if places.len() < LISTED {
                        places.push(KeyPlace { file: file.display().to_string(), line: *line, key });
                    }
                }
            }
        }
    }
    out.many(&places, &["file", "line", "key_id", "workspace_id", "name", "role", "secret", "expires_at"])?;
    if count > places.len() {
        out.remark(&format!("Only the first {LISTED} places are listed."));
    }
    if count > 0 {
        let what = format!(
            "{count} places have a live key: revoke each with `ward key revoke KEY_ID`, or rotate it, then clean the files"
        );
        return Err(what.into());
    }
    Ok(())
}

/// A file in parts, which overlap by less than the length of a key.
#[derive(Default)]
struct FileParts {
    /// The end of the previous part, which is shorter than a key.
    held: Vec<u8>,
    /// The line breaks before the held bytes.
    lines: u64,
}

impl FileParts {
    /// The keys that end in the next part, with their lines. `None` at the end of the file.
    fn next(&mut self, input: &mut impl Read) -> io::Result<Option<Vec<(u64, Presented)>>> {
        let more = input.take(PART as u64).read_to_end(&mut self.held)?;
        if more == 0 {
            return Ok(None);
        }
        let (mut line, mut counted) = (self.lines + 1, 0);
        let mut found = Vec::new();
        for (at, text) in find_all(&self.held) {
            line += breaks(&self.held[counted..at]);
            counted = at;
            found.push((line, text));
        }
        let done = self.held.len().saturating_sub(LENGTH - 1);
        self.lines += breaks(&self.held[..done]);
        self.held.drain(..done);
        Ok(Some(found))
    }
}

fn breaks(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_over_all_parts_and_no_key_is_lost_between_two() {
        // A reader that gives the file in small pieces, however much is asked for.
        struct Pieces<'a>(&'a [u8]);
        impl Read for Pieces<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let size = self.0.len().min(into.len()).min(1_000);
                let (now, later) = self.0.split_at(size);
                into[..size].copy_from_slice(now);
                self.0 = later;
                Ok(size)
            }
        }
        let key = ward::api_keys::secret::NewSecret::generate().unwrap();
        for before in [0, PART - 80, PART - 76, PART - 75, PART - 40, PART - 1, PART, 3 * PART - 10] {
            let mut file = b"\n".repeat(before);
            file.extend_from_slice(key.text.as_bytes());
            file.extend_from_slice(&b"\n".repeat(200));
            file.extend_from_slice(key.text.as_bytes());
            let (mut parts, mut input, mut lines) = (FileParts::default(), Pieces(&file), Vec::new());
            while let Some(found) = parts.next(&mut input).unwrap() {
                lines.extend(found.into_iter().map(|(line, _)| line));
            }
            let first = before as u64 + 1;
            assert_eq!(lines, [first, first + 200], "{before}");
        }
    }
}
