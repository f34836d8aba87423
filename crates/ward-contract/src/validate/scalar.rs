//! Numbers, flags and ids: every spelling that the reference accepts, and its messages for the
//! others.
//!
//! A query string contains only text, and JSON clients send `"30"` or `30.0` for 30. Both are accepted, as
//! the clients expect.

use serde_json::{Value, json};
use uuid::Uuid;

use super::Json;
use super::walk::Fault;
use crate::document::{Bounds, Range};

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

/// A fault with its reason, as the reference gives it.
pub(super) fn because(kind: &'static str, msg: &str, error: &str) -> Fault {
    Fault::with(kind, format!("{msg}, {error}"), json!({ "error": error }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
