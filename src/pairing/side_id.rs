//! The side identity out of a request target.
//!
//! Two connections with equal pair codes and equal identities are one client that has come again. This file decides nothing
//! else. Its counterpart is the pair table, which gives the place of the earlier connection to the later one.

use std::fmt;
use std::sync::Arc;

use crate::pairing::query;

/// The longest identity that is accepted, in characters (Unicode scalar values) after decoding.
pub const MAX_CHARACTERS: usize = 64;

/// The name by which a client tells itself from its peer: the relay only compares it.
///
/// A client that knows the code and the identity of another can take its place. Besides, an identity may name a person or a
/// device. So [`Debug`](fmt::Debug) does not show it, and there is no `Display`. Cloning is cheap.
///
/// # Examples
///
/// ```
/// use arc_relay::internals::side_id::SideId;
///
/// let phone = SideId::from_target("/?pair=x&side=the+phone")?;
/// assert_eq!(phone, SideId::from_target("/?side=the%20phone&pair=y&side=ignored")?);
/// assert_eq!(SideId::from_target("/?pair=x")?, None);
/// assert!(SideId::from_target("/?pair=x&side=").is_err());
/// assert_eq!(format!("{phone:?}"), "Some(SideId(..))");
/// # Ok::<(), arc_relay::internals::side_id::InvalidSideId>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SideId(Arc<str>);

impl SideId {
    /// Reads the identity from a request target, if it has one.
    ///
    /// It is decoded as a [pair code](super::pair_code::PairCode::from_target) is, and the first `side` decides.
    ///
    /// # Errors
    ///
    /// [`InvalidSideId`] if the first `side` is empty, longer than [`MAX_CHARACTERS`], or not UTF-8. The fault is the
    /// client's.
    pub fn from_target(target: &str) -> Result<Option<Self>, InvalidSideId> {
        let side = query::first_text(target, "side", MAX_CHARACTERS).map_err(|_| InvalidSideId)?;
        Ok(side.map(Self))
    }

    /// An identity with this text, if that is neither empty nor too long.
    pub(crate) fn new(side: &str) -> Option<Self> {
        query::text(side.as_bytes(), MAX_CHARACTERS).ok().map(Self)
    }
}

impl fmt::Debug for SideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SideId(..)")
    }
}

/// A request target has an unusable side identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSideId;

impl fmt::Display for InvalidSideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid side")
    }
}

impl std::error::Error for InvalidSideId {}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(target: &str) -> Result<Option<String>, InvalidSideId> {
        Ok(SideId::from_target(target)?.map(|side| side.0.to_string()))
    }

    fn some(side: &str) -> Result<Option<String>, InvalidSideId> {
        Ok(Some(side.to_owned()))
    }

    #[test]
    fn first_side_counts_and_is_form_decoded() {
        assert_eq!(side("/?pair=x&side=a+b%2B&side=c"), some("a b+"));
        assert_eq!(side("ws://host/path?s%69de=%F0%9F%90%8B#side=c"), some("🐋"));
        assert_eq!(side("/?side=%&pair=x"), some("%"));
    }

    #[test]
    fn target_without_a_side_has_none() {
        for target in ["", "/", "/?pair=side", "/?pair=x&SIDE=a", "/?pair=x&sides=a", "/?pair=x#&side=a", "/side=a"] {
            assert_eq!(side(target), Ok(None), "{target}");
        }
    }

    #[test]
    fn first_side_that_is_bad_is_refused_and_not_passed_over() {
        for value in ["", "%FF", "a%C3", "%ED%A0%80", &"x".repeat(65), &"%F0%9F%90%8B".repeat(65)] {
            assert_eq!(side(&format!("/?pair=x&side={value}&side=y")), Err(InvalidSideId), "{value}");
        }
        assert_eq!(side("/?side&pair=x"), Err(InvalidSideId));
        for value in ["x".repeat(64), "%F0%9F%90%8B".repeat(64)] {
            assert!(side(&format!("/?side={value}")).is_ok(), "{value}");
        }
    }
}
