//! Why a direction of a link ends, and what the side that stays is told.

/// The reason why nothing more comes from the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseCause {
    /// The client closed, or its stream ended between two messages.
    Left,
    /// The client was reset, broke the protocol, ended within a message, or vanished otherwise.
    #[default]
    Lost,
    /// No second client came: the pair code's time to live is over.
    Expired,
    /// The relay stops.
    Stopping,
    /// The client is to come again, because its peer may be sent to another relay.
    Recalled,
    /// The client waited, and has come again: a newcomer with its side identity has its place.
    Replaced,
}

impl CloseCause {
    /// The status code for the side that stays (RFC 6455, section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::Lost => 1011,
            Self::Expired | Self::Stopping => 1001,
            Self::Recalled => 1012,
            Self::Replaced => 4001,
        }
    }

    /// The reason beside the status code. Stable: clients may compare it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Left => "peer disconnected",
            Self::Lost => "peer connection lost",
            Self::Expired => "pair expired",
            Self::Stopping => "relay stopping",
            Self::Recalled => "service restart",
            Self::Replaced => "replaced",
        }
    }
}
