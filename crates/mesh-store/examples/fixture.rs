//! Writes the files of `tests/formats/`: a store with one of everything in it, and what it should
//! answer. Run it once for each format, when that is released.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "shares its modules with the tests, and may stop like one"
)]

#[path = "../tests/it/dump.rs"]
mod dump;
#[path = "../tests/it/sample.rs"]
mod sample;

use std::path::PathBuf;

use mesh_store::{SqliteStore, Store};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir: PathBuf = std::env::args_os().nth(1).ok_or("name a directory")?.into();
    let mut store = SqliteStore::open(&dir)?;
    for batch in sample::batches() {
        store.append(&batch)?;
    }
    store.save_snapshot(sample::LAST - 14, &sample::snapshot(), 0)?;
    std::fs::write(dir.join("expected.txt"), dump::dump(&store))?;
    drop(store);
    std::fs::remove_file(dir.join("mesh.lock"))?;
    Ok(())
}
