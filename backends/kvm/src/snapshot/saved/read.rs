//! Reading a snapshot's directory.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use kvm_bindings::CpuId;
use vmoon_core::backend::SnapshotFigures;
use vmoon_core::{Bytes, Code, Error, Result};

use super::manifest::{Manifest, Part, corrupt, incompatible};
use super::write::MemoryHasher;
use super::{MANIFEST, MEMORY, STATE, cpu_features};
use crate::machine::spare::Spares;
use crate::memory::PAGE_SIZE;
use crate::memory::base::Base;
use crate::memory::image::MemoryImage;
use crate::snapshot::frozen::Frozen;
use crate::vm::host::KvmHost;
use crate::vm::plan::Plan;
use crate::vm::state::MachineState;

/// A snapshot as it was read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) frozen: Arc<Frozen>,
    pub(crate) annotations: serde_json::Value,
}

/// Reads and checks a directory. The pages are mapped, not copied.
pub(crate) fn read(directory: &Path, host: &KvmHost) -> Result<Loaded> {
    let path = directory.join(MANIFEST);
    let json = fs::read(&path).map_err(|error| unreadable(directory, &path, error))?;
    let manifest = Manifest::from_json(&path, &json)?;
    check_host(&path, &manifest, host)?;
    let state = read_state(&directory.join(STATE), &manifest)?;
    let memory = read_memory(&directory.join(MEMORY), &manifest)?;
    let cpuid = manifest
        .cpuid
        .iter()
        .map(|entries| CpuId::from_entries(entries))
        .collect::<Result<_, _>>()
        .map_err(|_| corrupt(&path, "describes impossible CPUs"))?;
    if state.vcpus.len() != manifest.cpuid.len() || state.devices.len() != manifest.devices.len() {
        return Err(corrupt(&path, "does not fit the state beside it"));
    }
    let pages = memory.base().populated_pages();
    let frozen = Frozen {
        id: manifest.id,
        plan: Arc::new(Plan {
            memory: memory.base().length(),
            cpuid,
            devices: manifest.devices,
            types_virtio: manifest.types_virtio,
            spares: Spares::default(),
        }),
        figures: SnapshotFigures {
            dirty_pages: pages,
            bytes: Bytes(pages * PAGE_SIZE as u64),
            paused: manifest.paused,
        },
        memory,
        state,
    };
    Ok(Loaded { frozen: Arc::new(frozen), annotations: manifest.annotations })
}

fn unreadable(directory: &Path, path: &Path, error: io::Error) -> Error {
    let (code, message) = match error.kind() {
        io::ErrorKind::NotFound if directory.is_dir() => {
            (Code::SnapshotCorrupt, format!("{} holds no snapshot", directory.display()))
        }
        io::ErrorKind::NotFound => {
            (Code::SnapshotNotFound, format!("there is no snapshot at {}", directory.display()))
        }
        io::ErrorKind::PermissionDenied => {
            (Code::FilePermission, format!("{} may not be read", path.display()))
        }
        _ => (Code::FileIo, format!("{} cannot be read", path.display())),
    };
    Error::new(code, message).with_source(error).with_detail("path", path.display().to_string())
}

fn check_host(path: &Path, manifest: &Manifest, host: &KvmHost) -> Result<()> {
    if manifest.backend != "kvm" {
        return Err(incompatible(path, format!("is of backend {}", manifest.backend)));
    }
    if manifest.architecture != std::env::consts::ARCH {
        let arch = std::env::consts::ARCH;
        let saved = &manifest.architecture;
        return Err(incompatible(path, format!("is of a {saved} machine; this host is {arch}")));
    }
    let saved = manifest.cpuid.first().map(Vec::as_slice).unwrap_or_default();
    let missing = cpu_features::missing(saved, host.cpuid.as_slice());
    if !missing.is_empty() {
        return Err(incompatible(
            path,
            format!("needs CPU features that this host lacks: {}", missing.join(", ")),
        )
        .with_detail("missing", missing));
    }
    Ok(())
}

fn read_state(path: &Path, manifest: &Manifest) -> Result<MachineState> {
    let bytes =
        fs::read(path).map_err(|error| corrupt(path, "cannot be read").with_source(error))?;
    let hash = blake3::hash(&bytes).to_hex().to_string();
    check_part(path, &manifest.state_part, bytes.len() as u64, &hash)?;
    postcard::from_bytes(&bytes)
        .map_err(|error| incompatible(path, "has another layout").with_source(error))
}

fn read_memory(path: &Path, manifest: &Manifest) -> Result<MemoryImage> {
    let unreadable = |error: io::Error| corrupt(path, "cannot be read").with_source(error);
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let expected = manifest.memory_part.length;
    let pages = usize::try_from(length).ok().filter(|length| length.is_multiple_of(PAGE_SIZE));
    let (Some(bytes), true) = (pages, length == expected && length == manifest.memory.get()) else {
        return Err(corrupt(path, &format!("has {length} bytes instead of {expected}")));
    };
    let base = Base::freeze(file.into(), bytes).map_err(|error| unreadable(error.into()))?;
    let memory = MemoryImage::of_base(Arc::new(base));
    let mut hasher = MemoryHasher::default();
    let hashed = memory.for_each_page(|page, contents| {
        hasher.add(page, contents);
        Ok(())
    });
    hashed.map_err(unreadable)?;
    check_part(path, &manifest.memory_part, length, &hasher.finish())?;
    Ok(memory)
}

fn check_part(path: &Path, part: &Part, length: u64, hash: &str) -> Result<()> {
    if part.length != length {
        let expected = part.length;
        return Err(corrupt(path, &format!("has {length} bytes instead of {expected}")));
    }
    if part.hash != hash {
        return Err(corrupt(path, "does not match its hash"));
    }
    Ok(())
}
