//! Timestamps and days: what the reference accepts, of it what leaves no zone open, and its messages for the rest.

use serde_json::{Value, json};
use speedate::{Date, DateTime};
use strum::EnumMessage;

use super::Json;
use super::scalar::because;
use super::walk::Fault;
use crate::document::{DayMeans, Moment};

/// Reads a timestamp: ISO 8601 with its offset from UTC, or a day, if `moment` gives days a meaning. The other notations
/// of the reference are recognized and refused, because they leave the zone open: a time without an offset, and
/// seconds or milliseconds since 1970. The result is UTC with microseconds, limited to the years 1 to 9999.
pub(super) fn date_time(moment: Moment, given: &Json) -> Result<Value, Fault> {
    if let (Some(most), Json::String(text)) = (moment.longest, given)
        && text.chars().nth(most).is_some()
    {
        let msg = format!("String should have at most {most} characters");
        return Err(Fault::with("string_too_long", msg, json!({ "max_length": most })));
    }
    let year_zero = || Err(because("datetime_parsing", "Input should be a valid datetime", YEAR_ZERO));
    match any_date_time(given) {
        // The reference checks the offset before it builds a time, and finds the year 0 only then.
        Reading::Ok(read) if read.time.tz_offset.is_none() => without_zone(),
        Reading::Ok(read) if read.date.year == 0 => year_zero(),
        Reading::Ok(_) if is_since_1970(given) => without_zone(),
        Reading::Ok(read) => Ok(Value::String(in_utc(&read))),
        Reading::WrongType => Err(Fault::new("datetime_type", "Input should be a valid datetime")),
        // A day is a valid timestamp too, so the message is about the unreadable day as well.
        Reading::Unreadable(error) => match (any_date(given), moment.day) {
            (Reading::Ok(_), None) => without_zone(),
            (Reading::Ok(day), _) if day.year == 0 => year_zero(),
            (Reading::Ok(date), Some(DayMeans::Start)) => {
                Ok(Value::String(in_utc(&DateTime { date, time: MIDNIGHT })))
            }
            (Reading::Ok(date), Some(DayMeans::End)) => {
                Ok(Value::String(in_utc(&DateTime { date, time: LAST_OF_DAY })))
            }
            (Reading::Unreadable(error), _) => {
                Err(because("datetime_from_date_parsing", "Input should be a valid datetime or date", &error))
            }
            (Reading::Impossible(error), _) => {
                Err(because("datetime_parsing", "Input should be a valid datetime", &error))
            }
            (Reading::WrongType, _) => {
                Err(because("datetime_parsing", "Input should be a valid datetime", &error))
            }
        },
        Reading::Impossible(error) => {
            Err(because("datetime_parsing", "Input should be a valid datetime", &error))
        }
    }
}

/// Whether a timestamp is a number of seconds or milliseconds since 1970, which has no offset.
fn is_since_1970(given: &Json) -> bool {
    match given {
        Json::String(text) => text.trim().parse::<f64>().is_ok(),
        _ => true,
    }
}

/// Reads a day: `2026-04-18`, or a timestamp with an offset that is exactly midnight UTC. Another timestamp could mean
/// another day in its own zone.
pub(super) fn date(given: &Json) -> Result<Value, Fault> {
    const FORMAT: &str = "Input should be a valid date in the format YYYY-MM-DD";
    let inexact = || {
        Err(Fault::new(
            "date_from_datetime_inexact",
            "Datetimes provided to dates should have zero time - e.g. be exact dates",
        ))
    };
    match read_date(given) {
        // A number of seconds at a midnight is read as a day too.
        Reading::Ok(_) if is_since_1970(given) => without_zone(),
        Reading::Ok(day) => Ok(Value::String(day.to_string())),
        Reading::Impossible(error) => Err(because("date_parsing", FORMAT, &error)),
        Reading::Unreadable(_) | Reading::WrongType => match read_date_time(given) {
            Reading::Ok(moment)
                if moment.time != (speedate::Time { tz_offset: moment.time.tz_offset, ..MIDNIGHT }) =>
            {
                inexact()
            }
            Reading::Ok(moment) if moment.time.tz_offset.is_none() || is_since_1970(given) => without_zone(),
            Reading::Ok(moment) if moment.time.tz_offset != Some(0) => inexact(),
            Reading::Ok(moment) => Ok(Value::String(moment.date.to_string())),
            Reading::Unreadable(error) => {
                Err(because("date_from_datetime_parsing", "Input should be a valid date or datetime", &error))
            }
            Reading::Impossible(error) => Err(because("date_parsing", FORMAT, &error)),
            Reading::WrongType => Err(Fault::new("date_type", "Input should be a valid date")),
        },
    }
}

