//! The page for people.
//!
//! It is one file with its style and script, and loads nothing but samples from this listener.
//!
//! Its content security policy allows this very style and script, by their hashes, and nothing else.

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// The page.
pub(super) const HTML: &str = include_str!("page.html");

/// The content security policy of the page.
pub(super) fn policy() -> String {
    format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash_of("style"),
        hash_of("script"),
    )
}

/// The hash of what is in the page's only element of this name.
fn hash_of(element: &str) -> String {
    let content =
        HTML.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let (content, _) = content.expect("the page has such an element");
    format!("sha256-{}", BASE64.encode(&Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_one_style_and_one_script_and_names_no_other_host() {
        for element in ["style", "script"] {
            assert_eq!(HTML.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        // The policy forbids attributes with style or script.
        for attribute in [" style=", " onclick=", " onload=", " src="] {
            assert!(!HTML.contains(attribute), "{attribute}");
        }
        // The name of a namespace is no address.
        let addresses = HTML.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("://"), "the page names another host");
    }
}
