//! The page for people.
//!
//! It is one file with its style and script, and loads nothing but samples from this listener.

/// The page.
pub(super) const HTML: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::page::assert_policy_fits;

    #[test]
    fn page_fits_its_policy_and_names_no_other_host() {
        assert_policy_fits(HTML);
        // The name of a namespace is no address.
        let addresses = HTML.replace("http://www.w3.org/2000/svg", "");
        assert!(!addresses.contains("://"), "the page names another host");
    }
}
