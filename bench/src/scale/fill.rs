//! Fills a migrated database in transactions of many rows, and shows a progress bar.

use indicatif::{ProgressBar, ProgressStyle};
use ward_db::{Db, Options};

use crate::Failure;
use crate::place::Engine;
use crate::shape::{EPOCH, EVENTS, GIANT, Shape, position, secret_hash};

use std::time::Duration;

/// The rows of one statement, which is a separate transaction.
const AT_ONCE: u64 = 100_000;

/// The rows of one table: a range of numbers, and the SQL for each number.
struct Rows {
    table: &'static str,
    columns: &'static str,
    /// The SQL for the row with the number `i`, with the words of [`spelled`].
    values: String,
    count: u64,
}

/// Fills the empty database at `url`.
pub fn fill(engine: Engine, url: &str, shape: Shape) -> Result<(), Failure> {
    let patient = Duration::from_mins(30);
    let options =
        Options { flush: false, statement_time: patient, closure_time: patient, ..Options::default() };
    let db = Db::open(url, options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let parts = rows(shape);
    let bar = ProgressBar::new(parts.iter().map(|part| part.count).sum());
    bar.set_style(ProgressStyle::with_template(
        "{prefix} {bar:30} {human_pos} of {human_len} rows ({percent} %), {elapsed} gone, {eta} to go  {msg}",
    )?);
    bar.set_prefix(format!("{} with {} workspaces", engine.name(), shape.workspaces));
    for part in &parts {
        bar.set_message(part.table);
        for from in (1..=part.count).step_by(usize::try_from(AT_ONCE)?) {
            let to = part.count.min(from + AT_ONCE - 1);
            let sql = insert(engine, part, from, to);
            let done = runtime.block_on(db.write("scale.fill", move |tx| tx.execute(&sql, &[])));
            let done: u64 = done.map_err(|error: ward_db::Error| format!("{}: {error}", part.table))?;
            if done != to + 1 - from {
                return Err(format!("{}: {done} new rows instead of {}", part.table, to + 1 - from).into());
            }
            bar.inc(done);
        }
    }
    bar.set_message("closing");
    db.close();
    bar.finish_with_message("done");
    Ok(())
}

fn insert(engine: Engine, part: &Rows, from: u64, to: u64) -> String {
    let (table, columns) = (part.table, part.columns);
    let values = spelled(engine, &part.values);
    match engine {
        Engine::Sqlite => format!(
            "INSERT INTO {table} ({columns}) \
             WITH RECURSIVE n (i) AS (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i < {to}) SELECT {values} FROM n"
        ),
        Engine::Postgres => format!(
            "INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series(CAST({from} AS bigint), {to}) AS n (i)"
        ),
    }
}

/// Translates the words in `values` into the SQL of the engine. The words are `@id(DIGIT, NUMBER)`, `@key(DIGIT,
/// NUMBER)`, `@text(WORD, NUMBER)`, `@time(SECONDS)` and `@hash()`.
fn spelled(engine: Engine, values: &str) -> String {
    let mut out = String::new();
    let mut rest = values;
    while let Some((before, after)) = rest.split_once('@') {
        out.push_str(before);
        let open = after.find('(').unwrap_or(after.len());
        let close = closing(after, open);
        let word = &after[..open];
        let inner = after.get(open + 1..close).unwrap_or_default();
        let (first, second) = inner.split_once(", ").unwrap_or((inner, ""));
        let piece = match (engine, word) {
            (Engine::Sqlite, "id") => format!("unhex(printf('{first}0000000000040008000%012x', {second}))"),
            (Engine::Sqlite, "key") => format!("printf('{first}%021d', {second})"),
            (Engine::Sqlite, "text") => format!("printf('{first}%09d', {second})"),
            (Engine::Sqlite, "time") => format!("({EPOCH} + {inner}) * 1000000"),
            (Engine::Sqlite, _) => format!("x'{}'", secret_hash()),
            (Engine::Postgres, "id") => {
                format!("CAST('{first}0000000-0000-4000-8000-' || lpad(to_hex({second}), 12, '0') AS uuid)")
            }
            (Engine::Postgres, "key") => format!("'{first}' || lpad(CAST({second} AS text), 21, '0')"),
            (Engine::Postgres, "text") => format!("'{first}' || lpad(CAST({second} AS text), 9, '0')"),
            (Engine::Postgres, "time") => format!("to_timestamp({EPOCH} + {inner})"),
            (Engine::Postgres, _) => format!("decode('{}', 'hex')", secret_hash()),
        };
        out.push_str(&piece);
        rest = after.get(close + 1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// The position of the bracket that closes the one at `open`.
fn closing(text: &str, open: usize) -> usize {
    let mut depth = 0_u32;
    for (at, character) in text.char_indices().skip(open) {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// All rows, table by table, in the order of the primary key as far as possible.
///
/// The rows are consistent, as after writes by Ward. A workspace has its slug, a key its principal, a principal its
/// membership, and a membership its seat. Positions are unique in their list and at most the last position in the
/// list's guard row. Calls are finished and owe no delivery.
fn rows(shape: Shape) -> Vec<Rows> {
    let mut all = tenants(shape);
    all.extend(people(shape));
    all.extend(keys(shape));
    all.extend(history(shape));
    all
}

fn tenants(shape: Shape) -> Vec<Rows> {
    let Shape { workspaces, giant_keys, .. } = shape;
    // The seats and keys of a workspace have the first positions in its lists. The giant's other rows follow.
    let (last, giants_last) = (position(100), position(100) + 2 * giant_keys);
    vec![
        Rows {
            table: "workspaces",
            columns: "id, slug, name, environment, region, state, last_position, created_at, updated_at",
            values: format!(
                "@id(0, i), @text(clinic-, i), 'The Corner Clinic', 'production', 'us-east-1', 'active', \
                 CASE WHEN i = {GIANT} THEN {giants_last} ELSE {last} END, @time(0), @time(0)"
            ),
            count: workspaces,
        },
        Rows {
            table: "slugs",
            columns: "slug, workspace_id",
            values: "@text(clinic-, i), @id(0, i)".to_owned(),
            count: workspaces,
        },
        Rows {
            table: "integrations",
            columns: "workspace_id, id, name, display_name, protocol, base_url, endpoints, enabled, builtin, position, \
                      created_at, updated_at",
            values: format!(
                "@id(0, i), @id(0, i), 'ehr', 'The EHR', 'fhir', 'https://ehr.example/fhir', '[]', false, false, {}, \
                 @time(0), @time(0)",
                position(50)
            ),
            count: workspaces,
        },
        Rows {
            table: "test_callers",
            columns: "workspace_id, ordinal, number",
            values: "@id(0, i * 10), 0, '+15550100'".to_owned(),
            count: workspaces / 10,
        },
    ]
}

fn people(shape: Shape) -> Vec<Rows> {
    let Shape { workspaces, giant_keys, .. } = shape;
    let base = position(0);
    let principal = |who: u8, kind: &str, last: String, count: u64| Rows {
        table: "principals",
        columns: "id, kind, last_position, created_at",
        values: format!("@id({who}, i), '{kind}', {last}, @time(0)"),
        count,
    };
    // A workspace has three of them: its owner, its service, and the user who is a member everywhere.
    let three = |columns: &'static str, table: &'static str, values: &str| Rows {
        table,
        columns,
        values: values.replace("WS", "(1 + (i - 1) / 3)").replace("KIND", "(i - 1) % 3"),
        count: 3 * workspaces,
    };
    let who = "CASE KIND WHEN 0 THEN @id(1, WS) WHEN 1 THEN @id(2, WS) ELSE @id(4, 1) END";
    let (giants_seat, seat) = (position(100), position(1));
    let members = "workspace_id, principal_id, role, position, seat, created_at";
    let seats = "workspace_id, seat, principal_id";
    vec![
        principal(1, "user", format!("{base} + i"), workspaces),
        principal(2, "service", format!("{base} + i"), workspaces),
        principal(3, "service", format!("{base} + i"), giant_keys),
        principal(4, "user", format!("{base} + {workspaces}"), 1),
        Rows {
            table: "memberships",
            columns: members,
            values: format!(
                "@id(0, {GIANT}), @id(3, i), 'operator', {base} + i, {giants_seat} - 1 + 2 * i, @time(0)"
            ),
            count: giant_keys,
        },
        three(
            members,
            "memberships",
            &format!(
                "@id(0, WS), {who}, CASE KIND WHEN 0 THEN 'owner' WHEN 1 THEN 'operator' ELSE 'admin' END, \
                 {base} + WS, {seat} + KIND, @time(0)"
            ),
        ),
        Rows {
            table: "seats",
            columns: seats,
            values: format!("@id(0, {GIANT}), {giants_seat} - 1 + 2 * i, @id(3, i)"),
            count: giant_keys,
        },
        three(seats, "seats", &format!("@id(0, WS), {seat} + KIND, {who}")),
    ]
}

fn keys(shape: Shape) -> Vec<Rows> {
    let of = |who: u8, workspace: &str, kind: &str, creator: &str, role: &str, place: String, count: u64| {
        Rows {
            table: "api_keys",
            columns: "key_id, id, workspace_id, principal_id, principal_kind, created_by_entity_id, name, role, permissions, \
                  secret_hash, position, expires_at, created_at, updated_at",
            values: format!(
                "@key({who}, i), @id({who}, i), {workspace}, @id({who}, i), '{kind}', {creator}, 'scale', '{role}', '[]', \
             @hash(), {place}, @time(300000000), @time(0), @time(0)"
            ),
            count,
        }
    };
    let (own, giant) = ("@id(0, i)", format!("@id(0, {GIANT})"));
    let giants_owner = format!("@id(1, {GIANT})");
    let place = |number: u64| position(number).to_string();
    vec![
        of(1, own, "user", "@id(1, i)", "owner", place(4), shape.workspaces),
        of(2, own, "service", "@id(1, i)", "operator", place(5), shape.workspaces),
        of(
            3,
            &giant,
            "service",
            &giants_owner,
            "operator",
            format!("{} + 2 * i", position(100)),
            shape.giant_keys,
        ),
        of(4, &giant, "user", "@id(4, 1)", "admin", place(6), 1),
    ]
}

fn history(shape: Shape) -> Vec<Rows> {
    let event = |workspace: &str, number: &str, seconds: &str, digit: u8, count: u64| Rows {
        table: "audit_events",
        columns: "workspace_id, at, id, service, action, resource_type, resource_id, resource_name, actor_entity_id, \
                  actor_credential_id, ip_address, user_agent, phi_accessed, metadata",
        values: format!(
            "@id(0, {workspace}), @time({seconds}), @id({digit}, {number}), 'workspaces', 'workspace.update', 'workspace', \
             @id(0, {workspace}), @text(clinic-, {workspace}), @id(1, {workspace}), @id(1, {workspace}), '203.0.113.7', \
             'scale/1.0', false, '{{\"changed\":[\"name\"]}}'"
        ),
        count,
    };
    let call = |workspace: &str, sid: &str, seconds: &str, digit: u8, count: u64| Rows {
        table: "calls",
        columns: "workspace_id, id, call_sid, direction, reported_direction, reported_by, caller, caller_form, \
                  list_version, status, finished, duration_ms, started_at, ended_at, details, sync, first_reported_at, \
                  updated_at",
        values: format!(
            "@id(0, {workspace}), @id({digit}, i), @text({sid}, i), 'inbound', 'inbound', 'runtime', '+15550111', 'number', \
             0, 'completed', true, 60000, @time({seconds}), @time({seconds} + 60), '{{}}', 'no_connector', \
             @time({seconds}), @time({seconds})"
        ),
        count,
    };
    let giant = GIANT.to_string();
    let ordinary = format!("(1 + (i - 1) / {EVENTS})");
    vec![
        event(&giant, "i", "1000 + i", 1, shape.giant_events),
        event(&ordinary, "i", &format!("(i - 1) % {EVENTS}"), 0, EVENTS * shape.workspaces),
        call(&giant, "CAgiant", "1000 + i", 1, shape.giant_calls),
        call("i", "CAsmall", "i % 1000", 0, shape.workspaces),
    ]
}
