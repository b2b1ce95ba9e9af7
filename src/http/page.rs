//! The policy of pages of one file.
//!
//! It allows their own style and script, by hashes, and nothing else.

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// The content security policy of a page with one style and one script.
///
/// The page connects to its own origin only.
pub(crate) fn policy(html: &str) -> String {
    format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash_of(html, "style"),
        hash_of(html, "script"),
    )
}

/// The hash of what is in the page's only element of this name.
fn hash_of(html: &str, element: &str) -> String {
    let content =
        html.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let (content, _) = content.expect("the page has such an element");
    format!("sha256-{}", BASE64.encode(&Sha256::digest(content)))
}

/// Asserts that the policy leaves a page as it is.
///
/// It has one style, one script, and no attributes with either.
#[cfg(test)]
pub(crate) fn assert_policy_fits(html: &str) {
    for element in ["style", "script"] {
        assert_eq!(html.matches(&format!("<{element}")).count(), 1, "{element}");
        assert_eq!(html.matches(&format!("</{element}")).count(), 1, "{element}");
    }
    let (head, rest) = html.split_once("<script>").expect("a script");
    let (_, tail) = rest.split_once("</script>").expect("the script's end");
    for markup in [head, tail] {
        for attribute in [" style=", " onclick=", " onload=", " src="] {
            assert!(!markup.contains(attribute), "{attribute}");
        }
    }
}
