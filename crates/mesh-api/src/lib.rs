//! What goes over the wire, as types: the JSON bodies of the HTTP API ([`v1`]), the MessagePack
//! frames of the agent link ([`agent`]) and of the client link ([`client_link`]), the one error
//! body ([`problem`]), the typed client ([`http_client`]), and the only parser between wire and domain
//! ([`convert`]).
//!
//! This crate knows no state and decides nothing.

pub mod agent;
pub mod client_link;
pub mod convert;
pub mod http_client;
pub mod package;
pub mod problem;
pub mod sse;
pub mod v1;

/// The version of both links. A peer that speaks another one is refused with a hint to upgrade.
pub const LINK_PROTOCOL: u16 = 1;

/// Most bytes in one link frame. Larger data travels as a blob.
pub const FRAME_MAX: usize = 16 << 20;

/// Most bytes of arguments or of a result that travel inside a frame and are kept beside the
/// journal. More goes into a blob.
pub const INLINE_MAX: usize = 256 << 10;

/// Most bytes of one piece of code: it must fit into a frame, together with the tasks that need it.
pub const CODE_MAX: usize = 8 << 20;

/// Encodes a link frame: MessagePack, structs as maps, enums as one-entry maps.
pub fn encode<T: serde::Serialize>(frame: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec_named(frame)
}

/// Decodes a link frame.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}
