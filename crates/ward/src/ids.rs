//! Typed ids, so that one kind of id cannot be passed where another is expected.

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
            /// A new id of version 7, whose rows lie beside those created at the same time.
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
    /// A workspace. Until the claim, the id is the secret that claims it: version 7 has 74 random bits, too
    /// many to guess (SECURITY.md). All rows of a workspace have its id in front. With fully random ids,
    /// each creation would change pages that no other creation changes.
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
id!(IntegrationId);
id!(
    /// A call; the contract's `entity_id` of calls.
    CallId
);
id!(
    /// A delivery of a call to an EHR.
    DeliveryId
);
id!(
    /// A question about the patient or the encounter of a delivery, for a person.
    ReviewId
);
id!(InvitationId);
id!(
    /// An export of audit events, in a file.
    ExportId
);
id!(EventId);

impl WorkspaceId {
    /// The workspace id in a path. A text that is not a UUID becomes the nil id, which no workspace has. So
    /// a malformed id causes the same queries as an unknown one.
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
