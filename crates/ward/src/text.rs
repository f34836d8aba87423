//! Characters of external texts: invisible ones, spaces and dashes. And bytes as text.

use unicode_general_category::{GeneralCategory, get_general_category};

/// Whether a character is invisible: a control, a direction mark, a joiner or a line break (Unicode categories
/// Cc, Cf, Zl, Zp). Fillers and variation selectors, which have other categories, count
/// as well.
pub fn is_unseen(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    matches!(get_general_category(c), Control | Format | LineSeparator | ParagraphSeparator)
        || matches!(
            c,
            '\u{34f}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{2065}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The bytes in lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The first invisible character of a text.
pub fn first_unseen(text: &str) -> Option<char> {
    text.chars().find(|c| is_unseen(*c))
}

/// The text without its invisible characters.
pub fn seen(text: &str) -> String {
    text.chars().filter(|c| !is_unseen(*c)).collect()
}

/// Whether a character is easily copied by mistake: white space, or an invisible character.
pub fn is_stray(c: char) -> bool {
    c.is_whitespace() || is_unseen(c)
}

/// Whether a stray character stands at an end of the text.
pub fn has_stray_end(text: &str) -> bool {
    text.starts_with(is_stray) || text.ends_with(is_stray)
}

/// The text without stray characters at its ends, because settings are often pasted.
pub fn pasted(text: &str) -> &str {
    text.trim_matches(is_stray)
}

/// Whether a character is a space with a width, non-breaking ones included (Zs).
pub fn is_space(c: char) -> bool {
    get_general_category(c) == GeneralCategory::SpaceSeparator
}

/// Whether a character is a dash of any kind (Pd), or the minus sign.
pub fn is_dash(c: char) -> bool {
    get_general_category(c) == GeneralCategory::DashPunctuation || c == '\u{2212}'
}
