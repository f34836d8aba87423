//! Equal refusals in a row: after a few of them, the cause is the integration and not its calls.

use serde::{Deserialize, Serialize};
use ward_db::Uuid;

use crate::ids::DeliveryId;

/// The reasons for which Ward itself holds a queue. Such a hold ends with the first success.
pub const BY_WARD: [&str; 3] = ["unauthorized", "misconfigured", "refused"];
/// The reason for a hold after equal refusals in a row.
pub const REFUSED: &str = "refused";
/// After this many equal refusals in a row, the cause is the integration and not the calls.
pub const REFUSED_IN_A_ROW: usize = 5;
/// The last equal refusals in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// The status of all of them.
    pub status: u16,
    pub deliveries: Vec<Uuid>,
}

impl Refusals {
    /// Adds a refusal. A different status begins a new row.
    pub fn note(&mut self, status: u16, delivery: DeliveryId) {
        if self.status != status {
            *self = Self { status, deliveries: Vec::new() };
        }
        self.deliveries.push(delivery.0);
    }

    /// Whether these are so many that the integration is the cause.
    pub const fn are_many(&self) -> bool {
        self.deliveries.len() >= REFUSED_IN_A_ROW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_refusals_count_together() {
        let mut refusals = Refusals::default();
        let id = |n: u128| DeliveryId(Uuid::from_u128(n));
        for n in 0..4 {
            refusals.note(403, id(n));
        }
        refusals.note(404, id(4));
        assert_eq!((refusals.status, refusals.deliveries.len()), (404, 1));
        for n in 5..9 {
            assert!(!refusals.are_many());
            refusals.note(404, id(n));
        }
        assert!(refusals.are_many());
    }
}