/// The refusal of a time that does not say its offset from UTC.
fn without_zone() -> Result<Value, Fault> {
    Err(Fault::new("timezone_aware", "Input should have timezone info"))
}

const LAST_OF_DAY: speedate::Time =
    speedate::Time { hour: 23, minute: 59, second: 59, microsecond: 999_999, tz_offset: None };

const MIDNIGHT: speedate::Time =
    speedate::Time { hour: 0, minute: 0, second: 0, microsecond: 0, tz_offset: None };

/// The result of reading a timestamp or a day.
enum Reading<T> {
    Ok(T),
    /// The text is not of this type, for the reason given.
    Unreadable(String),
    /// The text is of this type, but its year is 0, which no calendar in use has.
    Impossible(String),
    /// The value is neither a text nor a number.
    WrongType,
}

impl<T> Reading<T> {
    fn of(read: Result<T, speedate::ParseError>) -> Self {
        match read {
            Ok(read) => Self::Ok(read),
            Err(error) => Self::Unreadable(error.get_documentation().unwrap_or("unreadable").to_owned()),
        }
    }
}

/// Reads a time of any year with four digits, 0 included.
fn any_date_time(given: &Json) -> Reading<DateTime> {
    let config = speedate::DateTimeConfig {
        time_config: speedate::TimeConfig {
            // Clients send nanoseconds, and Ward keeps microseconds.
            microseconds_precision_overflow_behavior:
                speedate::MicrosecondsPrecisionOverflowBehavior::Truncate,
            // A number since 1970 is UTC.
            unix_timestamp_offset: Some(0),
        },
        ..speedate::DateTimeConfig::default()
    };
    let read = match given {
        Json::String(text) => DateTime::parse_str_with_config(text, &config),
        Json::Number(text) => match text.parse::<i64>() {
            Ok(whole) => DateTime::from_timestamp_with_config(whole, 0, &config),
            Err(_) => DateTime::from_float_with_config(text.parse().unwrap_or(f64::INFINITY), &config),
        },
        _ => return Reading::WrongType,
    };
    Reading::of(read)
}

fn read_date_time(given: &Json) -> Reading<DateTime> {
    match any_date_time(given) {
        Reading::Ok(moment) if moment.date.year == 0 => Reading::Impossible(YEAR_ZERO.to_owned()),
        read => read,
    }
}

/// Reads a day of any year with four digits, 0 included.
fn any_date(given: &Json) -> Reading<Date> {
    let Json::String(text) = given else { return Reading::WrongType };
    Reading::of(Date::parse_str(text))
}

fn read_date(given: &Json) -> Reading<Date> {
    match any_date(given) {
        Reading::Ok(day) if day.year == 0 => Reading::Impossible(YEAR_ZERO.to_owned()),
        read => read,
    }
}

/// The reason why the reference refuses the year 0.
const YEAR_ZERO: &str = "year 0 is out of range";

