//! Writing a snapshot's directory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use vmoon_core::saved::manifest::FORMAT;
use vmoon_core::saved::{Manifest, Progress, Writer};
use vmoon_core::{Bytes, Result};

use super::machine::SavedMachine;
use super::{MEMORY, STATE};
use crate::memory::PAGE_SIZE;
use crate::snapshot::frozen::Frozen;

/// Writes `frozen` to `directory`, in place of a snapshot that is there.
pub(crate) fn write(
    frozen: &Frozen,
    directory: &Path,
    annotations: serde_json::Value,
    progress: Progress,
) -> Result<()> {
    const { assert!(PAGE_SIZE == vmoon_core::saved::blocks::BLOCK) };
    let pages = frozen.memory.base().populated_pages() + frozen.memory.index().len() as u64;
    // At most: pages of zeroes are left out.
    progress.set_total(pages * PAGE_SIZE as u64);
    let mut writer = Writer::begin(directory, progress)?;
    let mut memory = writer.part(MEMORY, frozen.memory.base().length() as u64)?;
    frozen
        .memory
        .for_each_page(|page, contents| memory.block(page as u64, contents))
        .map_err(|error| writer.failed(error))?;
    writer.finish(MEMORY, memory)?;
    // What was read is right if the file that it came from is still what was loaded.
    frozen.memory.base().check()?;
    let state = postcard::to_stdvec(&frozen.state)
        .map_err(|error| writer.failed(io::Error::other(error)))?;
    writer.write(STATE, &state)?;
    let machine = SavedMachine::new(&frozen.plan)
        .and_then(|machine| Ok(serde_json::to_value(machine)?))
        .map_err(|error| writer.failed(error))?;
    writer.commit(Manifest {
        format: FORMAT,
        backend: "kvm".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        id: frozen.id,
        memory: Bytes(frozen.plan.memory as u64),
        paused: frozen.figures.paused,
        machine,
        annotations,
        parts: BTreeMap::new(),
    })
}
