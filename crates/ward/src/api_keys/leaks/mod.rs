//! Leaked keys: reports of a secret scanner about keys in public places, and the choice of a workspace for such keys.
//!
//! The reports follow the partner protocol of GitHub's secret scanning. Ward trusts them by their signature, so a leaked key
//! ends without any act of its owner.

mod actions;
pub mod api;
mod signature;
mod store;

use std::time::Duration;

use strum::{EnumString, IntoStaticStr, VariantArray};

use super::secret::{self, Presented};
use crate::names::named;

/// How long a key in quarantine still reads.
pub const QUARANTINE: Duration = Duration::from_hours(24);

/// The characters of a place that the audit keeps.
const LONGEST_PLACE: usize = 1_024;
/// The places of one secret that its audit event lists. Further ones are only counted.
const MOST_PLACES: usize = 10;

/// The end of a workspace's keys whose secrets leak.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    EnumString,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum LeakAction {
    /// The key ends with the report.
    #[default]
    Revoke,
    /// The key only reads for [`QUARANTINE`], and then ends.
    Quarantine,
}

named!(LeakAction);

/// A secret in a report, with the public places where it was found.
#[derive(Clone)]
struct Leak {
    presented: Presented,
    places: Vec<Place>,
    /// The number of all its places, those that are not listed included.
    count: usize,
}

/// A public place, as the scanner named it, without any secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Place {
    url: String,
    /// The kind of the place, such as `commit` or `issue_comment`.
    source: String,
}

impl Place {
    fn new(url: &str, source: &str) -> Self {
        Self { url: kept(url), source: kept(source) }
    }
}

/// The text for the audit: without keys that may stand in it, without characters that no engine stores, and cut.
fn kept(text: &str) -> String {
    let text = secret::without_secrets(text);
    text.chars().filter(|c| *c != '\0').take(LONGEST_PLACE).collect()
}

impl Leak {
    fn at(presented: Presented, place: Place) -> Self {
        Self { presented, places: vec![place], count: 1 }
    }

    fn add(&mut self, place: Place) {
        self.count += 1;
        if self.places.len() < MOST_PLACES && !self.places.contains(&place) {
            self.places.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_keys::secret::NewSecret;

    #[test]
    fn a_place_keeps_no_secret_and_is_bounded() {
        let key = NewSecret::generate().unwrap();
        let place = Place::new(&format!("https://h.example/{}?a=\0{}", &*key.text, &*key.text), "commit");
        let shown = format!("ward_{}…", key.key_id);
        assert_eq!(place.url, format!("https://h.example/{shown}?a={shown}"));
        assert_eq!(Place::new(&"é".repeat(5_000), "").url.chars().count(), LONGEST_PLACE);
        // The cut comes after the search, so it cannot leave the beginning of a secret.
        let late = format!("{}{}", "x".repeat(LONGEST_PLACE - 40), &*key.text);
        assert!(!Place::new(&late, "").url.contains(&key.text[..30]));
    }

    #[test]
    fn many_places_of_one_secret_are_counted() {
        let presented = Presented::parse(NewSecret::generate().unwrap().text.as_bytes()).unwrap();
        let mut leak = Leak::at(presented, Place::new("u", "commit"));
        for at in 0..20 {
            leak.add(Place::new(&format!("u{at}"), "commit"));
        }
        assert_eq!((leak.places.len(), leak.count), (MOST_PLACES, 21));
    }
}
