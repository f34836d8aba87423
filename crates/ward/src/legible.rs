//! The characters of names: of workspaces, keys, integrations and people.
//!
//! A character that cannot be seen lets two names look the same, and a direction mark reorders the text around a name.
//! So names do not contain them. Emoji and some scripts need a few, and those are allowed where they have an effect.

use icu_properties::props::{
    CanonicalCombiningClass, Emoji, EmojiModifier, ExtendedPictographic, JoiningType,
    PrependedConcatenationMark, Script, UnifiedIdeograph,
};
use icu_properties::{CodePointMapData, CodePointSetData};

use crate::text;

const ZERO_WIDTH_SPACE: char = '\u{200b}';
const NON_JOINER: char = '\u{200c}';
const JOINER: char = '\u{200d}';
/// The flags of England, Scotland and Wales begin with it (UTS #51, annex C).
const BLACK_FLAG: char = '\u{1f3f4}';
const END_OF_FLAG: char = '\u{e007f}';

/// The first character of a name that cannot be seen and that nothing beside it needs.
pub fn first_unfit(name: &str) -> Option<char> {
    let chars: Vec<char> = name.chars().collect();
    (0..chars.len()).find(|at| !is_fit(&chars, *at)).map(|at| chars[at])
}

/// As [`first_unfit`], for the names of workspaces. The validator that the platform's clients were written against accepts
/// the zero-width space there, by a recorded answer.
pub fn first_unfit_of_workspace(name: &str) -> Option<char> {
    let chars: Vec<char> = name.chars().collect();
    (0..chars.len()).find(|at| chars[*at] != ZERO_WIDTH_SPACE && !is_fit(&chars, *at)).map(|at| chars[at])
}

/// The name without the characters that [`first_unfit`] finds.
pub fn fit(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    (0..chars.len()).filter(|at| is_fit(&chars, *at)).map(|at| chars[at]).collect()
}

fn is_fit(chars: &[char], at: usize) -> bool {
    let c = chars[at];
    if !text::is_unseen(c) {
        return true;
    }
    let before = at.checked_sub(1).map(|before| chars[before]);
    let after = chars.get(at + 1).copied();
    match c {
        NON_JOINER => shapes_letters(chars, at),
        JOINER => shapes_letters(chars, at) || joins_emoji(chars, at),
        '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(|it| CodePointSetData::new::<Emoji>().contains(it)),
        '\u{fe00}'..='\u{fe0d}' | '\u{e0100}'..='\u{e01ef}' => before.is_some_and(has_variants),
        '\u{180b}'..='\u{180f}' => before.is_some_and(|it| is_of(it, Script::Mongolian)),
        '\u{e0020}'..=END_OF_FLAG => is_in_flag(&chars[..at], after.is_none_or(|next| !is_tag(next)), c),
        // These marks enclose the digits after them.
        _ => CodePointSetData::new::<PrependedConcatenationMark>().contains(c),
    }
}

/// Whether a joiner changes the shape of letters: beside a sign that ends a consonant, or after a cursive letter that
/// joins the next one (RFC 5892, appendix A.1, and UAX #31, section 2.3).
fn shapes_letters(chars: &[char], at: usize) -> bool {
    let joining = CodePointMapData::<JoiningType>::new();
    let is_virama = |it: &char| {
        CodePointMapData::<CanonicalCombiningClass>::new().get(*it) == CanonicalCombiningClass::Virama
    };
    let letter = chars[..at].iter().rev().find(|it| joining.get(**it) != JoiningType::Transparent);
    let joins = letter
        .is_some_and(|it| matches!(joining.get(*it), JoiningType::DualJoining | JoiningType::LeftJoining));
    joins || at > 0 && (is_virama(&chars[at - 1]) || chars.get(at + 1).is_some_and(is_virama))
}

