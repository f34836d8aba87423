//! Slugs: the unique names of workspaces, their reserved words, and the former names of renamed workspaces.
//!
//! A slug belongs to a workspace as long as it has a row in `slugs`. A renamed workspace keeps its former slug for the
//! quarantine of the settings: a look-up by it finds the workspace, and no other workspace can take it.

pub mod actions;
pub mod api;
mod last_used;
pub(super) mod store;

use serde::Serialize;
use serde_json::Value;
use ward_contract::RuleProblem;
use ward_db::Timestamp;

pub use last_used::FormerSlugUses;
pub use store::{forget_due, named};

/// The former slugs that one workspace may hold at once. Without a bound, one workspace could take every good name by
/// renaming itself.
const MOST_FORMER: usize = 10;

/// Slugs that no new or renamed workspace gets: parts of Ward's own paths, names that operators give to hosts and mailboxes, and
/// words that programs read as the absence of a name. An existing workspace keeps such a slug.
const RESERVED: [&str; 66] = [
    "abuse",
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "api-keys",
    "app",
    "assets",
    "auth",
    "authorize",
    "billing",
    "blog",
    "by-slug",
    "cdn",
    "console",
    "dashboard",
    "dns",
    "docs",
    "false",
    "ftp",
    "health",
    "healthz",
    "help",
    "hostmaster",
    "imap",
    "info",
    "internal",
    "invitations",
    "keys",
    "localhost",
    "login",
    "logout",
    "mail",
    "me",
    "metrics",
    "mx",
    "new",
    "nil",
    "none",
    "ns1",
    "ns2",
    "null",
    "oauth",
    "oidc",
    "openapi",
    "operator",
    "postmaster",
    "readyz",
    "root",
    "security",
    "self-service",
    "signin",
    "signup",
    "smtp",
    "sso",
    "static",
    "status",
    "support",
    "system",
    "true",
    "undefined",
    "v1",
    "ward",
    "webmaster",
    "www",
];

/// A slug that a workspace had before it was renamed.
#[derive(Clone, Debug, Serialize)]
pub struct FormerSlug {
    pub slug: String,
    /// The time of the rename that replaced it.
    pub retired_at: Timestamp,
    /// The end of its quarantine, from which another workspace can take it.
    pub free_at: Timestamp,
    /// The minute of the last look-up by it.
    pub last_used_at: Option<Timestamp>,
}

/// The value rule of a request that chooses a slug.
pub fn chosen(request: &Value) -> Vec<RuleProblem> {
    let reserved = request["slug"].as_str().is_some_and(|slug| RESERVED.binary_search(&slug).is_ok());
    if !reserved {
        return Vec::new();
    }
    let mut problem = RuleProblem::here("is a reserved word".to_owned());
    problem.at.push("slug".into());
    vec![problem]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_words_are_found() {
        assert!(RESERVED.is_sorted(), "a binary search needs the order");
        for word in RESERVED {
            assert_eq!(chosen(&serde_json::json!({ "slug": word })).len(), 1, "{word}");
        }
        for other in [serde_json::json!("acme"), serde_json::json!("admin-2"), Value::Null] {
            assert!(chosen(&serde_json::json!({ "slug": other })).is_empty(), "{other}");
        }
    }
}
