//! The document as a page for people, `/v1/docs`.
//!
//! The page is a single file that loads nothing from other hosts. So it works without internet access, and
//! the content security policy can forbid all other sources.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page, with its style and its script inlined.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    include_str!("docs/page.html")
        .replacen("/* style.css */", &format!("\n{}", include_str!("docs/style.css")), 1)
        .replacen("/* script.js */", &format!("\n{}", include_str!("docs/script.js")), 1)
});

/// The page, and the `content-security-policy` header that must accompany it.
pub fn page() -> (&'static str, String) {
    (&PAGE, policy(&PAGE))
}

/// The `content-security-policy` of a page with one script and one style.
///
/// The policy allows these two by their SHA-256 (CSP Level 3, section 6.7.3), and requests to the page's origin. It costs two
/// hashes of the page, so it should be called once, at start.
pub fn policy(page: &str) -> String {
    let hash = |tag| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(element(page, tag))));
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    )
}

/// The text of the first `<tag>` of `page`, whose bytes a browser hashes. It is empty if the tag is
/// missing, so that the policy allows nothing.
fn element<'p>(page: &'p str, tag: &str) -> &'p str {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let found = page.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
    found.map_or("", |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_covers_the_one_script_and_the_one_style() {
        let (page, policy) = page();
        for tag in ["script", "style"] {
            assert_eq!(page.matches(&format!("<{tag}")).count(), 1, "one {tag}, without attributes");
            assert!(!element(page, tag).is_empty());
        }
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe"));
        for handler in [
            " style=\"",
            " onclick",
            " onload",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
        ] {
            assert!(!page.contains(handler), "{handler} is either refused by the policy or unsafe");
        }
    }

    #[test]
    fn the_page_asks_nobody_else() {
        assert!(
            !page().0.contains("http://") && !page().0.contains("https://") && !page().0.contains("//cdn")
        );
    }
}
