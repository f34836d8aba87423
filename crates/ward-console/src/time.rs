//! Times as people read them.

use std::fmt;

use serde::Deserialize;
use speedate::DateTime;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A time of the API, or none. As text it is HTML: a `time` element in UTC, which the script shows in the reader's zone.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Time(Option<String>);

impl Time {
    /// Whether the API gave a time.
    pub const fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// The time in seconds since 1970. `None` without a time.
    pub fn seconds(&self) -> Option<i64> {
        self.0.as_deref().and_then(|text| DateTime::parse_str(text).ok()).map(|time| time.timestamp_tz())
    }

    /// The day in UTC, such as `2026-04-18`. Empty without a time.
    pub fn day(&self) -> &str {
        self.0.as_deref().and_then(|text| text.get(..10)).unwrap_or_default()
    }

    /// The element, or this text without a time.
    pub fn or(&self, none: &str) -> String {
        if self.is_set() { self.to_string() } else { escaped(none) }
    }

    /// The distance from `now` (seconds) in words, such as `in 12 days` or `3 hours ago`. Empty without a time.
    pub fn distance(&self, now: &i64) -> String {
        let Some(time) = self.seconds() else { return String::new() };
        let apart = span(time.abs_diff(*now).try_into().unwrap_or(i64::MAX));
        if time > *now { format!("in {apart}") } else { format!("{apart} ago") }
    }

    /// Whether the time is less than these days after `now`, or before it.
    pub fn is_within_days(&self, now: &i64, days: i64) -> bool {
        self.seconds().is_some_and(|time| time - now < days * DAY)
    }
}

/// A length of time in its largest unit, such as `3 hours`.
pub fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        HOUR.. => (seconds / HOUR, "hour"),
        MINUTE.. => (seconds / MINUTE, "minute"),
        _ => (seconds, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// A call's length, such as `2 min 05 s`.
pub fn length(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return String::new();
    }
    let whole = std::time::Duration::from_secs_f64(seconds.min(1e9)).as_secs();
    if whole < 60 { format!("{whole} s") } else { format!("{} min {:02} s", whole / 60, whole % 60) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(text) = &self.0 else { return f.write_str("–") };
        let whole = escaped(text);
        match (text.get(..10), text.get(11..16)) {
            (Some(day), Some(minute)) => {
                let (day, minute) = (escaped(day), escaped(minute));
                write!(f, "<time datetime=\"{whole}\">{day} {minute}\u{a0}UTC</time>")
            }
            _ => f.write_str(&whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_element_with_its_zone_and_nothing_of_it_is_markup() {
        let time = Time(Some("2026-04-18T12:00:01.123456Z".to_owned()));
        let shown = "<time datetime=\"2026-04-18T12:00:01.123456Z\">2026-04-18 12:00\u{a0}UTC</time>";
        assert_eq!(time.to_string(), shown);
        assert!(!Time(Some("<script>alert(1)</script>".to_owned())).to_string().contains("<script"));
        assert_eq!(Time(None).or("never"), "never");
    }

    #[test]
    fn distances_are_in_the_largest_unit() {
        let time = Time(Some("2026-04-18T12:00:00Z".to_owned()));
        let at = time.seconds().unwrap();
        for (now, words) in [
            (at - 12 * DAY - 5, "in 12 days"),
            (at - HOUR, "in 1 hour"),
            (at + 90, "1 minute ago"),
            (at, "0 seconds ago"),
        ] {
            assert_eq!(time.distance(&now), words);
        }
        assert!(time.is_within_days(&(at - DAY), 7) && !time.is_within_days(&(at - 8 * DAY), 7));
        assert_eq!((length(59.4), length(125.0)), ("59 s".to_owned(), "2 min 05 s".to_owned()));
    }
}
