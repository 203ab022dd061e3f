//! What this backend keeps of a snapshot on disk, in the directory that
//! [`vmoon_core::saved`] writes and checks.
//!
//! | part | holds |
//! | --- | --- |
//! | `memory` | every page that is not zero, at its own offset |
//! | `qemu` | processors and devices, as QEMU saved them |
//! | `state` | what vmoon holds: vsock connections, overlay disks, the balloon's target |

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmoon_core::backend::SnapshotFigures;
use vmoon_core::saved::images::DiskImage;
use vmoon_core::saved::manifest::{FORMAT, corrupt, incompatible};
use vmoon_core::saved::{MANIFEST, Manifest, Progress, Saved, Writer};
use vmoon_core::{Bytes, Result};

use super::frozen::{Frozen, OwnState};
use crate::memory::{MemoryImage, PAGE};
use crate::plan::Plan;
use crate::process::program::Program;
use crate::state::Container;

const MEMORY: &str = "memory";
const QEMU: &str = "qemu";
const STATE: &str = "state";

/// The machine in a manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedMachine {
    /// The version of QEMU: another may not understand what it saved.
    qemu: String,
    plan: Plan,
    /// The images of disks as they were.
    images: Vec<DiskImage>,
}

/// Writes `frozen` to `directory`, in place of a snapshot that is there.
pub(crate) fn write(
    frozen: &Frozen,
    directory: &Path,
    annotations: serde_json::Value,
    progress: Progress,
) -> Result<()> {
    const { assert!(PAGE == vmoon_core::saved::blocks::BLOCK) };
    progress.set_total(frozen.memory.pages() * PAGE as u64);
    let mut writer = Writer::begin(directory, progress)?;
    let mut memory = writer.part(MEMORY, frozen.plan.memory)?;
    frozen
        .memory
        .for_each(|page, contents| memory.block(page, contents))
        .map_err(|error| writer.failed(error))?;
    writer.finish(MEMORY, memory)?;
    let container = frozen.container.bytes().map_err(|error| writer.failed(error))?;
    writer.write(QEMU, &container)?;
    let state = postcard::to_stdvec(&frozen.state)
        .map_err(|error| writer.failed(io::Error::other(error)))?;
    writer.write(STATE, &state)?;
    let machine = machine(frozen).map_err(|error| writer.failed(error))?;
    writer.commit(Manifest {
        format: FORMAT,
        backend: "qemu".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        id: frozen.id,
        memory: Bytes(frozen.plan.memory),
        paused: frozen.figures.paused,
        machine,
        annotations,
        parts: BTreeMap::new(),
    })
}

fn machine(frozen: &Frozen) -> io::Result<serde_json::Value> {
    let mut plan = Plan::clone(&frozen.plan);
    for disk in &mut plan.disks {
        disk.path = std::path::absolute(&disk.path)?;
    }
    let images = plan.disks.iter().filter_map(DiskImage::of).collect::<io::Result<_>>()?;
    Ok(serde_json::to_value(SavedMachine { qemu: frozen.version.clone(), plan, images })?)
}

/// Checks a snapshot and holds it.
pub(crate) fn read(saved: &Saved, program: &Program, progress: &Progress) -> Result<Frozen> {
    saved.check_architecture()?;
    progress.set_total(saved.data_length()?);
    let path = saved.path(MANIFEST);
    let manifest = saved.manifest();
    let machine: SavedMachine = serde_json::from_value(manifest.machine.clone())
        .map_err(|error| corrupt(&path, "describes no machine of QEMU").with_source(error))?;
    if machine.qemu != program.version {
        let (saved, here) = (&machine.qemu, &program.version);
        return Err(incompatible(&path, format!("needs QEMU {saved}; here is QEMU {here}"))
            .with_hint("load it with the QEMU that it was saved with"));
    }
    machine.images.iter().try_for_each(|image| image.check(&path))?;
    let state: OwnState =
        postcard::from_bytes(&saved.read_part(STATE, progress)?).map_err(|error| {
            incompatible(&saved.path(STATE), "has another layout").with_source(error)
        })?;
    if state.disks.len() != machine.plan.disks.len() {
        return Err(corrupt(&path, "does not fit the state beside it"));
    }
    let container = Container::of_bytes(&saved.read_part(QEMU, progress)?)
        .map_err(|error| corrupt(&saved.path(QEMU), "cannot be held").with_source(error))?;
    let memory = read_memory(saved, machine.plan.memory, progress)?;
    let pages = memory.pages();
    Ok(Frozen {
        id: manifest.id,
        plan: Arc::new(machine.plan),
        version: machine.qemu,
        container,
        state,
        figures: SnapshotFigures {
            dirty_pages: pages,
            bytes: Bytes(pages * PAGE as u64),
            paused: manifest.paused,
        },
        memory,
    })
}

fn read_memory(saved: &Saved, expected: u64, progress: &Progress) -> Result<MemoryImage> {
    let path = saved.path(MEMORY);
    let file: File = saved.verified_part(MEMORY, progress)?;
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    if length != expected || !length.is_multiple_of(PAGE as u64) || length == 0 {
        let expected = Bytes(expected);
        return Err(corrupt(&path, format!("has {length} bytes; the machine has {expected}")));
    }
    MemoryImage::read(&file, length)
        .map_err(|error| corrupt(&path, "cannot be read").with_source(error))
}
