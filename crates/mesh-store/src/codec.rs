//! How events and snapshots become bytes: MessagePack with structs as arrays, so that a field that
//! is added at the end with a default does not make old bytes unreadable.

use std::io::{Read, Write};

use mesh_core::event::Event;
use mesh_core::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use crate::{Result, StoreError};

/// Appends one event to `bytes`.
pub(crate) fn encode_event(bytes: &mut Vec<u8>, event: &Event) -> Result<()> {
    rmp_serde::encode::write(bytes, event)
        .map_err(|error| StoreError::Codec { what: "an event".into(), why: error.to_string() })
}

/// Reads `count` events that fill `bytes`, and leaves out the first `skip` of them.
pub(crate) fn decode_events(bytes: &[u8], count: u64, skip: u64) -> Result<Vec<Event>, String> {
    let mut rest = bytes;
    let mut events = Vec::new();
    for index in 0..count {
        let event = decode_event(&mut rest)
            .map_err(|error| format!("event {} of {count}: {error}", index + 1))?;
        if index >= skip {
            events.push(event);
        }
    }
    if rest.is_empty() { Ok(events) } else { Err(format!("{} bytes are left over", rest.len())) }
}

fn decode_event(rest: &mut &[u8]) -> Result<Event, rmp_serde::decode::Error> {
    Event::deserialize(&mut rmp_serde::Deserializer::new(rest))
}

/// Writes a snapshot piece by piece.
pub(crate) fn write_snapshot(
    out: &mut impl Write,
    snapshot: &Snapshot,
) -> Result<(), rmp_serde::encode::Error> {
    snapshot.serialize(&mut rmp_serde::Serializer::new(out))
}

/// Reads a snapshot piece by piece.
pub(crate) fn read_snapshot(from: &mut impl Read) -> Result<Snapshot, rmp_serde::decode::Error> {
    Snapshot::deserialize(&mut rmp_serde::Deserializer::new(from))
}

/// The checksum of bytes together with the numbers that say what they are, so that bytes in the
/// wrong place are found as well as changed ones.
pub(crate) fn checksum(numbers: &[i64], bytes: &[u8]) -> i64 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(bytes);
    i64::from(hasher.finalize())
}
