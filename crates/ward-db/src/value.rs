//! The values that every engine stores, and how they are read from a row's columns.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// A timestamp in UTC: microseconds since the Unix epoch, in the years 0000 to 9999. Values beyond are
/// clamped to the nearest end. So every timestamp has the same width as text, and its text sorts in the order
/// of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// The length of the stored form, such as `2026-04-18T12:00:00.123456Z`.
const TIMESTAMP_WIDTH: usize = 27;

impl Timestamp {
    /// The earliest timestamp, `0000-01-01T00:00:00.000000Z`.
    pub const MIN: Self = Self(-719_528 * MICROS_PER_DAY);
    /// The latest timestamp, `9999-12-31T23:59:59.999999Z`.
    pub const MAX: Self = Self(2_932_897 * MICROS_PER_DAY - 1);

    /// The timestamp `micros` microseconds after the epoch (before it, if negative), clamped to [`Self::MIN`]
    /// and [`Self::MAX`].
    pub const fn from_micros(micros: i64) -> Self {
        if micros < Self::MIN.0 {
            Self::MIN
        } else if micros > Self::MAX.0 {
            Self::MAX
        } else {
            Self(micros)
        }
    }

    /// Microseconds since the epoch; negative before it.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This timestamp plus `span` in whole microseconds, at most [`Self::MAX`].
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(whole_micros(span)))
    }

    /// This timestamp minus `span` in whole microseconds, at least [`Self::MIN`].
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(whole_micros(span)))
    }

    /// The text form in a buffer on the stack: a page of rows serializes many timestamps.
    pub(crate) fn text(self) -> TimestampText {
        let days = self.0.div_euclid(MICROS_PER_DAY);
        let within = self.0.rem_euclid(MICROS_PER_DAY);
        let (year, month, day) = civil_from_days(days);
        let (seconds, micros) = (within / MICROS_PER_SECOND, within % MICROS_PER_SECOND);
        let mut out = *b"0000-00-00T00:00:00.000000Z";
        digits(&mut out[0..4], year);
        digits(&mut out[5..7], month);
        digits(&mut out[8..10], day);
        digits(&mut out[11..13], seconds / 3600);
        digits(&mut out[14..16], seconds / 60 % 60);
        digits(&mut out[17..19], seconds % 60);
        digits(&mut out[20..26], micros);
        TimestampText(out)
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; TIMESTAMP_WIDTH] = text.try_into().ok()?;
        let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        if marks.iter().any(|&(at, mark)| text[at] != mark) {
            return None;
        }
        let (year, month, day) = (number(&text[0..4])?, number(&text[5..7])?, number(&text[8..10])?);
        let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
        let micros = number(&text[20..26])?;
        let in_range =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
        if !in_range {
            return None;
        }
        let days = days_from_civil(year, month, day);
        // The 31st of a short month becomes a day of the next month. Only a real date converts back to
        // itself.
        if civil_from_days(days) != (year, month, day) {
            return None;
        }
        let seconds = hour * 3600 + minute * 60 + second;
        Some(Self(days * MICROS_PER_DAY + seconds * MICROS_PER_SECOND + micros))
    }
}

fn whole_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

