//! A store as text.

use std::fmt::Write;

use mesh_core::model::id::TaskId;
use mesh_store::{Side, Store};

use crate::sample;

/// All that a store with the sample in it answers.
pub(crate) fn dump(store: &dyn Store) -> String {
    let mut text = String::new();
    let visit = &mut |entry| {
        writeln!(text, "{entry:#?}").unwrap();
        true
    };
    store.replay(0, visit).unwrap();
    for (task, side) in [(1, Side::Payload), (1, Side::Result), (2, Side::Payload)] {
        let data = store.data(TaskId(task), side).unwrap();
        writeln!(text, "t{task} {side:?} {:?}", data.map(|bytes| (bytes.len(), sum(&bytes))))
            .unwrap();
    }
    writeln!(text, "{:?}", store.code(&sample::CODE).unwrap()).unwrap();
    writeln!(text, "{:#?}", store.load_snapshot().unwrap()).unwrap();
    text
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}
