//! The notation of values. It is the same in a flag, the environment and a file, and for display.
//!
//! The error of a parser names the expected form; the caller adds the name of the setting.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::Rate;
use crate::address::range;
use crate::text::pasted;

/// The result of a parser: the value, or the problem as a phrase that follows the setting's name.
pub(super) type ParseResult<T> = Result<T, String>;

pub(super) fn address(text: &str) -> ParseResult<SocketAddr> {
    let text = text.trim();
    // Host names are not looked up. Their addresses can change after Ward has decided whether it listens on
    // loopback only.
    let text =
        text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8080 or [::1]:8080".to_owned())
}

pub(super) fn database(text: &str) -> ParseResult<String> {
    let text = pasted(text);
    let known = ["sqlite:", "postgres://", "postgresql://"];
    if known.iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    Err("must be sqlite:PATH or a postgres:// URL".to_owned())
}

pub(super) fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite:")?;
    Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path)))
}

/// A kind of value: how it is read, and how it is shown so that it reads back.
pub(super) trait Kind {
    type Value;

    fn read(&self, text: &str) -> ParseResult<Self::Value>;
    fn show(&self, value: &Self::Value) -> String;
}

macro_rules! kind {
    ([$($generic:tt)*] $kind:ty => $value:ty: |$this:ident, $text:ident| $read:expr, |$shown:ident| $show:expr) => {
        impl $($generic)* Kind for $kind {
            type Value = $value;

            fn read(&self, $text: &str) -> ParseResult<$value> {
                #[allow(unused_variables, reason = "some kinds need only the text")]
                let $this = self;
                $read
            }

            fn show(&self, $shown: &$value) -> String {
                #[allow(unused_variables, reason = "some kinds need only the value")]
                let $this = self;
                $show
            }
        }
    };
}

/// A whole number in a range.
pub(super) struct Count<T>(pub(super) RangeInclusive<T>);
/// A number of bytes in a range, with or without a unit.
pub(super) struct Size(pub(super) RangeInclusive<usize>);
pub(super) struct Time(pub(super) RangeInclusive<Duration>);
/// A rate: the burst, and what comes back per minute.
pub(super) struct RateKind;
/// The path of a file or a folder, which need not exist.
pub(super) struct PathKind;
/// One of a few words, each with the value that it means.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);
/// A value that is shown by its `Display`.
pub(super) struct Text<T>(pub(super) fn(&str) -> ParseResult<T>);
/// A list of such values with commas between, which may be empty.
pub(super) struct List<T>(pub(super) fn(&str) -> ParseResult<T>);
/// A value with a form of its own.
pub(super) struct With<T>(pub(super) fn(&str) -> ParseResult<T>, pub(super) fn(&T) -> String);
/// A value that need not be set.
pub(super) struct Maybe<K>(pub(super) K);
/// A value, or a word for none.
pub(super) struct Or<K>(pub(super) &'static str, pub(super) K);

kind!([<T: FromStr + PartialOrd + Display>] Count<T> => T: |this, text| number(text, &this.0), |value| value.to_string());
kind!([] Size => usize: |this, text| size(text, &this.0), |value| show_size(*value));
kind!([] Time => Duration: |this, text| duration(text, &this.0), |value| show_duration(*value));
kind!([] RateKind => Rate: |this, text| rate(text), |value| show_rate(*value));
kind!([] PathKind => PathBuf: |this, text| path(text), |value| value.display().to_string());
kind!([<T: Copy + PartialEq>] Choice<T> => T: |this, text| choice(text, this.0), |value| word_for(this.0, value));
kind!([<T: Display>] Text<T> => T: |this, text| (this.0)(text), |value| value.to_string());
kind!([<T: Display>] List<T> => Vec<T>: |this, text| items(text).map(this.0).collect(), |value| show_list(value));
kind!([<T>] With<T> => T: |this, text| (this.0)(text), |value| (this.1)(value));
kind!([<K: Kind>] Maybe<K> => Option<K::Value>: |this, text| this.0.read(text).map(Some),
    |value| value.as_ref().map(|value| this.0.show(value)).unwrap_or_default());
kind!([<K: Kind>] Or<K> => Option<K::Value>:
    |this, text| if text.trim() == this.0 { Ok(None) } else { this.1.read(text).map(Some) },
    |value| value.as_ref().map_or_else(|| this.0.to_owned(), |value| this.1.show(value)));

fn number<T>(text: &str, allowed: &RangeInclusive<T>) -> ParseResult<T>
where
    T: FromStr + PartialOrd + Display,
{
    let (least, most) = (allowed.start(), allowed.end());
    let number = text.trim().replace('_', "").parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

fn path(text: &str) -> ParseResult<PathBuf> {
    let text = pasted(text);
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(PathBuf::from(text)) }
}

const SIZES: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn size(text: &str, allowed: &RangeInclusive<usize>) -> ParseResult<usize> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" => Some(1),
        unit => SIZES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let size = factor.and_then(|factor| digits.parse::<usize>().ok()?.checked_mul(factor));
    size.filter(|size| allowed.contains(size)).ok_or_else(|| {
        let (least, most) = (show_size(*allowed.start()), show_size(*allowed.end()));
        format!("must be a size from {least} to {most}, such as 65536 or 64KiB")
    })
}

