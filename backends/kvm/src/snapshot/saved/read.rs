//! Reading a snapshot's directory.

use std::fs::File;
use std::sync::Arc;

use vmoon_core::backend::SnapshotFigures;
use vmoon_core::saved::manifest::{corrupt, incompatible};
use vmoon_core::saved::{MANIFEST, Progress, Saved};
use vmoon_core::{Bytes, Result};

use super::machine::SavedMachine;
use super::{MEMORY, STATE, cpu_features};
use crate::machine::spare::Spares;
use crate::memory::PAGE_SIZE;
use crate::memory::base::Base;
use crate::memory::image::MemoryImage;
use crate::snapshot::frozen::Frozen;
use crate::vm::host::KvmHost;
use crate::vm::plan::Plan;
use crate::vm::state::MachineState;

/// Checks a snapshot and holds it. The pages are mapped, not copied.
pub(crate) fn read(saved: &Saved, host: &KvmHost, progress: &Progress) -> Result<Frozen> {
    saved.check_architecture()?;
    progress.set_total(saved.data_length()?);
    let path = saved.path(MANIFEST);
    let manifest = saved.manifest();
    let machine: SavedMachine = serde_json::from_value(manifest.machine.clone())
        .map_err(|error| corrupt(&path, "describes no machine of KVM").with_source(error))?;
    let cpuid = machine.cpuid(&path)?;
    let missing = cpu_features::missing(cpuid[0].as_slice(), host.cpuid.as_slice());
    if !missing.is_empty() {
        let names = missing.join(", ");
        return Err(incompatible(
            &path,
            format!("needs CPU features that this host lacks: {names}"),
        )
        .with_detail("missing", missing));
    }
    machine.images.iter().try_for_each(|image| image.check(&path))?;
    let state = read_state(saved, progress)?;
    if state.vcpus.len() != cpuid.len() || state.devices.len() != machine.devices.len() {
        return Err(corrupt(&path, "does not fit the state beside it"));
    }
    // KVM reads as many bytes as it has on this host, whatever the buffer's length.
    let least = host.extended_length;
    if let Some(short) = state.vcpus.iter().find(|vcpu| vcpu.extended_length() < least) {
        let length = short.extended_length();
        return Err(incompatible(
            &saved.path(STATE),
            format!("has {length} bytes of extended CPU state; this host's KVM wants {least}"),
        ));
    }
    let memory = read_memory(saved, progress)?;
    let pages = memory.base().populated_pages();
    Ok(Frozen {
        id: manifest.id,
        plan: Arc::new(Plan {
            memory: memory.base().length(),
            cpuid,
            devices: machine.devices,
            types_virtio: machine.types_virtio,
            spares: Spares::default(),
        }),
        figures: SnapshotFigures {
            dirty_pages: pages,
            bytes: Bytes(pages * PAGE_SIZE as u64),
            paused: manifest.paused,
        },
        memory,
        state,
    })
}

fn read_state(saved: &Saved, progress: &Progress) -> Result<MachineState> {
    let path = saved.path(STATE);
    let bytes = saved.read_part(STATE, progress)?;
    postcard::from_bytes(&bytes)
        .map_err(|error| incompatible(&path, "has another layout").with_source(error))
}

fn read_memory(saved: &Saved, progress: &Progress) -> Result<MemoryImage> {
    let path = saved.path(MEMORY);
    let file: File = saved.verified_part(MEMORY, progress)?;
    let expected = saved.manifest().memory;
    let length = saved.manifest().parts.get(MEMORY).map_or(0, |part| part.length);
    let bytes = usize::try_from(length).ok().filter(|bytes| bytes.is_multiple_of(PAGE_SIZE));
    let (Some(bytes @ 1..), true) = (bytes, length == expected.get()) else {
        return Err(corrupt(&path, format!("has {length} bytes; the machine has {expected}")));
    };
    let base = Base::load(file.into(), bytes, path.clone()).map_err(|error| {
        corrupt(&path, "cannot be mapped").with_source(std::io::Error::from(error))
    })?;
    Ok(MemoryImage::of_base(Arc::new(base)))
}
