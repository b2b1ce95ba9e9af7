//! A request to join: what the target says of the seat that a client wants.

use crate::pairing::pair_code::PairCode;
use crate::pairing::side_id::SideId;
use crate::telemetry::rejection::Rejection;

/// The seat that a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) code: PairCode,
    /// The identity of the client, if it has one.
    pub(crate) side: Option<SideId>,
    /// Whether it speaks `arc-relay.v1`.
    pub(crate) speaks_v1: bool,
}

impl Join {
    /// Reads the request from a target such as `/?pair=CODE&side=SIDE`.
    pub(crate) fn from_target(target: &str) -> Result<Self, Rejection> {
        let code = PairCode::from_target(target).map_err(|_| Rejection::PairCode)?;
        let side = SideId::from_target(target).map_err(|_| Rejection::Side)?;
        Ok(Self { code, side, speaks_v1: false })
    }
}
