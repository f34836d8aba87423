//! Free space on the disk of the database file.

use std::path::Path;

use super::{Finding, folder_of};

const CHECK: &str = "disk";
/// Less free space is a problem: a write-ahead log alone grows to 128 MiB.
const LEAST_BYTES: u64 = 1 << 30;
/// A smaller fraction of a large disk (one part in this many) is a problem too.
const LEAST_PART: u64 = 20;

/// Checks the free space for the database file at `path`.
pub(super) fn free(path: &Path) -> Finding {
    let folder = folder_of(path);
    match rustix::fs::statvfs(&folder) {
        Ok(about) => judge(
            about.f_bavail * about.f_frsize,
            about.f_blocks * about.f_frsize,
            about.f_favail,
            about.f_files,
        ),
        Err(error) => Finding::problem(
            CHECK,
            format!("cannot read the free space of {}: {error}", folder.display()),
            "check that the folder exists",
        ),
    }
}

fn judge(free: u64, all: u64, nodes: u64, all_nodes: u64) -> Finding {
    let mib = free >> 20;
    if free < LEAST_BYTES || free < all / LEAST_PART {
        let part = (free * 100).checked_div(all).unwrap_or(0);
        return Finding::problem(
            CHECK,
            format!("{mib} MiB are free, {part} % of the disk"),
            "make room: when the disk is full, every write is refused",
        );
    }
    // Some file systems do not count files and report 0.
    if all_nodes > 0 && nodes < 1_000 {
        return Finding::problem(
            CHECK,
            format!("room for {nodes} files is left"),
            "delete files that are not needed",
        );
    }
    Finding::ok(CHECK, format!("{mib} MiB are free"))
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn a_disk_is_too_full_by_bytes_by_part_or_by_files() {
        const GIB: u64 = 1 << 30;
        for (free, all, nodes, expected) in [
            (10 * GIB, 100 * GIB, 5_000, Health::Ok),
            (GIB - 1, 10 * GIB, 5_000, Health::Problem),
            (4 * GIB, 100 * GIB, 5_000, Health::Problem),
            (10 * GIB, 100 * GIB, 999, Health::Problem),
        ] {
            assert_eq!(judge(free, all, nodes, 10_000).status, expected, "{free} of {all}, {nodes} files");
        }
        assert_eq!(
            judge(10 * GIB, 100 * GIB, 0, 0).status,
            Health::Ok,
            "a file system without a count of files"
        );
    }
}
