//! Lists the files of `migrations/`, so that a new file is a new migration.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo through its standard output")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../migrations").canonicalize()?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "sql"));
    files.sort();
    let mut list = String::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().display();
        writeln!(list, "Migration {{ name: r\"{name}\", sql: include_str!(r\"{}\") }},", file.display())?;
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("migrations.rs"), format!("&[\n{list}]\n"))?;
    Ok(())
}
