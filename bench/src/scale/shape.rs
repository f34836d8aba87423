//! The content of an installation with a given number of workspaces, and the ids and keys of its rows.
//!
//! The ids of a row follow from its number, so the measurement knows every key without a list. Rows are inserted in
//! the order of their ids.

use std::fmt::Write as _;

/// The smallest number of workspaces. With fewer, a list would have fewer rows than its limit, and lists would not be
/// comparable.
pub const LEAST: u64 = 1_000;

/// The start of all list positions and all timestamps: 2025-10-09, in seconds.
pub const EPOCH: u64 = 1_760_000_000;

/// The number of the workspace with the most rows of every kind.
pub const GIANT: u64 = 1;

/// The audit events of an ordinary workspace.
pub const EVENTS: u64 = 6;

/// The totals of the audit and of calls are counted up to ten thousand. The giant has more rows than that at every
/// size, so its count costs the same at every size.
const MOST_COUNTED: u64 = 20_000;

/// The secret of all keys. The keys differ in their public parts.
const SECRET: &str = "ScaleScaleScaleScaleScaleScaleScaleScaleSca";

/// The numbers of rows. The first workspace is the giant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Active workspaces, each with its own owner, a service with a key, an integration and one call.
    pub workspaces: u64,
    /// The additional services of the giant, each with a key.
    pub giant_keys: u64,
    /// The additional audit events of the giant.
    pub giant_events: u64,
    /// The additional calls of the giant.
    pub giant_calls: u64,
}

/// The principal of a key. Each kind is also a range of principals and credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The owner of an ordinary workspace.
    Owner = 1,
    /// The service of an ordinary workspace.
    Service = 2,
    /// One of the giant's additional services.
    Giant = 3,
    /// The one user who is a member of every workspace.
    Everywhere = 4,
}

impl Who {
    /// The digit at the start of the ids, and of the public parts of the keys.
    pub const fn digit(self) -> u8 {
        self as u8
    }
}

impl Shape {
    /// The proportions of rows: one million workspaces have three million keys, ten million events and two million
    /// calls.
    pub const fn of(workspaces: u64) -> Self {
        let events = 4 * workspaces;
        let calls = workspaces;
        Self {
            workspaces,
            giant_keys: workspaces,
            giant_events: if events < MOST_COUNTED { MOST_COUNTED } else { events },
            giant_calls: if calls < MOST_COUNTED { MOST_COUNTED } else { calls },
        }
    }

    /// The number of API keys in the whole installation.
    pub const fn keys(self) -> u64 {
        2 * self.workspaces + self.giant_keys + 1
    }

    /// The number of memberships, which is also the number of seats.
    pub const fn memberships(self) -> u64 {
        3 * self.workspaces + self.giant_keys
    }

    /// The number of audit events in the whole installation.
    pub const fn events(self) -> u64 {
        EVENTS * self.workspaces + self.giant_events
    }

    /// The number of calls in the whole installation.
    pub const fn calls(self) -> u64 {
        self.workspaces + self.giant_calls
    }
}

/// The id of the row `number` of the kind with this digit.
pub fn id(digit: u8, number: u64) -> String {
    format!("{digit}0000000-0000-4000-8000-{number:012x}")
}

/// The id of the workspace with this number.
pub fn workspace(number: u64) -> String {
    id(0, number)
}

/// The position of a workspace in the list of the user who is a member everywhere.
pub const fn position(number: u64) -> u64 {
    EPOCH * 1_000_000 + number
}

/// SHA-256 of the secret, in hexadecimal digits.
pub fn secret_hash() -> String {
    use sha2::Digest as _;
    let mut hex = String::new();
    for byte in sha2::Sha256::digest(SECRET) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The text of a key: `ward_<public part, 22><secret, 43><CRC-32, 6>`.
pub fn key(who: Who, number: u64) -> String {
    bearer(&format!("{}{number:021}", who.digit()))
}

/// A well-formed key that does not exist, between the owners' keys of every ten workspaces.
pub fn unknown_key(ten: u64) -> String {
    bearer(&format!("{}{ten:020}x", Who::Owner.digit()))
}

fn bearer(public: &str) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let covered = format!("{public}{SECRET}");
    let mut rest = crc32fast::hash(covered.as_bytes());
    let mut checksum = [b'0'; 6];
    for place in checksum.iter_mut().rev() {
        *place = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    format!("ward_{covered}{}", String::from_utf8_lossy(&checksum))
}
