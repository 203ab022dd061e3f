//! Writing a snapshot's directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use vmoon_core::{Bytes, Code, Error, Result};

use super::manifest::{FORMAT, Manifest, Part};
use super::{MANIFEST, MEMORY, STATE};
use crate::memory::PAGE_SIZE;
use crate::memory::image::MemoryImage;
use crate::snapshot::frozen::Frozen;

/// Writes `frozen` to `directory`, in place of a snapshot that is there.
pub(crate) fn write(
    frozen: &Frozen,
    directory: &Path,
    annotations: serde_json::Value,
) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(Code::FileIo, format!("cannot save a snapshot to {}", directory.display()))
            .with_source(error)
            .with_detail("path", directory.display().to_string())
    };
    if directory.exists() && !directory.join(MANIFEST).exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into())
            .with_hint("give a directory that does not exist, or one with a snapshot to replace"));
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed)?;
    // Beside its target: a rename must not cross file systems. Removed if anything fails.
    let temporary =
        tempfile::Builder::new().prefix(".vmoon-saving-").tempdir_in(parent).map_err(failed)?;
    write_parts(frozen, temporary.path(), annotations).map_err(failed)?;
    put_in_place(temporary.path(), directory).map_err(failed)?;
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
    // What `temporary` names now is the replaced snapshot, or nothing.
}

fn write_parts(
    frozen: &Frozen,
    directory: &Path,
    annotations: serde_json::Value,
) -> io::Result<()> {
    let memory_part = write_memory(&frozen.memory, &directory.join(MEMORY))?;
    let state = postcard::to_stdvec(&frozen.state).map_err(io::Error::other)?;
    write_synced(&directory.join(STATE), &state)?;
    let manifest = Manifest {
        format: FORMAT,
        backend: "kvm".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        id: frozen.id,
        memory: Bytes(frozen.plan.memory as u64),
        paused: frozen.figures.paused,
        devices: frozen.plan.devices.clone(),
        types_virtio: frozen.plan.types_virtio,
        cpuid: frozen.plan.cpuid.iter().map(|cpuid| cpuid.as_slice().to_vec()).collect(),
        annotations,
        memory_part,
        state_part: Part {
            length: state.len() as u64,
            hash: blake3::hash(&state).to_hex().to_string(),
        },
    };
    write_synced(&directory.join(MANIFEST), &manifest.to_json()?)?;
    File::open(directory)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Writes each page that is not zero at its own offset.
fn write_memory(memory: &MemoryImage, path: &Path) -> io::Result<Part> {
    let file = File::create_new(path)?;
    let length = memory.base().length() as u64;
    file.set_len(length)?;
    let mut run = Run { file: &file, first: 0, bytes: Vec::with_capacity(Run::LIMIT) };
    let mut hasher = MemoryHasher::default();
    memory.for_each_page(|page, contents| {
        hasher.add(page, contents);
        run.add(page, contents)
    })?;
    run.flush()?;
    file.sync_all()?;
    Ok(Part { length, hash: hasher.finish() })
}

/// Neighbouring pages that are written at once.
struct Run<'a> {
    file: &'a File,
    first: usize,
    bytes: Vec<u8>,
}

impl Run<'_> {
    const LIMIT: usize = 1 << 20;

    fn add(&mut self, page: usize, contents: &[u8; PAGE_SIZE]) -> io::Result<()> {
        let next = self.first + self.bytes.len() / PAGE_SIZE;
        if page != next || self.bytes.len() >= Self::LIMIT {
            self.flush()?;
            self.first = page;
        }
        self.bytes.extend_from_slice(contents);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.bytes, (self.first * PAGE_SIZE) as u64)?;
        self.bytes.clear();
        Ok(())
    }
}

/// The hash of a memory: of the number and contents of each page that is not zero, in order. So
/// it does not depend on how a file system keeps holes.
#[derive(Default)]
pub(super) struct MemoryHasher(blake3::Hasher);

impl MemoryHasher {
    pub(super) fn add(&mut self, page: usize, contents: &[u8; PAGE_SIZE]) {
        self.0.update(&(page as u64).to_le_bytes());
        self.0.update(contents);
    }

    pub(super) fn finish(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// Renames `new` to `target`; a directory that is there takes `new`'s name instead.
fn put_in_place(new: &Path, target: &Path) -> io::Result<()> {
    let flags = if target.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    Ok(renameat_with(CWD, new, CWD, target, flags)?)
}
