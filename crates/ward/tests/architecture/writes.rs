//! Functions of stores that write without the guard row of a workspace or a principal. Each has a reason.
//!
//! All others take a guard as their transaction, so the compiler checks their callers. A new function that writes with a
//! plain transaction fails here.

use std::collections::BTreeSet;

use super::sources;

/// Why a write needs no guard row that was taken before.
enum Why {
    /// The statement itself locks the only row that it depends on, or changes it on a condition.
    OneRow,
    /// The rows are new, so no other transaction sees them.
    New,
    /// The row of a queue is the guard, because workers of all replicas share it.
    Queue,
    /// The rows belong to no workspace.
    Installation,
}

use Why::{Installation, New, OneRow, Queue};

const UNGUARDED: &[(&str, &[&str], Why)] = &[
    ("api_keys/handover/store.rs", &["forget_old", "replace_secret"], OneRow),
    ("api_keys/store.rs", &["store_last_used"], OneRow),
    ("audit/exports/store.rs", &["lease", "put_off", "leave", "settle", "forget"], Queue),
    ("audit/store.rs", &["insert"], New),
    ("calls/store.rs", &["replace_correction"], OneRow),
    ("calls/patients/store.rs", &["replace"], OneRow),
    ("deliveries/answers/store.rs", &["replace_answer"], OneRow),
    ("deliveries/matching/store.rs", &["replace"], OneRow),
    ("deliveries/matching/store.rs", &["close"], Queue),
    ("deliveries/answers/store.rs", &["note_attempt"], Queue),
    (
        "deliveries/outbox.rs",
        &[
            "insert",
            "queue",
            "open_lane",
            "put_off",
            "take_lane",
            "guard_lane",
            "leave_lane",
            "lease",
            "settle",
            "put_back",
        ],
        Queue,
    ),
    (
        "deliveries/healing/store.rs",
        &["go_on", "hold", "release", "put_refused_back", "settle_check", "resume_after"],
        Queue,
    ),
    // A restored backup, which no server uses yet.
    ("deliveries/outbox.rs", &["mark_all_uncertain"], Installation),
    ("deliveries/store.rs", &["hold", "release", "release_unmatched", "make_due"], Queue),
    ("gate/idempotency.rs", &["reseal", "forget", "begin", "finish", "note_bytes", "sweep"], OneRow),
    ("identity/store.rs", &["insert", "enroll", "note_proof"], New),
    ("identity/store.rs", &["forget_proofs"], Installation),
    ("identity/store.rs", &["lock", "next_position"], OneRow),
    ("integrations/store.rs", &["note_test", "replace_sealed"], OneRow),
    ("invitations/store.rs", &["settle_one", "forget_old"], OneRow),
    // The counts stand in the guard row itself.
    ("quotas/store.rs", &["change", "add_bytes", "give_back"], OneRow),
    ("twilio/store.rs", &["replace_token"], OneRow),
    ("twilio/reconciling/store.rs", &["schedule", "lease", "keep", "leave", "fail", "forget"], Queue),
    ("vault/store.rs", &["hold", "keep_only", "forget_all", "insert"], Installation),
    ("workspaces/slugs/store.rs", &["free", "store_last_used"], OneRow),
    ("workspaces/store.rs", &["take_slug", "insert", "add_unclaimed"], New),
    ("workspaces/store.rs", &["lock", "set_state", "free", "free_address"], OneRow),
    ("workspaces/store.rs", &["claim", "lapse_holder", "lapse_due", "finish_lapse"], OneRow),
];

/// The functions of a file that write with a plain transaction.
fn unguarded(text: &str) -> impl Iterator<Item = &str> {
    let writes = [
        ".execute(",
        ".execute_later(",
        "insert!(",
        "insert_later!(",
        "update!(",
        "update_later!(",
        "\"UPDATE ",
        "\"INSERT INTO ",
        "\"DELETE FROM ",
    ];
    text.split("fn ").skip(1).filter_map(move |function| {
        let signature = function.split(" {\n").next()?;
        let name = signature.split(['(', '<']).next()?;
        let plain = signature.contains(": &mut Tx<'_>") && !name.is_empty();
        (plain && writes.iter().any(|word| function.contains(word))).then_some(name)
    })
}

