//! Whom the operator lets join. Without any of its settings that is everybody with a pair code.

use hyper::HeaderMap;
use hyper::header;

use crate::origin::Origin;
use crate::pair_code::PairCode;

/// What is asked of those who want to join.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    /// Which sites' scripts may join; all may if there are none.
    pub(crate) allowed_origins: Vec<Origin>,
    /// The shortest pair code, in characters. What is no code at all is none here, either.
    pub(crate) min_code_length: usize,
}

/// What a request to join lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    Origin,
    PairCode,
}

impl Policy {
    /// The code that an opening handshake asks for, if its client may have it.
    pub(crate) fn admit(&self, target: &str, headers: &HeaderMap) -> Result<PairCode, Denial> {
        if !self.allows_origin(headers) {
            return Err(Denial::Origin);
        }
        let code = PairCode::from_target(target).map_err(|_| Denial::PairCode)?;
        if code.characters() < self.min_code_length {
            return Err(Denial::PairCode);
        }
        Ok(code)
    }

    /// Browsers send an origin with every WebSocket, and a script cannot choose it; so whoever sends none is no browser,
    /// and no site's script can be behind it.
    fn allows_origin(&self, headers: &HeaderMap) -> bool {
        let is_allowed = |origin: Option<Origin>| origin.is_some_and(|origin| self.allowed_origins.contains(&origin));
        let mut origins = headers.get_all(header::ORIGIN).iter();
        self.allowed_origins.is_empty()
            || origins.all(|origin| is_allowed(origin.to_str().ok().and_then(|origin| origin.parse().ok())))
    }
}