/// Whether a joiner stands between two emoji (UTS #51, ED-16).
fn joins_emoji(chars: &[char], at: usize) -> bool {
    let modifies = |it: char| it == '\u{fe0f}' || CodePointSetData::new::<EmojiModifier>().contains(it);
    let pictures = CodePointSetData::new::<ExtendedPictographic>();
    let before = chars[..at].iter().rev().find(|it| !modifies(**it));
    before.is_some_and(|it| pictures.contains(*it))
        && chars.get(at + 1).is_some_and(|it| pictures.contains(*it))
}

/// Whether variation selectors other than those of emoji select a form of this character.
fn has_variants(c: char) -> bool {
    let is_math = matches!(c, '0' | '\u{2200}'..='\u{22ff}' | '\u{2a00}'..='\u{2aff}');
    is_math
        || CodePointSetData::new::<UnifiedIdeograph>().contains(c)
        || is_of(c, Script::Myanmar)
        || is_of(c, Script::PhagsPa)
}

fn is_of(c: char, script: Script) -> bool {
    CodePointMapData::<Script>::new().get(c) == script
}

const fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0020}'..=END_OF_FLAG)
}

/// Whether a tag is part of a flag: the flag's tags follow a black flag, and the end mark is the last of them.
fn is_in_flag(before: &[char], is_last: bool, tag: char) -> bool {
    let base = before.iter().rev().find(|it| !is_tag(**it));
    let ended = before.iter().rev().take_while(|it| is_tag(**it)).any(|it| *it == END_OF_FLAG);
    base == Some(&BLACK_FLAG) && !ended && (tag == END_OF_FLAG) == is_last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_people_and_places_are_fit() {
        for name in [
            "Acme Health",
            "École d'été",
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}",
            "\u{995}\u{9cd}\u{200d}\u{9b7}",
            "\u{9b0}\u{200d}\u{9cd}\u{9af}\u{9be}\u{9ac}",
            "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}",
            "\u{915}\u{94d}\u{200c}\u{937}",
            "\u{1f469}\u{1f3fd}\u{200d}\u{2695}\u{fe0f}",
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            "\u{2764}\u{fe0f} 1\u{fe0f}\u{20e3}",
            "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            "\u{8fbb}\u{e0100}",
            "\u{182d}\u{180b}",
            "\u{600}12",
        ] {
            assert_eq!(first_unfit(name), None, "{name:?}");
            assert_eq!(fit(name), name);
        }
    }

    #[test]
    fn what_cannot_be_seen_is_found() {
        for (name, unfit) in [
            ("x\ny", '\n'),
            ("a\u{7}", '\u{7}'),
            ("a\u{85}b", '\u{85}'),
            ("a\u{202e}b", '\u{202e}'),
            ("a\u{2066}b", '\u{2066}'),
            ("a\u{200e}", '\u{200e}'),
            ("\u{200b}", '\u{200b}'),
            ("Ac\u{ad}me", '\u{ad}'),
            ("Ac\u{200d}me", '\u{200d}'),
            ("Ac\u{200c}me", '\u{200c}'),
            ("\u{200c}\u{645}", '\u{200c}'),
            ("\u{1f468}\u{200d}", '\u{200d}'),
            ("a\u{200d}\u{1f468}", '\u{200d}'),
            ("Acme\u{fe0f}", '\u{fe0f}'),
            ("Acme\u{e0100}", '\u{e0100}'),
            ("Acme\u{e0041}", '\u{e0041}'),
            ("\u{1f3f4}\u{e0067}\u{e0062}", '\u{e0062}'),
            ("\u{1f3f4}\u{e0067}\u{e007f}\u{e0067}\u{e007f}", '\u{e007f}'),
            ("a\u{2028}b", '\u{2028}'),
            ("\u{3164}", '\u{3164}'),
            ("a\u{feff}b", '\u{feff}'),
        ] {
            assert_eq!(first_unfit(name), Some(unfit), "{name:?}");
            assert!(fit(name).chars().count() < name.chars().count());
            let allowed = unfit == ZERO_WIDTH_SPACE;
            assert_eq!(first_unfit_of_workspace(name), Some(unfit).filter(|_| !allowed), "{name:?}");
        }
    }
}