#[test]
fn a_write_takes_its_guard_row_or_is_listed_with_a_reason() {
    let mut found = BTreeSet::new();
    for source in sources("crates/ward/src") {
        let path = source.path.strip_prefix("crates/ward/src/").unwrap();
        found.extend(unguarded(&source.text).map(|name| format!("{path} {name}")));
    }
    let listed: BTreeSet<String> = UNGUARDED
        .iter()
        .flat_map(|(path, names, _)| names.iter().map(move |name| format!("{path} {name}")))
        .collect();
    let unlisted: Vec<_> = found.difference(&listed).collect();
    assert!(unlisted.is_empty(), "these functions write with a plain transaction: {unlisted:#?}");
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "these functions are listed and do not write with a plain transaction: {gone:#?}"
    );
}

/// Writes of requests that the frame `Entry::write` does not make, each with its reason.
const OUTSIDE_THE_FRAME: &[(&str, &str)] = &[
    ("workspaces.create", "the request is anonymous, and creates its guard row"),
    ("gate.note_proof", "it is a part of the authorization, which a write follows or not"),
    (
        "api_keys.revoke_presented",
        "the request is anonymous, and the write checks the presented secret again",
    ),
    ("api_keys.end_leaked", "the credential is a signature, and the write checks each reported secret again"),
    ("api_keys.open_handover", "the request is anonymous, and the write checks the presented token again"),
    ("api_keys.claim", "the request is anonymous, and the claim locks the workspace"),
    ("calls.twilio", "the credential is a signature, and the write checks its account again"),
    ("calls.note_read", "it records a read, which is authorized once"),
    ("sync.note_read", "it records a read, which is authorized once"),
    ("sync.note_review_read", "it records a read, which is authorized once"),
    ("integrations.end_connection_test", "it ends what a write in the frame began, and must be stored"),
    ("integrations.end_test", "it ends what a write in the frame began, and must be stored"),
];

/// Files of background tasks and of the operator's commands, which have no caller.
fn has_no_caller(path: &str) -> bool {
    ["operator", "worker", "start.rs", "app.rs", "last_used.rs", "refusals.rs"]
        .iter()
        .any(|part| path.contains(part))
}

#[test]
fn a_write_of_a_caller_is_made_by_the_frame() {
    let mut found = BTreeSet::new();
    for source in sources("crates/ward/src").iter().filter(|source| !has_no_caller(&source.path)) {
        let text: String = source.text.split_whitespace().collect();
        let names = text.split("db.write(\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(names.map(str::to_owned));
    }
    let listed: BTreeSet<String> = OUTSIDE_THE_FRAME.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, listed, "writes of requests outside the frame");
}

#[test]
fn a_write_is_found_by_its_statement_and_its_transaction() {
    let text = "fn a(tx: &mut Tx<'_>) -> X {\n tx.execute(\"UPDATE b\")\n}\nfn b(tx: &mut Tx<'_>) {\n tx.all(\"SELECT\")\n}\n\
                fn c(tx: &mut WorkspaceGuard<'_, '_>) {\n tx.execute_later(\"DELETE\")\n}\n\
                fn d(tx: &mut Tx<'_>) {\n tx.one(\"INSERT INTO a\")\n}\n\
                fn e(tx: &mut Tx<'_>) {\n insert!(tx, \"a\" { b: 1 })\n}\n\
                fn f(tx: &mut Tx<'_>) {\n update_later!(tx, \"a\" { b: 1 } \"c = $1\", [2])\n}\n";
    assert_eq!(unguarded(text).collect::<Vec<_>>(), ["a", "d", "e", "f"]);
}
