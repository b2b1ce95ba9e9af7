//! Suggestions for misspelt names.

/// Minimum Jaro similarity of a suggestion.
///
/// By this measure `timeout` is similar to `ping-timeout`, and `verbose` is not similar to `version`.
const SIMILAR: f64 = 0.75;

/// Returns the name most similar to the given one, if any is similar.
pub(super) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let similar = names.map(|name| (strsim::jaro(given, name), name)).filter(|(similarity, _)| *similarity > SIMILAR);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested_and_others_are_not() {
        let nearest =
            |given| nearest(given, ["port", "host", "ping-timeout", "max-connections", "version"].into_iter());
        for (given, expected) in [
            ("prot", Some("port")),
            ("p", None),
            ("hots", Some("host")),
            ("timeout", Some("ping-timeout")),
            ("max-conections", Some("max-connections")),
            ("verbose", None),
            ("", None),
        ] {
            assert_eq!(nearest(given), expected, "{given}");
        }
    }
}
