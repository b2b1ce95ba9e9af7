//! Incremental UTF-8 validation, piece by piece as text arrives.
//!
//! The standard library validates each piece. This file adds the memory of a character that is cut at the end of a
//! piece.

use std::str::from_utf8;

/// The error for bytes that no continuation could turn into UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidUtf8;

/// The state of a text so far. [`finish`](Self::finish) tells whether it is valid as a whole.
#[derive(Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character that is incomplete: `cut[..length]`, at most three bytes between calls.
    cut: [u8; 4],
    length: u8,
}

impl Utf8 {
    /// Validates the next piece. Fails as soon as the text can no longer become valid.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while let (length @ 1.., Some((&byte, rest))) = (usize::from(self.length), piece.split_first()) {
            self.cut[length] = byte;
            self.length += 1;
            piece = rest;
            match from_utf8(&self.cut[..=length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
                Err(_) => {} // still incomplete; four bytes never are
            }
        }
        let Err(error) = from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        let cut = &piece[error.valid_up_to()..];
        self.cut[..cut.len()].copy_from_slice(cut);
        self.length = cut.len() as u8; // three at most
        Ok(())
    }

    /// Ends the text, and begins another one. An incomplete character is an error.
    pub(crate) fn finish(&mut self) -> Result<(), InvalidUtf8> {
        if std::mem::take(&mut self.length) == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<(), InvalidUtf8> {
        let mut text = Utf8::default();
        pieces.into_iter().try_for_each(|piece| text.push(piece))?;
        text.finish()
    }

    #[test]
    fn every_split_in_three_gives_the_same_verdict_as_the_whole() {
        let texts: [&[u8]; 9] = [
            "aé€🐋z".as_bytes(),
            b"",
            b"\xC3",
            b"a\xE2\x82",
            b"\xF0\x9F\x90",
            b"\xC0\x80",
            b"\xED\xA0\x80",
            b"\xF4\x90\x80\x80",
            b"\xE2\x82\xACok\xFFno",
        ];
        for text in texts {
            let verdict = from_utf8(text).map(|_| ()).map_err(|_| InvalidUtf8);
            for i in 0..=text.len() {
                for j in i..=text.len() {
                    assert_eq!(check([&text[..i], &text[i..j], &text[j..]]), verdict, "{text:x?} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn invalid_bytes_are_an_error_before_the_text_ends() {
        assert_eq!(Utf8::default().push(b"\xF5"), Err(InvalidUtf8));
        let mut cut = Utf8::default();
        assert_eq!(cut.push(b"\xE2\x82"), Ok(()));
        assert_eq!(cut.push(b"x"), Err(InvalidUtf8));
    }
}
