//! Damage to a small saved machine, byte by byte.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmoon_core::guest::GuestImages;
use vmoon_core::saved::{MANIFEST, Progress, Saved, Work};
use vmoon_core::spec::MachineSpec;
use vmoon_core::{Bytes, Code, Host, Result};

use super::{MEMORY, STATE, read};
use crate::KvmBackend;
use crate::snapshot::frozen::Frozen;
use crate::vm::host::KvmHost;

/// A bit of each byte, another one each time.
fn flipped(index: usize, byte: u8) -> u8 {
    byte ^ 1 << (index % 8)
}

fn load(directory: &Path) -> Result<Frozen> {
    let progress = Progress::new(Work::Loading, None);
    read(&Saved::open(directory)?, KvmHost::get()?, &progress)
}

/// Saves the smallest machine; none where there is no KVM.
fn saved() -> Option<(tempfile::TempDir, PathBuf)> {
    if let Err(error) = KvmHost::get() {
        assert!(std::env::var_os("CI").is_none(), "CI skips nothing: {error}");
        eprintln!("skipped: damaged snapshots: {error}");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("snapshot");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let images = GuestImages { micro: vmoon_micro::IMAGE, agent: b"" };
        let host = Host::new(vec![Arc::new(KvmBackend::new())], images);
        let spec = MachineSpec { memory: Bytes::mib(16), balloon: false, ..MachineSpec::default() };
        let vm = host.boot(None, spec).await.unwrap();
        let snapshot = vm.snapshot(Some("small".to_owned())).await.unwrap();
        snapshot.save(&directory).await.unwrap();
        vm.close();
    });
    load(&directory).unwrap();
    Some((folder, directory))
}

#[track_caller]
fn expect_refused(directory: &Path, part: &str, what: &str) {
    let error = load(directory).expect_err(what);
    let refused = [Code::SnapshotCorrupt, Code::SnapshotIncompatible].contains(&error.code());
    assert!(refused && error.message().contains(part), "{what}: {error}");
}

#[test]
fn flipped_and_cut_parts_are_refused_or_harmless() {
    let Some((_folder, directory)) = saved() else { return };
    flip_manifest(&directory);
    flip_everywhere(&directory, STATE, 1);
    // All the machine's data is hashed for each flip, so all flips would take minutes.
    flip_everywhere(&directory, MEMORY, 1499);
    for part in [MANIFEST, STATE, MEMORY] {
        cut(&directory.join(part), &directory, part);
    }
    load(&directory).unwrap();
}

/// White space may change; nothing else.
fn flip_manifest(directory: &Path) {
    let path = directory.join(MANIFEST);
    let good = fs::read(&path).unwrap();
    let whole = serde_json::to_value(Saved::open(directory).unwrap().manifest()).unwrap();
    for (index, byte) in good.iter().enumerate() {
        let mut bad = good.clone();
        bad[index] = flipped(index, *byte);
        fs::write(&path, bad).unwrap();
        match Saved::open(directory) {
            Ok(saved) => {
                assert_eq!(serde_json::to_value(saved.manifest()).unwrap(), whole, "byte {index}");
            }
            Err(_) => expect_refused(directory, MANIFEST, &format!("byte {index}")),
        }
    }
    fs::write(&path, good).unwrap();
}

/// Flips each `stride`th byte of what the file holds, and a byte of each hole.
fn flip_everywhere(directory: &Path, part: &str, stride: usize) {
    let path = directory.join(part);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let mut flips = 0;
    for (page, contents) in bytes.chunks(4096).enumerate() {
        let hole = contents.iter().all(|byte| *byte == 0);
        // A flip fills a hole for good: one in a hundred is enough.
        if hole && page % 100 != 0 {
            continue;
        }
        let stride = if hole { 4096 } else { stride };
        for index in (page % stride..contents.len()).step_by(stride) {
            let at = page * 4096 + index;
            file.write_all_at(&[flipped(at, contents[index])], at as u64).unwrap();
            expect_refused(directory, part, &format!("byte {at} of {part}"));
            file.write_all_at(&[contents[index]], at as u64).unwrap();
            flips += 1;
        }
    }
    assert!(flips > 100, "{flips} bytes of {part} were flipped");
}

fn cut(path: &Path, directory: &Path, part: &str) {
    let good = fs::read(path).unwrap();
    for length in [0, 1, good.len() / 2, good.len() - 2, good.len() + 1] {
        File::options().write(true).open(path).unwrap().set_len(length as u64).unwrap();
        expect_refused(directory, part, &format!("{part} of {length} bytes"));
        fs::write(path, &good).unwrap();
    }
    fs::remove_file(path).unwrap();
    expect_refused(directory, part, &format!("no {part}"));
    fs::create_dir(path).unwrap();
    load(directory).expect_err("a directory is no part");
    fs::remove_dir(path).unwrap();
    fs::write(path, good).unwrap();
}