fn digits(out: &mut [u8], mut number: i64) {
    for digit in out.iter_mut().rev() {
        // `number % 10` of a number that is never negative fits a byte.
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn number(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |sum, &byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

/// Converts days since the epoch to (year, month, day) of the proleptic Gregorian calendar. The year is
/// counted from March, so the leap day is its last day. The month lengths then follow one line (153 days in
/// five months).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let march_year = year - i64::from(month <= 2);
    let era = march_year.div_euclid(400);
    let year_of_era = march_year.rem_euclid(400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + 365 * year_of_era + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A timestamp's text form, on the stack.
pub(crate) struct TimestampText([u8; TIMESTAMP_WIDTH]);

impl TimestampText {
    pub(crate) fn as_str(&self) -> &str {
        // The buffer holds only ASCII characters.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text().as_str())
    }
}

/// The text does not have the form `2026-04-18T12:00:00.123456Z`, or is not a real date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time of the form 2026-04-18T12:00:00.123456Z")]
pub struct NotATimestamp;

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        Self::parse(text.as_bytes()).ok_or(NotATimestamp)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self(0).saturating_add(since),
            Err(before) => Self(0).saturating_sub(before.duration()),
        }
    }
}

/// A value to bind. It is borrowed, so that binding allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL, of the type that the statement expects.
    Null,
    /// A `boolean`; SQLite stores 0 or 1.
    Bool(bool),
    /// A `bigint`: 64 bits with a sign.
    Int(i64),
    /// `text`. A NUL character in it is refused, because not every engine stores it.
    Text(&'a str),
    /// A `uuid`; SQLite stores its sixteen bytes.
    Uuid(Uuid),
    /// A `timestamptz`; SQLite stores microseconds since the epoch.
    Time(Timestamp),
    /// `jsonb`, as the text of one JSON value.
    Json(&'a str),
    /// A `bytea`, or a `BLOB` on SQLite.
    Bytes(&'a [u8]),
}

macro_rules! value_from {
    ($($from:ty => |$name:ident| $value:expr;)*) => {
        $(impl<'a> From<$from> for Value<'a> {
            fn from($name: $from) -> Self {
                $value
            }
        })*
    };
}

value_from! {
    bool => |flag| Value::Bool(flag);
    i64 => |number| Value::Int(number);
    i32 => |number| Value::Int(number.into());
    u32 => |number| Value::Int(number.into());
    &'a str => |text| Value::Text(text);
    &'a String => |text| Value::Text(text);
    Uuid => |id| Value::Uuid(id);
    &Uuid => |id| Value::Uuid(*id);
    Timestamp => |time| Value::Time(time);
    &'a Json => |json| Value::Json(&json.0);
    &'a [u8] => |bytes| Value::Bytes(bytes);
    &'a Vec<u8> => |bytes| Value::Bytes(bytes);
}

impl<'a, const N: usize> From<&'a [u8; N]> for Value<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Value::Bytes(bytes)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// The text of one JSON value, as a `jsonb` column returns it: equal as JSON to the stored value, but not
/// always character by character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(micros: i64) -> String {
        Timestamp::from_micros(micros).to_string()
    }

    #[test]
    fn known_timestamps_have_the_calendar_s_text() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(text(1_776_513_600_123_456), "2026-04-18T12:00:00.123456Z");
        assert_eq!(text(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(text(-2_203_891_200_000_000), "1900-03-01T00:00:00.000000Z");
        assert_eq!(text(4_107_542_400_000_000), "2100-03-01T00:00:00.000000Z");
        assert_eq!(text(-62_135_596_800_000_000), "0001-01-01T00:00:00.000000Z");
        assert_eq!(text(-62_162_035_200_000_000), "0000-03-01T00:00:00.000000Z");
        assert_eq!(text(-62_162_121_600_000_000), "0000-02-29T00:00:00.000000Z");
    }

    #[test]
    fn timestamps_beyond_four_digit_years_are_clamped() {
        assert_eq!(text(i64::MIN), "0000-01-01T00:00:00.000000Z");
        assert_eq!(text(i64::MAX), "9999-12-31T23:59:59.999999Z");
        let second = Duration::from_secs(1);
        assert_eq!(Timestamp::MAX.saturating_add(second), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.saturating_sub(second), Timestamp::MIN);
        assert_eq!(Timestamp::from_micros(5).saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_micros(5).saturating_sub(Duration::MAX), Timestamp::MIN);
        assert_eq!(Timestamp::from_micros(5).saturating_sub(second).micros(), 5 - 1_000_000);
    }

    /// Compares the arithmetic with a calendar that only counts, for every day of ten thousand years.
    #[test]
    fn every_day_agrees_with_a_counting_calendar() {
        let mut day_number = Timestamp::MIN.micros() / MICROS_PER_DAY;
        for year in 0..10_000 {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            for (month, days) in [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
                .into_iter()
                .enumerate()
            {
                let month = i64::try_from(month).unwrap() + 1;
                for day in 1..=days {
                    assert_eq!(civil_from_days(day_number), (year, month, day));
                    assert_eq!(days_from_civil(year, month, day), day_number);
                    day_number += 1;
                }
            }
        }
        assert_eq!(day_number * MICROS_PER_DAY - 1, Timestamp::MAX.micros());
    }

    #[test]
    fn text_and_timestamp_are_one_to_one_and_in_the_same_order() {
        // A multiplicative walk over the whole range: deterministic, and it never repeats itself.
        let span = Timestamp::MAX.micros().wrapping_sub(Timestamp::MIN.micros()).unsigned_abs();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut all = Vec::new();
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let offset = i64::try_from((state >> 1) % span).unwrap();
            let timestamp = Timestamp::from_micros(Timestamp::MIN.micros() + offset);
            assert_eq!(timestamp.to_string().parse(), Ok(timestamp));
            all.push((timestamp.to_string(), timestamp));
        }
        all.sort();
        assert!(all.is_sorted_by_key(|(_, timestamp)| *timestamp));
    }

    #[test]
    fn only_the_one_form_is_read() {
        for wrong in [
            "",
            "2026-04-18T12:00:00Z",
            "2026-04-18T12:00:00.123Z",
            "2026-04-18T12:00:00.123456",
            "2026-04-18T12:00:00.123456z",
            "2026-04-18 12:00:00.123456Z",
            "2026-04-18T12:00:00.123456+0",
            "2026-02-29T12:00:00.123456Z",
            "1900-02-29T12:00:00.123456Z",
            "2026-00-18T12:00:00.123456Z",
            "2026-13-18T12:00:00.123456Z",
            "2026-04-00T12:00:00.123456Z",
            "2026-04-31T12:00:00.123456Z",
            "2026-04-18T24:00:00.123456Z",
            "2026-04-18T12:60:00.123456Z",
            "2026-04-18T12:00:60.123456Z",
            "2026-04-18T12:00:00.12345 Z",
            "+026-04-18T12:00:00.123456Z",
            " 2026-04-18T12:00:00.123456Z",
        ] {
            assert_eq!(wrong.parse::<Timestamp>(), Err(NotATimestamp), "{wrong}");
        }
        assert!("2024-02-29T23:59:59.999999Z".parse::<Timestamp>().is_ok());
    }

    #[test]
    fn a_system_time_keeps_its_side_of_the_epoch() {
        assert_eq!(Timestamp::from(UNIX_EPOCH + Duration::from_micros(7)).micros(), 7);
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_micros(7)).micros(), -7);
    }
}
