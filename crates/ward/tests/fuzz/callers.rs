//! Phone numbers, and what stands in their place.

use std::sync::LazyLock;

use proptest::prelude::*;
use regex::Regex;
use ward::calls::CallerId;
use ward::phone::{is_separator, normalize};

/// Signs that may stand between the digits of a number and, unlike brackets, mark nothing.
const SEPARATORS: [char; 10] =
    [' ', '.', '-', '\u{a0}', '\u{202f}', '\u{2007}', '\u{2010}', '\u{2013}', '\u{2212}', '\u{ff0d}'];
static E164: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\+[1-9][0-9]{6,14}$").unwrap());

fn is_e164(text: &str) -> bool {
    E164.is_match(text)
}

/// Generates numbers, nearly valid numbers, and any text.
fn spelled() -> impl Strategy<Value = String> {
    prop_oneof![
        r"[ \t]?\+[1-9]([ .()\[\]-]{0,2}[0-9]){5,15}[ ]?",
        r"[+0]{0,2}[0-9 .()\[\]\-x/a-z\u{661}\u{ff15}\u{a0}\u{1}]{0,20}",
        "\\PC{0,24}",
        any::<String>(),
    ]
}

#[test]
fn a_number_is_e164_with_the_digits_that_were_given_and_nothing_else_was() {
    let numbers = crate::Count::default();
    proptest!(crate::config(6_000), |(text in spelled())| {
        let Ok(number) = normalize(&text) else { return Ok(()) };
        numbers.one_more();
        prop_assert!(is_e164(&number), "{}", number);
        prop_assert_eq!(normalize(&number), Ok(number.clone()));
        let bare: String = text.trim().chars().filter(|c| *c == '+' || c.is_ascii_digit()).collect();
        prop_assert_eq!(bare, number);
        let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        prop_assert!(!squeezed.contains("(0)") && !squeezed.contains("[0]"));
    });
    assert!(numbers.get() > 500, "only {} of these were numbers", numbers.get());
}

#[test]
fn separators_do_not_matter() {
    let more =
        prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&SEPARATORS[..])), 0..6);
    proptest!(crate::config(3_000), |(text in spelled(), more in more)| {
        let mut spaced: Vec<char> = text.trim().chars().collect();
        for (at, separator) in more {
            spaced.insert(at.index(spaced.len() + 1), separator);
        }
        prop_assert_eq!(normalize(&spaced.into_iter().collect::<String>()), normalize(text.trim()));
    });
}

#[test]
fn no_letter_nor_foreign_digit_is_ever_part_of_a_number() {
    proptest!(crate::config(3_000), |(
        number in r"\+[1-9][0-9]{6,13}",
        at in any::<prop::sample::Index>(),
        stray in any::<char>(),
    )| {
        prop_assume!(!stray.is_ascii_digit() && !is_separator(stray) && !stray.is_whitespace());
        let mut text: Vec<char> = number.chars().collect();
        text.insert(at.index(text.len() + 1), stray);
        prop_assert!(normalize(&text.into_iter().collect::<String>()).is_err());
    });
}

fn caller() -> impl Strategy<Value = String> {
    let user = prop_oneof![
        4 => r"\+[1-9]([ .()-]?[0-9]){6,14}",
        4 => spelled(),
        1 => Just("anonymous".to_owned()),
        1 => Just("+266696687".to_owned()),
        1 => "[0-9]{2,7}",
    ];
    let scheme = prop::sample::select(
        &["", "", "tel:", "TEL:", "sip:", "sips:", "client:", "http:", "tel: ", "tel:tel:"][..],
    );
    let tail = prop::sample::select(&["", "", ";ext=7", "@pbx.example", "\u{0}", "\n", "  x"][..]);
    (scheme, user, tail, prop::bool::weighted(0.1)).prop_map(|(scheme, user, tail, long)| {
        format!("{scheme}{user}{tail}{}", "é ".repeat(if long { 300 } else { 0 }))
    })
}

/// `from_network` takes nearly all that the network sends; `read` refuses more of it, and reads the rest alike.
#[test]
fn a_caller_is_a_number_only_as_a_number_and_reads_back_as_the_same() {
    let numbers = crate::Count::default();
    proptest!(crate::config(6_000), |(text in caller())| {
        let Ok(found) = CallerId::from_network(Some(&text)) else {
            prop_assert!(CallerId::read(Some(&text)).is_err());
            return Ok(());
        };
        if let Some(kept) = found.text() {
            prop_assert!(!kept.is_empty() && kept.chars().count() <= 320);
            prop_assert!(!kept.chars().any(char::is_control), "{:?}", kept);
        }
        if let CallerId::Number(number) = &found {
            numbers.one_more();
            prop_assert!(is_e164(number));
            prop_assert_eq!(normalize(number), Ok(number.clone()));
        }
        if let Ok(read) = CallerId::read(Some(&text)) {
            prop_assert_eq!(&read, &found);
            prop_assert_eq!(CallerId::read(read.text()), Ok(read));
        } else {
            let hidden = text.trim().chars().any(ward::text::is_unseen);
            prop_assert!(hidden || found.form() == "other");
        }
        if let Ok(number) = normalize(&text) {
            prop_assert_eq!(found, CallerId::Number(number));
        }
    });
    assert!(numbers.get() > 200, "only {} of these were numbers", numbers.get());
}

/// Telephones spell ANONYMOUS on the keypad, in groups like any number.
#[test]
fn a_withheld_number_is_withheld_however_it_is_spaced() {
    let more =
        prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(&SEPARATORS[..])), 0..6);
    let keypad = prop::sample::select(&["266696687", "7378742833", "86282452253", "8656696", "2562533"][..]);
    proptest!(crate::config(500), |(keypad in keypad, more in more, plus: bool)| {
        let mut text: Vec<char> = format!("{}{keypad}", if plus { "+" } else { "" }).chars().collect();
        for (at, separator) in more {
            text.insert(at.index(text.len() + 1), separator);
        }
        let text: String = text.into_iter().collect();
        prop_assert!(normalize(&text).is_err());
        prop_assert_eq!(CallerId::read(Some(&text)), Ok(CallerId::Withheld));
    });
}
