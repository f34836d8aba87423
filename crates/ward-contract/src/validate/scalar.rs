//! Numbers, flags, ids and timestamps: every spelling that the reference accepts, and its messages for the
//! others.
//!
//! A query string contains only text, and JSON clients send `"30"` or `30.0` for 30. Both are accepted, as
//! the clients expect.

use serde_json::{Value, json};
use speedate::{Date, DateTime};
use strum::EnumMessage;
use uuid::Uuid;

use super::Json;
use super::walk::Fault;
use crate::document::{Bounds, Moment, Range};

/// The longest text that is read as a number. The reference has this bound because its conversion takes
/// quadratic time.
const LONGEST_NUMBER: usize = 4300;

/// A whole number within `bounds`, as the nearest 64-bit number.
pub(super) fn integer(bounds: &Bounds, given: &Json) -> Result<Value, Fault> {
    let whole = match given {
        Json::Number(text) if text.contains(['.', 'e', 'E']) => from_float(text)?,
        Json::Number(text) => saturating(text),
        Json::String(text) => from_text(text)?,
        Json::Bool(flag) => i128::from(*flag),
        _ => return Err(Fault::new("int_type", "Input should be a valid integer")),
    };
    let over = |bound: Option<i64>, beyond: fn(&i128, &i128) -> bool| {
        bound.filter(|bound| beyond(&whole, &i128::from(*bound)))
    };
    if let Some(le) = over(bounds.maximum, i128::gt) {
        let msg = format!("Input should be less than or equal to {le}");
        return Err(Fault::with("less_than_equal", msg, json!({ "le": le })));
    }
    if let Some(lt) = over(bounds.exclusive_maximum, i128::ge) {
        return Err(Fault::with("less_than", format!("Input should be less than {lt}"), json!({ "lt": lt })));
    }
    if let Some(ge) = over(bounds.minimum, i128::lt) {
        let msg = format!("Input should be greater than or equal to {ge}");
        return Err(Fault::with("greater_than_equal", msg, json!({ "ge": ge })));
    }
    if let Some(gt) = over(bounds.exclusive_minimum, i128::le) {
        return Err(Fault::with(
            "greater_than",
            format!("Input should be greater than {gt}"),
            json!({ "gt": gt }),
        ));
    }
    let clamped = whole.clamp(i64::MIN.into(), i64::MAX.into());
    Ok(Value::from(i64::try_from(clamped).unwrap_or_default()))
}

/// Reads an optional sign and digits. A number too large for the type becomes the type's limit, which is
/// beyond every bound.
fn saturating(text: &str) -> i128 {
    let beyond = if text.starts_with('-') { i128::MIN } else { i128::MAX };
    text.parse().unwrap_or(beyond)
}

fn from_float(text: &str) -> Result<i128, Fault> {
    let float: f64 = text.parse().unwrap_or(f64::INFINITY);
    if !float.is_finite() {
        return Err(Fault::new("finite_number", "Input should be a finite number"));
    }
    if float.fract() != 0.0 {
        return Err(Fault::new(
            "int_from_float",
            "Input should be a valid integer, got a number with a fractional part",
        ));
    }
    // Beyond 64 bits a float does not identify one whole number. The reference refuses it there.
    if float.abs() >= 9_223_372_036_854_775_808.0 {
        return Err(too_big());
    }
    // The float is whole and in range, so its text without a fraction is exact.
    Ok(saturating(&format!("{float:.0}")))
}

fn too_big() -> Fault {
    Fault::new("int_parsing_size", "Unable to parse input string as an integer, exceeded maximum size")
}

