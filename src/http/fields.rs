//! The fields of a request's head, as they were sent.

use httparse::Header;

/// The fields of a request, in their order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(super) &'a [Header<'a>]);

impl<'a> Fields<'a> {
    /// The values of all fields of this name, the case of which does not matter (RFC 9110, section 5.1).
    pub(crate) fn all(self, name: &'static str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// Whether there is a field of this name.
    pub(crate) fn has(self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    /// The value of a field that has to be given once: two are as good as none.
    pub(crate) fn single(self, name: &'static str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The elements of a field that is a list, from all of its lines (RFC 9110, sections 5.3 and 5.6.1).
    ///
    /// A line that is not [text](is_text) has none. No element is empty.
    pub(crate) fn elements(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.all(name).filter(|line| is_text(line));
        lines.flat_map(|line| line.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
    }
}

/// Whether a value consists of visible ASCII, blanks and tabs.
pub(super) fn is_text(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: [Header<'static>; 4] = [
        Header { name: "List", value: b"one,, \ttwo " },
        Header { name: "once", value: b"only" },
        Header { name: "LIST", value: b"\xE9, three" },
        Header { name: "list", value: b"four" },
    ];

    #[test]
    fn elements_are_from_all_lines_of_text() {
        let elements: Vec<_> = Fields(&SENT).elements("list").collect();
        assert_eq!(elements, [&b"one"[..], b"two", b"four"]);
    }

    #[test]
    fn a_field_given_twice_has_no_single_value() {
        let fields = Fields(&SENT);
        assert_eq!((fields.single("Once"), fields.single("list")), (Some(&b"only"[..]), None));
        assert_eq!((fields.has("ONCE"), fields.has("never")), (true, false));
    }
}
