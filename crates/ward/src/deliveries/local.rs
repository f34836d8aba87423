//! Times of notes in the time zone of a practice, by the tz database that is part of the binary.

use jiff::tz::TimeZone;
use serde_json::Value;
use ward_contract::RuleProblem;
use ward_db::Timestamp;

/// The time zone of this name in the tz database, in its exact spelling.
fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok().filter(|zone| zone.iana_name() == Some(name))
}

/// The value rule of the name of a time zone.
pub fn zone_rule(value: &Value) -> Vec<RuleProblem> {
    let unknown = value.as_str().is_some_and(|name| zone(name).is_none());
    let problem =
        || RuleProblem::here("must be the name of a time zone, such as America/New_York".to_owned());
    unknown.then(problem).into_iter().collect()
}

/// A time for the readers of a note: to the second, with the zone's abbreviation and its offset. Without a known zone it is in
/// UTC.
pub(super) fn shown(time: Timestamp, zone_name: Option<&str>) -> String {
    let Ok(instant) = jiff::Timestamp::from_microsecond(time.micros()) else { return time.to_string() };
    match zone_name.and_then(zone) {
        Some(zone) => instant.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z (%:z)").to_string(),
        None => instant.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_time_has_the_offset_of_its_day() {
        for (time, zone, shown_as) in [
            ("2026-07-01T12:00:00.123456Z", Some("America/New_York"), "2026-07-01 08:00:00 EDT (-04:00)"),
            ("2026-01-01T03:30:00.000000Z", Some("America/New_York"), "2025-12-31 22:30:00 EST (-05:00)"),
            ("2026-03-29T01:00:00.000000Z", Some("Europe/Berlin"), "2026-03-29 03:00:00 CEST (+02:00)"),
            ("2026-03-29T00:59:59.999999Z", Some("Europe/Berlin"), "2026-03-29 01:59:59 CET (+01:00)"),
            ("2026-01-01T00:00:00.000000Z", Some("Asia/Kathmandu"), "2026-01-01 05:45:00 +0545 (+05:45)"),
            ("2026-01-01T00:00:00.000000Z", Some("UTC"), "2026-01-01 00:00:00 UTC (+00:00)"),
            ("2026-01-01T00:00:00.999999Z", None, "2026-01-01 00:00:00 UTC"),
            ("2026-01-01T00:00:00.000000Z", Some("Moon/Base"), "2026-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(shown(at(time), zone), shown_as);
        }
    }

    #[test]
    fn a_zone_has_its_exact_name() {
        for known in ["America/New_York", "Europe/Berlin", "US/Eastern", "UTC", "Etc/GMT+5"] {
            assert!(zone_rule(&Value::from(known)).is_empty(), "{known}");
        }
        for unknown in
            ["", "america/new_york", "EDT", "New York", "+02:00", "../etc/localtime", "America/New_York "]
        {
            assert_eq!(zone_rule(&Value::from(unknown)).len(), 1, "{unknown}");
        }
    }
}