fn show_size(size: usize) -> String {
    let (unit, factor) = SIZES.iter().find(|(_, factor)| size.is_multiple_of(*factor)).unwrap_or(&("B", 1));
    format!("{}{unit}", size / factor)
}

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

pub(super) fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> ParseResult<Duration> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    // A bare number is refused: in some programs it is seconds, in others milliseconds.
    let factor = DURATIONS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor);
    let millis = factor.and_then(|factor| digits.parse::<u64>().ok()?.checked_mul(factor));
    millis.map(Duration::from_millis).filter(|duration| allowed.contains(duration)).ok_or_else(|| {
        let (least, most) = (show_duration(*allowed.start()), show_duration(*allowed.end()));
        format!("must be a time from {least} to {most}, with its unit: 500ms, 20s, 5m, 24h or 7d")
    })
}

pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, factor) =
        DURATIONS.iter().find(|(_, factor)| millis.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
    // One or two days read better in hours, the unit in which the documentation states defaults.
    if *unit == "d" && millis / factor < 3 {
        return format!("{}h", millis / 3_600_000);
    }
    format!("{}{unit}", millis / factor)
}

fn rate(text: &str) -> ParseResult<Rate> {
    let form = || "must be BURST:PER_MINUTE, two whole numbers above zero, such as 60:60".to_owned();
    let (burst, per_minute) = text.split_once(':').ok_or_else(form)?;
    let read = |text: &str| number(text, &(1..=1_000_000)).map_err(|_| form());
    Ok(Rate { burst: read(burst)?, per_minute: read(per_minute)? })
}

fn show_rate(rate: Rate) -> String {
    format!("{}:{}", rate.burst, rate.per_minute)
}

/// The comma-separated items of `text` that are not empty.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

pub(super) fn network(item: &str) -> ParseResult<IpNet> {
    range(item).map_err(|why| format!("has {item:?}: {why}"))
}

/// A name server: an address, whose port is 53 unless it says another.
pub(super) fn name_server(item: &str) -> ParseResult<SocketAddr> {
    let read = item.parse().or_else(|_| item.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)));
    read.map_err(|_| "must be addresses such as 192.0.2.53 or [2001:db8::53]:5353".to_owned())
}

pub(super) fn origin_of_list(item: &str) -> ParseResult<String> {
    origin(item).map_err(|_| format!("has {item:?}, which is not an origin such as https://app.example.com"))
}

/// The longest path prefix of a public URL, bytes.
const LONGEST_PREFIX: usize = 200;

/// Parses scheme, authority and an optional path prefix. The result has no slash at the end.
pub(super) fn public_url(text: &str) -> ParseResult<String> {
    let form = || {
        "must be a scheme and an authority, with a path prefix of letters, digits, `-`, `_`, `.` and `~` at most, such as \
         https://example.com/ward"
            .to_owned()
    };
    let uri: http::Uri = text.trim().parse().map_err(|_| form())?;
    let prefix = uri.path().trim_end_matches('/');
    let base = origin(text.trim().strip_suffix(uri.path()).filter(|_| uri.path() != "/").unwrap_or(text))
        .map_err(|_| form())?;
    let segment = |segment: &str| {
        let word = segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        word && !segment.is_empty() && segment != "." && segment != ".."
    };
    let genuine = prefix.split('/').skip(1).all(segment) && prefix.len() <= LONGEST_PREFIX;
    if genuine { Ok(format!("{base}{prefix}")) } else { Err(form()) }
}

/// Parses a scheme and an authority with nothing after them.
pub(super) fn origin(text: &str) -> ParseResult<String> {
    let form = || "must be a scheme and an authority, such as https://ward.example.com".to_owned();
    let uri: http::Uri = text.trim().trim_end_matches('/').parse().map_err(|_| form())?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https")).ok_or_else(form)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(form)?;
    if uri.path() != "/" || uri.query().is_some() {
        return Err(form());
    }
    Ok(format!("{scheme}://{authority}").to_ascii_lowercase())
}

fn show_list<T: ToString>(items: &[T]) -> String {
    joined(items.iter().map(ToString::to_string))
}

/// Joins texts by commas, without spaces.
pub(super) fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> ParseResult<T> {
    let found = choices.iter().find(|(word, _)| *word == text.trim());
    found.map(|(_, value)| *value).ok_or_else(|| {
        format!("must be one of {}", choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", "))
    })
}

