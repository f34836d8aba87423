//! The doctor's look at what a server needs beside its database, and a start that lacks it.

use serde_json::{Value, json};

use crate::commands::{doctor, folder_of, private, serve};
use crate::support::{place, run, text};

#[test]
fn the_doctor_sees_a_failed_flush_and_a_folder_that_cannot_hold_exports() {
    let server = serve(place(), &[]);
    let folder = folder_of(server);
    let named = |found: &[Value], check: &str| {
        let finding = found.iter().find(|finding| finding["check"] == check);
        finding.unwrap_or_else(|| panic!("{check}")).clone()
    };
    let exports = folder.path().join("exports");
    let setting = format!("export_dir = \"{}\"\n", exports.display());
    private(&folder.path().join("ward.toml"), &setting);
    let (found, _) = doctor(folder.path(), &["--config", "ward.toml"]);
    assert_eq!(
        (&named(&found, "flushes")["status"], &named(&found, "exports")["status"]),
        (&json!("ok"), &json!("ok"))
    );
    assert!(!exports.exists(), "the doctor makes no folder");

    let mark = folder.path().join("ward.db-flush-failed");
    std::fs::write(&mark, "left by a server").unwrap();
    std::fs::write(&exports, "a file in the place of the folder").unwrap();
    let held = std::fs::File::open(folder.path().join("ward.db")).unwrap();
    let (found, code) = doctor(folder.path(), &["--config", "ward.toml"]);
    drop(held);
    let finding = named(&found, "flushes");
    assert_eq!((&finding["status"], code), (&json!("problem"), 1), "{finding}");
    assert!(
        finding["message"].as_str().unwrap().contains(&format!("(process {})", std::process::id())),
        "{finding}"
    );
    let finding = named(&found, "exports");
    assert_eq!(finding["status"], "problem", "{finding}");
    for expected in [exports.to_str().unwrap(), "export_dir"] {
        assert!(finding["message"].as_str().unwrap().contains(expected), "{finding}");
    }
    let refused = run(folder.path(), &["serve", "--config", "ward.toml", "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for expected in [exports.to_str().unwrap(), "export_dir"] {
        assert!(text(&refused.stderr).contains(expected), "{refused:?}");
    }
}
