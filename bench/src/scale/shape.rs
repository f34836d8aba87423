//! What an installation of so many workspaces holds, and the names by which its rows are asked for.
//!
//! Every row is numbered, and its ids follow from its number, so that the measurement knows every key without a list of
//! them. Rows are inserted in the order of their ids.

use std::fmt::Write as _;

/// The fewest workspaces: with fewer, a list's count would end before its limit and lists could not be compared.
pub const LEAST: u64 = 1_000;

/// Where every list's positions and every time begin: 2025-10-09, in seconds.
pub const EPOCH: u64 = 1_760_000_000;

/// The workspace that has most of everything.
pub const GIANT: u64 = 1;

/// Audit events of an ordinary workspace.
pub const EVENTS: u64 = 6;

/// Totals of the audit and of calls are counted up to ten thousand: the giant has more at every size, so that its count
/// costs the same at every size.
const MOST_COUNTED: u64 = 20_000;

/// What all keys have for a secret. What differs is their public part.
const SECRET: &str = "ScaleScaleScaleScaleScaleScaleScaleScaleSca";

/// Numbers of rows. The first workspace is the giant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Active workspaces, each with an owner of its own, a service with a key, an integration and one call.
    pub workspaces: u64,
    /// Further services of the giant, each with a key.
    pub giant_keys: u64,
    /// Further audit events of the giant.
    pub giant_events: u64,
    /// Further calls of the giant.
    pub giant_calls: u64,
}

/// Who a key speaks for. Each is also a range of principals and credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The owner of an ordinary workspace.
    Owner = 1,
    /// The service of an ordinary workspace.
    Service = 2,
    /// One of the giant's further services.
    Giant = 3,
    /// The one user who is a member of every workspace.
    Everywhere = 4,
}

impl Who {
    /// The digit that leads its keys' public parts and its ids.
    pub const fn digit(self) -> u8 {
        self as u8
    }
}

impl Shape {
    /// The proportions: one million workspaces have three million keys, ten million events and two million calls.
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

    /// API keys.
    pub const fn keys(self) -> u64 {
        2 * self.workspaces + self.giant_keys + 1
    }

    /// Memberships, and as many seats.
    pub const fn memberships(self) -> u64 {
        3 * self.workspaces + self.giant_keys
    }

    /// Audit events.
    pub const fn events(self) -> u64 {
        EVENTS * self.workspaces + self.giant_events
    }

    /// Calls.
    pub const fn calls(self) -> u64 {
        self.workspaces + self.giant_calls
    }
}

/// The id of row `number` of the kind that `digit` leads.
pub fn id(digit: u8, number: u64) -> String {
    format!("{digit}0000000-0000-4000-8000-{number:012x}")
}

/// The id of a workspace.
pub fn workspace(number: u64) -> String {
    id(0, number)
}

/// The place of a workspace in the list of whoever is a member everywhere.
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

/// A key's text: `ward_<public part, 22><secret, 43><CRC-32, 6>`.
pub fn key(who: Who, number: u64) -> String {
    bearer(&format!("{}{number:021}", who.digit()))
}

/// A key that is well-formed and that was never minted, between the owners' keys of every ten workspaces.
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
