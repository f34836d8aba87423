//! Typed ids, so that a credential's id cannot be handed over where a principal's is meant.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;
use ward_db::{Error, FromColumn, Row, Timestamp, Value};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh one, version 7: rows created together lie together.
            pub fn at(now: Timestamp) -> Self {
                Self(ordered(now))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for Value<'_> {
            fn from(id: $name) -> Self {
                Value::Uuid(id.0)
            }
        }

        impl FromColumn for $name {
            fn from_column(row: &Row<'_>, index: usize) -> Result<Self, Error> {
                Uuid::from_column(row, index).map(Self)
            }
        }
    };
}

id!(
    /// A workspace. Until the claim, the id is the secret that claims it: of a version 7 the 74 random bits, which
    /// nobody guesses before (SECURITY.md). Everything of a workspace is kept under its id, so with one that is random
    /// as a whole each creation would change pages that no other creation changes.
    WorkspaceId
);
id!(
    /// A principal; the contract's `entity_id`.
    PrincipalId
);
id!(
    /// An API key as a credential; the contract's `*_credential_id`.
    CredentialId
);
id!(
    /// An integration.
    IntegrationId
);
id!(
    /// A call; the contract's `entity_id` of calls.
    CallId
);
id!(
    /// A delivery.
    DeliveryId
);
id!(
    /// An invitation.
    InvitationId
);
id!(
    /// An export of audit events.
    ExportId
);
id!(
    /// An audit event.
    EventId
);

impl WorkspaceId {
    /// The workspace a path names. Text that is no UUID names none: it becomes the nil id, which is never given out, so
    /// that a malformed id takes the same way, with the same queries, as an unknown one.
    pub fn of_path(text: &str) -> Self {
        Self(Uuid::try_parse(text).unwrap_or(Uuid::nil()))
    }
}

/// Milliseconds, then 74 bits from the operating system's cryptographic generator or one seeded by it (RFC 9562, 5.7).
fn ordered(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_created_together_lie_together_and_their_ids_are_not_guessed() {
        let now = Timestamp::from_micros(1_776_000_000_123_456);
        let ids: Vec<u128> = (0..1_000).map(|_| WorkspaceId::at(now).0.as_u128()).collect();
        let told = ids.iter().fold((u128::MAX, 0), |(all, any), id| (all & id, any | id));
        let random = told.0 ^ told.1;
        assert_eq!(random.count_ones(), 74, "{random:032x}");
        assert_eq!(random >> 80, 0, "the first 48 bits are the time");
        let later = WorkspaceId::at(Timestamp::from_micros(1_776_000_000_124_456)).0.as_u128();
        assert!(ids.iter().all(|id| *id < later));
    }
}
