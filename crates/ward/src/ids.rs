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
    /// A workspace. Version 4: until the claim, the id is the secret that claims it.
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
    /// An audit event.
    EventId
);

impl WorkspaceId {
    /// A fresh one: 122 random bits.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The workspace a path names. Text that is no UUID names none: it becomes the nil id, which is never given out, so
    /// that a malformed id takes the same way, with the same queries, as an unknown one.
    pub fn of_path(text: &str) -> Self {
        Self(Uuid::try_parse(text).unwrap_or(Uuid::nil()))
    }
}

impl PrincipalId {
    /// A fresh one. Version 7: rows created together lie together.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

impl CredentialId {
    /// A fresh one, version 7.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

impl IntegrationId {
    /// A fresh one, version 7.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

impl CallId {
    /// A fresh one, version 7.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

impl DeliveryId {
    /// A fresh one, version 7.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

impl InvitationId {
    /// A fresh one, version 7.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

impl EventId {
    /// A fresh one, version 7: events of one microsecond keep an order.
    pub fn at(now: Timestamp) -> Self {
        Self(ordered(now))
    }
}

fn ordered(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
}