/// Reads texts like `" +1_000.00 "`: white space around, a sign, single underscores between digits, a
/// fraction of zeros.
fn from_text(text: &str) -> Result<i128, Fault> {
    let unreadable =
        || Fault::new("int_parsing", "Input should be a valid integer, unable to parse string as an integer");
    // The reference first tries the unchanged text. It refuses a long run of digits before it looks at the
    // rest.
    let start = text.strip_prefix('-').unwrap_or(text);
    let run = start.bytes().take_while(u8::is_ascii_digit).count();
    if run > LONGEST_NUMBER && !start.starts_with('0') {
        return Err(too_big());
    }
    let text = text.trim();
    let whole = match text.split_once('.') {
        Some((whole, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return Err(unreadable()),
        None => text,
    };
    let (sign, digits) = match whole.strip_prefix(['+', '-']) {
        Some(digits) => (&whole[..1], digits),
        None => ("", whole),
    };
    let groups_are_digits =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    if !groups_are_digits {
        return Err(unreadable());
    }
    let digits = digits.replace('_', "");
    if digits.trim_start_matches('0').len() > LONGEST_NUMBER {
        return Err(unreadable());
    }
    Ok(saturating(&format!("{sign}{digits}")))
}

/// Reads a finite number within `range`, also from a text.
pub(super) fn number(range: &Range, given: &Json) -> Result<Value, Fault> {
    let read: f64 = match given {
        // A text too large for the type reads as infinity, which is refused below.
        Json::Number(text) => text.parse().unwrap_or(f64::INFINITY),
        Json::String(text) => float_text(text).ok_or_else(|| {
            Fault::new("float_parsing", "Input should be a valid number, unable to parse string as a number")
        })?,
        Json::Bool(flag) => f64::from(u8::from(*flag)),
        _ => return Err(Fault::new("float_type", "Input should be a valid number")),
    };
    let Some(number) = serde_json::Number::from_f64(read) else {
        return Err(Fault::new("finite_number", "Input should be a finite number"));
    };
    if let Some(le) = range.maximum.filter(|le| read > *le) {
        let msg = format!("Input should be less than or equal to {le}");
        return Err(Fault::with("less_than_equal", msg, json!({ "le": le })));
    }
    if let Some(ge) = range.minimum.filter(|ge| read < *ge) {
        let msg = format!("Input should be greater than or equal to {ge}");
        return Err(Fault::with("greater_than_equal", msg, json!({ "ge": ge })));
    }
    Ok(Value::Number(number))
}

/// Reads texts like `" 1_000.5 "`: white space around, single underscores anywhere except at the ends.
fn float_text(text: &str) -> Option<f64> {
    let text = text.trim();
    let misplaced = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    if misplaced { None } else { text.replace('_', "").parse().ok() }
}

/// Reads a flag: a JSON boolean, 0 or 1, or one of the words for them.
pub(super) fn boolean(given: &Json) -> Result<Value, Fault> {
    let unreadable =
        || Fault::new("bool_parsing", "Input should be a valid boolean, unable to interpret input");
    match given {
        Json::Bool(flag) => Ok(Value::Bool(*flag)),
        Json::String(text) => match text.to_ascii_lowercase().as_str() {
            "0" | "off" | "f" | "false" | "n" | "no" => Ok(Value::Bool(false)),
            "1" | "on" | "t" | "true" | "y" | "yes" => Ok(Value::Bool(true)),
            _ => Err(unreadable()),
        },
        Json::Number(text) if text.contains(['.', 'e', 'E']) => match from_float(text) {
            Ok(0) => Ok(Value::Bool(false)),
            Ok(1) => Ok(Value::Bool(true)),
            Ok(_) => Err(unreadable()),
            Err(_) => Err(Fault::new("bool_type", "Input should be a valid boolean")),
        },
        Json::Number(text) => match text.parse::<i64>() {
            Ok(0) => Ok(Value::Bool(false)),
            Ok(1) => Ok(Value::Bool(true)),
            Ok(_) => Err(unreadable()),
            Err(_) => Err(Fault::new("bool_type", "Input should be a valid boolean")),
        },
        _ => Err(Fault::new("bool_type", "Input should be a valid boolean")),
    }
}

/// Reads a UUID (RFC 9562, section 4): with hyphens, without, in braces or as a URN. The result is lower
/// case with hyphens.
pub(super) fn uuid(given: &Json) -> Result<Value, Fault> {
    let Json::String(text) = given else {
        return Err(Fault::new("uuid_type", "UUID input should be a string, bytes or UUID object"));
    };
    // The reference accepts the prefix of a URN in lower case only. The parser here would accept it in any
    // case.
    match Uuid::parse_str(text) {
        Ok(uuid) if text.len() != URN_LENGTH || text.starts_with(URN) => {
            Ok(Value::String(uuid.hyphenated().to_string()))
        }
        _ => Err(because("uuid_parsing", "Input should be a valid UUID", &no_uuid(text))),
    }
}

const URN: &str = "urn:uuid:";
const URN_LENGTH: usize = 45;
const HYPHENATED_LENGTH: usize = 36;

/// The reason why `text` is not a UUID, in the words of the reference.
fn no_uuid(text: &str) -> String {
    if text.is_empty() || text.len() > URN_LENGTH {
        return format!("invalid length: found {}", text.len());
    }
    let braced = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    // The reference looks at the length first. It reads a text of 36 bytes as a hyphenated id, even with
    // braces in it. For other lengths, it counts braces and prefix as part of the id, unless they enclose
    // 36 bytes.
    let (id, before, plain) = match (braced, text.strip_prefix(URN)) {
        _ if text.len() == HYPHENATED_LENGTH => (text, 0, false),
        (Some(id), _) => (id, 1, false),
        (None, Some(id)) => (id, URN.len(), false),
        (None, None) => (text, 0, true),
    };
    let (before, around) =
        if id.len() == HYPHENATED_LENGTH { (0, 0) } else { (before, text.len() - id.len()) };
    let stray = id.char_indices().find(|(_, character)| *character != '-' && !character.is_ascii_hexdigit());
    if let Some((at, character)) = stray {
        return format!("invalid character: found `{character}` at {}", at + before);
    }
    let groups: Vec<&str> = id.split('-').collect();
    if groups.len() == 1 && plain {
        return format!("invalid length: found {}", text.len());
    }
    if groups.len() != 5 {
        return format!("invalid group count: expected 5, found {}", groups.len());
    }
    let wrong = groups.iter().zip([8, 4, 4, 4]).position(|(group, expected)| group.len() != expected);
    match wrong {
        Some(group) => {
            let expected = if group == 0 { 8 } else { 4 };
            let found = groups[group].len();
            format!("invalid group length in group {group}: expected {expected}, found {found}")
        }
        None => {
            format!("invalid group length in group 4: expected 12, found {}", groups[4].len() + around)
        }
    }
}

/// Reads a timestamp: ISO 8601, a day, or seconds or milliseconds since 1970. A timestamp without an offset
/// is UTC, unless `moment` requires an offset. The result is UTC with microseconds, limited to the years 1
/// to 9999.
pub(super) fn date_time(moment: Moment, given: &Json) -> Result<Value, Fault> {
    if let (Some(most), Json::String(text)) = (moment.longest, given)
        && text.chars().nth(most).is_some()
    {
        let msg = format!("String should have at most {most} characters");
        return Err(Fault::with("string_too_long", msg, json!({ "max_length": most })));
    }
    let without_zone = || Err(Fault::new("timezone_aware", "Input should have timezone info"));
    let year_zero = || Err(because("datetime_parsing", "Input should be a valid datetime", YEAR_ZERO));
    match any_date_time(given) {
        // The reference checks the offset before it builds a time, and finds the year 0 only then.
        Read::Ok(read) if moment.zone_required && read.time.tz_offset.is_none() => without_zone(),
        Read::Ok(read) if read.date.year == 0 => year_zero(),
        Read::Ok(_) if moment.zone_required && is_since_1970(given) => without_zone(),
        Read::Ok(read) => Ok(Value::String(in_utc(&read))),
        Read::WrongType => Err(Fault::new("datetime_type", "Input should be a valid datetime")),
        // A day is a valid timestamp too, so the message is about the unreadable day as well.
        Read::Unreadable(error) => match any_date(given) {
            Read::Ok(_) if moment.zone_required => without_zone(),
            Read::Ok(day) if day.year == 0 => year_zero(),
            Read::Ok(day) => {
                let time = if moment.end_of_day { LAST_OF_DAY } else { MIDNIGHT };
                Ok(Value::String(in_utc(&DateTime { date: day, time })))
            }
            Read::Unreadable(error) => {
                Err(because("datetime_from_date_parsing", "Input should be a valid datetime or date", &error))
            }
            Read::Impossible(error) => {
                Err(because("datetime_parsing", "Input should be a valid datetime", &error))
            }
            Read::WrongType => Err(because("datetime_parsing", "Input should be a valid datetime", &error)),
        },
        Read::Impossible(error) => {
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

/// Reads a day: `2026-04-18`, or a timestamp at exactly midnight.
pub(super) fn date(given: &Json) -> Result<Value, Fault> {
    const FORMAT: &str = "Input should be a valid date in the format YYYY-MM-DD";
    match read_date(given) {
        Read::Ok(day) => Ok(Value::String(day.to_string())),
        Read::Impossible(error) => Err(because("date_parsing", FORMAT, &error)),
        Read::Unreadable(_) | Read::WrongType => match read_date_time(given) {
            Read::Ok(moment)
                if moment.time == (speedate::Time { tz_offset: moment.time.tz_offset, ..MIDNIGHT }) =>
            {
                Ok(Value::String(moment.date.to_string()))
            }
            Read::Ok(_) => Err(Fault::new(
                "date_from_datetime_inexact",
                "Datetimes provided to dates should have zero time - e.g. be exact dates",
            )),
            Read::Unreadable(error) => {
                Err(because("date_from_datetime_parsing", "Input should be a valid date or datetime", &error))
            }
            Read::Impossible(error) => Err(because("date_parsing", FORMAT, &error)),
            Read::WrongType => Err(Fault::new("date_type", "Input should be a valid date")),
        },
    }
}

const LAST_OF_DAY: speedate::Time =
    speedate::Time { hour: 23, minute: 59, second: 59, microsecond: 999_999, tz_offset: None };

const MIDNIGHT: speedate::Time =
    speedate::Time { hour: 0, minute: 0, second: 0, microsecond: 0, tz_offset: None };

fn because(kind: &'static str, msg: &str, error: &str) -> Fault {
    Fault::with(kind, format!("{msg}, {error}"), json!({ "error": error }))
}

/// The result of reading a timestamp or a day.
enum Read<T> {
    Ok(T),
    /// The text is not of this type, for the reason given.
    Unreadable(String),
    /// The text is of this type, but its year is 0, which no calendar in use has.
    Impossible(String),
    /// The value is neither a text nor a number.
    WrongType,
}

impl<T> Read<T> {
    fn of(read: Result<T, speedate::ParseError>) -> Self {
        match read {
            Ok(read) => Self::Ok(read),
            Err(error) => Self::Unreadable(error.get_documentation().unwrap_or("unreadable").to_owned()),
        }
    }
}

/// Reads a time of any year with four digits, 0 included.
fn any_date_time(given: &Json) -> Read<DateTime> {
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
        _ => return Read::WrongType,
    };
    Read::of(read)
}

fn read_date_time(given: &Json) -> Read<DateTime> {
    match any_date_time(given) {
        Read::Ok(moment) if moment.date.year == 0 => Read::Impossible(YEAR_ZERO.to_owned()),
        read => read,
    }
}

/// Reads a day of any year with four digits, 0 included.
fn any_date(given: &Json) -> Read<Date> {
    let Json::String(text) = given else { return Read::WrongType };
    Read::of(Date::parse_str(text))
}

fn read_date(given: &Json) -> Read<Date> {
    match any_date(given) {
        Read::Ok(day) if day.year == 0 => Read::Impossible(YEAR_ZERO.to_owned()),
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

    const ANY: Moment = Moment { longest: None, zone_required: false, end_of_day: false };

    #[test]
    fn a_time_in_a_body_says_its_offset() {
        let zoned = Moment { zone_required: true, ..ANY };
        let read = |text: &str| match date_time(zoned, &Json::parse(text, 1).unwrap()) {
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
        let end = Moment { end_of_day: true, ..ANY };
        for (sent, told) in [
            ("2026-11-29", "2026-11-29T23:59:59.999999Z"),
            ("2026-11-29T00:00:00", "2026-11-29T00:00:00.000000Z"),
            ("2026-11-29T00:00:00Z", "2026-11-29T00:00:00.000000Z"),
        ] {
            assert_eq!(date_time(end, &Json::String(sent.to_owned())).ok(), Some(told.into()), "{sent}");
        }
    }

    #[test]
    fn times_are_told_in_utc() {
        let read = |text: &str| {
            let given = Json::String(text.to_owned());
            date_time(ANY, &given).ok().and_then(|v| v.as_str().map(str::to_owned))
        };
        for (sent, told) in [
            ("2026-04-18T12:00:00.123456Z", "2026-04-18T12:00:00.123456Z"),
            ("2026-04-18T12:00:00.1234569+02:00", "2026-04-18T10:00:00.123456Z"),
            ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
            ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00.000000Z"),
            ("1969-12-31T23:59:59", "1969-12-31T23:59:59.000000Z"),
            ("1700000000", "2023-11-14T22:13:20.000000Z"),
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
            ("\"2023-01-01T00:00:00+0100\"", "2023-01-01"),
            ("\"2023-01-01t00:00:00z\"", "2023-01-01"),
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
    fn numbers_are_finite_and_bounded() {
        let range = Range { minimum: Some(0.0), maximum: Some(10.0) };
        let read = |text: &str| match number(&range, &Json::parse(text, 1).unwrap()) {
            Ok(number) => number.to_string(),
            Err(fault) => fault.kind().to_owned(),
        };
        for (sent, told) in [
            ("1.5", "1.5"),
            ("3", "3.0"),
            ("\" 2.5 \"", "2.5"),
            ("true", "1.0"),
            ("1e400", "finite_number"),
            ("\"nan\"", "finite_number"),
            ("\"x\"", "float_parsing"),
            ("\" 1_0.0 \"", "10.0"),
            ("\"_1.5\"", "float_parsing"),
            ("\"1__0\"", "float_parsing"),
            ("\"1_ \"", "float_parsing"),
            ("[]", "float_type"),
            ("-0.1", "greater_than_equal"),
            ("10.1", "less_than_equal"),
        ] {
            assert_eq!(read(sent), told, "{sent}");
        }
    }

    #[test]
    fn a_flag_in_decimals_is_read_as_its_whole_number_would_be() {
        let read = |text: &str| match boolean(&Json::parse(text, 1).unwrap()) {
            Ok(flag) => flag.to_string(),
            Err(fault) => fault.kind().to_owned(),
        };
        for (sent, told) in [
            ("1.0", "true"),
            ("-0.0", "false"),
            ("1e0", "true"),
            ("30.0", "bool_parsing"),
            ("1e1", "bool_parsing"),
            ("0.5", "bool_type"),
            ("0.9999999999999999", "bool_type"),
            ("1e19", "bool_type"),
            ("1e400", "bool_type"),
        ] {
            assert_eq!(read(sent), told, "{sent}");
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
