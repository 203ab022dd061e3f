//! Saved states in a directory of the user's, which needs no other: memory and devices, disks,
//! kernel and initramfs, with the identifier and the network address in the manifest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmoon_core::backend::SnapshotFigures;
use vmoon_core::saved::blocks::BLOCK;
use vmoon_core::saved::manifest::{FORMAT, corrupt, incompatible};
use vmoon_core::saved::{MANIFEST, Manifest, Progress, Saved, Writer};
use vmoon_core::{Bytes, Result};

use super::image::Frozen;
use crate::folder::{Folder, INITRD, KERNEL, STATE, clone_file, disk_name};
use crate::host::HostFacts;
use crate::plan::Plan;

/// The version of [`SavedMachine`] that this program writes, and the only one that it reads.
const VERSION: u32 = 1;

/// What the manifest says of the machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedMachine {
    version: u32,
    /// The framework's own form of the machine's identifier.
    identifier: Vec<u8>,
    plan: Plan,
    dirty_pages: u64,
    /// The macOS that saved it. The framework does not say which others can read it.
    macos: (u32, u32),
}

/// The names of the files of a snapshot.
fn parts(plan: &Plan) -> Vec<String> {
    let disks = (0..plan.disks.len()).filter(|index| plan.disks[*index].cloned).map(disk_name);
    let initrd = plan.initrd.then(|| INITRD.to_owned());
    [STATE.to_owned(), KERNEL.to_owned()].into_iter().chain(initrd).chain(disks).collect()
}

/// Writes a snapshot to a directory, atomically.
pub(super) fn write(
    frozen: &Frozen,
    directory: &Path,
    annotations: serde_json::Value,
    progress: Progress,
) -> Result<()> {
    let mut writer = Writer::begin(directory, progress)?;
    for name in parts(&frozen.plan) {
        let boots = name == KERNEL || name == INITRD;
        let source = if boots { frozen.boot.path(&name) } else { frozen.kept.file(&name) };
        copy(&mut writer, &name, &source)?;
    }
    let machine = SavedMachine {
        version: VERSION,
        identifier: frozen.identifier.clone(),
        plan: (*frozen.plan).clone(),
        dirty_pages: frozen.figures.dirty_pages,
        macos: frozen.macos,
    };
    let machine = serde_json::to_value(machine).map_err(|error| writer.failed(error.into()))?;
    writer.commit(Manifest {
        format: FORMAT,
        backend: "vz".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        id: frozen.id,
        memory: frozen.plan.memory,
        paused: frozen.figures.paused,
        machine,
        annotations,
        parts: std::collections::BTreeMap::new(),
    })
}

/// Copies a file into a part; blocks of zeroes become holes.
fn copy(writer: &mut Writer, name: &str, source: &Path) -> Result<()> {
    let failed = |error: io::Error| writer.failed(error);
    let mut file = File::open(source).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut part = writer.part(name, length)?;
    let mut buffer = vec![0; 256 * BLOCK];
    let mut index = 0;
    loop {
        let count = fill(&mut file, &mut buffer).map_err(failed)?;
        for block in buffer[..count].chunks(BLOCK) {
            part.block(index, block).map_err(failed)?;
            index += 1;
        }
        if count < buffer.len() {
            return writer.finish(name, part);
        }
    }
}

/// Reads until the buffer is full or the file has ended.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads a snapshot from a directory: each part is checked, then cloned, so that the directory may
/// be removed.
pub(crate) fn read(saved: &Saved, host: &HostFacts, progress: &Progress) -> Result<Frozen> {
    saved.check_architecture()?;
    let path = saved.path(MANIFEST);
    let manifest = saved.manifest();
    if manifest.machine["version"].as_u64() != Some(VERSION.into()) {
        let found = &manifest.machine["version"];
        return Err(incompatible(
            &path,
            format!("has version {found}; this vmoon reads {VERSION}"),
        )
        .with_hint("load it with the vmoon that saved it"));
    }
    let machine: SavedMachine = serde_json::from_value(manifest.machine.clone())
        .map_err(|error| corrupt(&path, "describes no machine").with_source(error))?;
    if host.macos < machine.macos {
        let ((major, minor), here) = (machine.macos, host.macos);
        return Err(incompatible(
            &path,
            format!("was saved by macOS {major}.{minor}; this is {}.{}", here.0, here.1),
        ));
    }
    let names = parts(&machine.plan);
    progress.set_total(saved.data_length()?);
    let folder = Folder::new()?;
    let draft = folder.draft(manifest.id)?;
    for name in names {
        drop(saved.verified_part(&name, progress)?);
        let boots = name == KERNEL || name == INITRD;
        let target = if boots { folder.path(&name) } else { draft.file(&name) };
        clone_file(&saved.path(&name), &target)?;
    }
    let kept = draft.finish()?;
    let bytes = Bytes(kept.size_on_disk());
    Ok(Frozen {
        id: manifest.id,
        figures: SnapshotFigures {
            dirty_pages: machine.dirty_pages,
            bytes,
            paused: manifest.paused,
        },
        identifier: machine.identifier,
        boot: folder,
        kept,
        plan: Arc::new(machine.plan),
        macos: machine.macos,
    })
}