/// Formats a timestamp as `2026-04-18T12:00:00.123456Z`.
fn in_utc(moment: &DateTime) -> String {
    let time = &moment.time;
    let day_seconds = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second);
    let local = days_since_1970(moment.date) * 86_400 + day_seconds;
    let utc = local - i64::from(time.tz_offset.unwrap_or_default());
    let (days, second) = (utc.div_euclid(86_400), utc.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    match year {
        ..1 => "0001-01-01T00:00:00.000000Z".to_owned(),
        10_000.. => "9999-12-31T23:59:59.999999Z".to_owned(),
        _ => {
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
                time.microsecond
            )
        }
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. The algorithm counts years from March, so that the leap
/// day is the last of its year. Eras of 400 years all have 146,097 days.
fn days_since_1970(date: Date) -> i64 {
    let month = i64::from(date.month);
    let year = i64::from(date.year) - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day number, the inverse of [`days_since_1970`].
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Moment = Moment { longest: None, day: None };

    #[test]
    fn a_time_says_its_offset() {
        let read = |text: &str| match date_time(TIME, &Json::parse(text, 1).unwrap()) {
            Ok(time) => time.as_str().unwrap().to_owned(),
            Err(fault) => fault.kind().to_owned(),
        };
        for (sent, told) in [
            ("\"2026-04-18T12:00:00Z\"", "2026-04-18T12:00:00.000000Z"),
            ("\"2026-04-18T12:00:00+02:00\"", "2026-04-18T10:00:00.000000Z"),
            ("\"2026-04-18T12:00:00-00:00\"", "2026-04-18T12:00:00.000000Z"),
            ("\"2026-04-18T12:00:00\"", "timezone_aware"),
            ("\"2026-04-18 12:00\"", "timezone_aware"),
            ("\"2026-04-18\"", "timezone_aware"),
            ("1776513600", "timezone_aware"),
            ("1776513600000.5", "timezone_aware"),
            ("\"1776513600\"", "timezone_aware"),
            ("\"noon\"", "datetime_from_date_parsing"),
            ("true", "datetime_type"),
            ("\"0000-01-01\"", "timezone_aware"),
            ("\"0000-01-01T00:00:00\"", "timezone_aware"),
            ("\"0000-01-01T00:00:00Z\"", "datetime_parsing"),
            ("\"0000-02-30\"", "datetime_from_date_parsing"),
        ] {
            assert_eq!(read(sent), told, "{sent}");
        }
    }

    #[test]
    fn a_day_that_ends_a_period_is_in_it() {
        let start = Moment { day: Some(DayMeans::Start), ..TIME };
        let end = Moment { day: Some(DayMeans::End), ..TIME };
        let read = |moment, text: &str| match date_time(moment, &Json::String(text.to_owned())) {
            Ok(time) => time.as_str().unwrap().to_owned(),
            Err(fault) => fault.kind().to_owned(),
        };
        for (sent, first, last) in [
            ("2026-11-29", "2026-11-29T00:00:00.000000Z", "2026-11-29T23:59:59.999999Z"),
            ("2024-02-29", "2024-02-29T00:00:00.000000Z", "2024-02-29T23:59:59.999999Z"),
            ("2026-11-29T00:00:00Z", "2026-11-29T00:00:00.000000Z", "2026-11-29T00:00:00.000000Z"),
            ("2026-11-29T00:00:00", "timezone_aware", "timezone_aware"),
            ("1700000000", "timezone_aware", "timezone_aware"),
            ("0000-01-01", "datetime_parsing", "datetime_parsing"),
            ("2023-02-29", "datetime_from_date_parsing", "datetime_from_date_parsing"),
        ] {
            assert_eq!((read(start, sent), read(end, sent)), (first.to_owned(), last.to_owned()), "{sent}");
        }
    }

    #[test]
    fn times_are_told_in_utc() {
        let read = |text: &str| {
            let given = Json::String(text.to_owned());
            date_time(TIME, &given).ok().and_then(|v| v.as_str().map(str::to_owned))
        };
        for (sent, told) in [
            ("2026-04-18T12:00:00.123456Z", "2026-04-18T12:00:00.123456Z"),
            ("2026-04-18T12:00:00.1234569+02:00", "2026-04-18T10:00:00.123456Z"),
            ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00.000000Z"),
            ("1969-12-31T23:59:59z", "1969-12-31T23:59:59.000000Z"),
            ("0001-01-01T00:00:00+10:00", "0001-01-01T00:00:00.000000Z"),
            ("9999-12-31T23:59:59-10:00", "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(read(sent).as_deref(), Some(told), "{sent}");
        }
    }

    #[test]
    fn days_are_read_as_the_reference_reads_them() {
        let sent = |text: &str| match date(&Json::parse(text, 1).unwrap()) {
            Ok(day) => day.as_str().unwrap().to_owned(),
            Err(fault) => fault.kind().to_owned(),
        };
        for (text, read) in [
            ("\"2023-01-01\"", "2023-01-01"),
            ("\"2023-01-01t00:00:00z\"", "2023-01-01"),
            ("\"2023-01-01T00:00:00-00:00\"", "2023-01-01"),
            ("\"2023-01-01T00:00:00+0100\"", "date_from_datetime_inexact"),
            ("\"2023-01-01T00:00:00\"", "timezone_aware"),
            ("\"1672531200\"", "timezone_aware"),
            ("1672531200", "timezone_aware"),
            ("\"2023-01-01T00:00:00.1234567Z\"", "date_from_datetime_inexact"),
            ("\"1700000000\"", "date_from_datetime_inexact"),
            ("1700000000", "date_from_datetime_inexact"),
            ("\"2023-01-01T24:00:00Z\"", "date_from_datetime_parsing"),
            ("\"2023-02-30\"", "date_from_datetime_parsing"),
            ("\"\"", "date_from_datetime_parsing"),
            ("\"0000-01-01T00:00:00Z\"", "date_parsing"),
            ("true", "date_type"),
        ] {
            assert_eq!(sent(text), read, "{text}");
        }
    }

    #[test]
    fn every_day_has_its_number() {
        for days in -719_162..=2_932_896 {
            let (year, month, day) = civil(days);
            let date = Date {
                year: year.try_into().unwrap(),
                month: month.try_into().unwrap(),
                day: day.try_into().unwrap(),
            };
            assert_eq!(days_since_1970(date), days);
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
    }
}
