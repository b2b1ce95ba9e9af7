//! The demo: a page at `/` with which two browsers meet by this relay.
//!
//! `clients/demo/build.mjs` makes the page, of `clients/demo` and `clients/js`. It is one file with its style and script, and
//! loads nothing.

use http::{StatusCode, Uri};

use super::answer::Answer;
use super::page;
use crate::pairing::query;

/// The page.
const HTML: &str = include_str!("demo.html");

/// The demo, with what its answer says.
#[derive(Debug)]
pub(crate) struct Demo {
    policy: String,
}

impl Demo {
    pub(crate) fn new() -> Self {
        Self { policy: page::policy(HTML) }
    }

    /// Whether the demo is at this target.
    ///
    /// With a pair code it is not: that is a request for a seat, and a proxy has dropped `Upgrade` from it.
    pub(super) fn is_at(uri: &Uri) -> bool {
        uri.path() == "/" && uri.path_and_query().is_none_or(|target| query::first(target.as_str(), "pair").is_none())
    }

    /// The answer. A reader that takes nothing of it holds no copy of the page.
    pub(super) fn answer(&self) -> Answer {
        Answer::with_static_body(StatusCode::OK, "text/html; charset=utf-8", HTML)
            .with_field("content-security-policy", self.policy.as_bytes())
            .with_field("referrer-policy", b"no-referrer")
            .with_field("x-content-type-options", b"nosniff")
            .with_field("cross-origin-opener-policy", b"same-origin")
            .with_field("cross-origin-resource-policy", b"same-origin")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_fits_its_policy_and_loads_nothing() {
        page::assert_policy_fits(HTML);
        // The comment has addresses of authors, and the script the name of a namespace. Neither is loaded.
        let (_, page) = HTML.split_once("-->").expect("the comment with the licences");
        for word in ["@import", "url(", "<iframe", "<object", "<base", "http-equiv"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