fn word_for<T: PartialEq>(choices: &[(&str, T)], value: &T) -> String {
    choices.iter().find(|(_, known)| known == value).map_or_else(String::new, |(word, _)| (*word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::draft::Draft;
    use crate::config::setting::Setting;
    use crate::config::settings::SETTINGS;

    #[test]
    fn what_is_shown_reads_back() {
        for millis in [1, 500, 20_000, 90_000, 3_600_000, 86_400_000, 7 * 86_400_000] {
            let given = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(given), &(Duration::ZERO..=Duration::MAX)), Ok(given));
        }
        for given in [1, 1000, 8192, 256 * 1024, 5 << 20, 3 << 30] {
            assert_eq!(size(&show_size(given), &(0..=usize::MAX)), Ok(given));
        }
        let given = Rate { burst: 600, per_minute: 60 };
        assert_eq!(rate(&show_rate(given)), Ok(given));
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        let any = Duration::ZERO..=Duration::MAX;
        for text in ["20", "", "s", "-1s", "1.5s", "20 seconds", "99999999999999999999d"] {
            assert!(duration(text, &any).is_err(), "{text:?}");
        }
        for text in ["64K", "64kb", "-1", "", "99999999999999GiB"] {
            assert!(size(text, &(0..=usize::MAX)).is_err(), "{text:?}");
        }
        for text in ["60", "0:60", "60:", "60:60:60", "a:b"] {
            assert!(rate(text).is_err(), "{text:?}");
        }
        for text in ["ward.example.com:80", "8080", ":8080", "127.0.0.1"] {
            assert!(address(text).is_err(), "{text:?}");
        }
        for text in [
            "https://a.example/path",
            "ftp://a.example",
            "a.example",
            "https://user@a.example",
            "https://a?b",
        ] {
            assert!(origin(text).is_err(), "{text:?}");
        }
        for wrong in ["10.0.0.0/99", "010.0.0.0/8", "10.0.0.0/08.0", "192.0.2.9/24", "10.0.0/8", "::1%lo"] {
            assert!(List(network).read(&format!("10.0.0.0/8, {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_public_url_may_have_a_path_prefix() {
        for (text, read) in [
            ("https://Ward.Example.com/", "https://ward.example.com"),
            ("https://ward.example.com", "https://ward.example.com"),
            ("https://Example.com/Ward/", "https://example.com/Ward"),
            ("https://example.com:8443/a/b-c_d.e~f", "https://example.com:8443/a/b-c_d.e~f"),
        ] {
            assert_eq!(public_url(text), Ok(read.to_owned()));
            assert_eq!(public_url(read), Ok(read.to_owned()));
        }
        for text in [
            "https://a.example/{x}",
            "https://a.example/a//b",
            "https://a.example/a/../b",
            "https://a.example/%41",
            "https://a.example/a?b",
            "https://user@a.example/a",
            "ftp://a.example/a",
            "a.example/a",
        ] {
            assert!(public_url(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_and_origins_are_normalised() {
        let read = List(network).read(" 10.0.0.0/8,::1 ,::ffff:192.0.2.0/120").unwrap();
        assert_eq!(show_list(&read), "10.0.0.0/8,::1/128,192.0.2.0/24");
        assert_eq!(origin("https://Ward.Example.com/"), Ok("https://ward.example.com".to_owned()));
        assert_eq!(address("localhost:80"), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
    }

    #[test]
    fn a_secret_that_was_pasted_with_more_than_itself_is_what_was_meant() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let kept = |draft: &Draft| {
            let former: Vec<_> = draft.config.former_master_keys.iter().map(|key| key.0.clone()).collect();
            let exports = draft.export_bucket.secret_access_key.clone();
            (
                draft.config.database.clone(),
                draft.bootstrap_token.clone(),
                draft.master_key.clone(),
                former,
                exports,
            )
        };
        let secret = |setting: &&Setting| setting.secret || setting.key == "database";
        for setting in SETTINGS.iter().filter(secret) {
            let value = match setting.key {
                "database" => "postgres://ward:secret@db/ward",
                "bootstrap_token" => "0123456789012345678901",
                "master_key" | "former_master_keys" => key,
                "export_s3_secret_access_key" => "a/secret+of=40",
                other => panic!("{other} is a secret without an example here"),
            };
            let mut plain = Draft::default();
            (setting.apply)(&mut plain, value).unwrap();
            for (before, after) in
                [("", "\n"), (" ", "\r\n"), ("\u{feff}", ""), ("\t", "\u{200b}"), ("\u{a0}", "\u{2060} ")]
            {
                let mut pasted = Draft::default();
                (setting.apply)(&mut pasted, &format!("{before}{value}{after}"))
                    .unwrap_or_else(|why| panic!("{} {before:?} {after:?}: {why}", setting.key));
                assert_eq!(kept(&pasted), kept(&plain), "{} {before:?} {after:?}", setting.key);
            }
        }
    }
}
