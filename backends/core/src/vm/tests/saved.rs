use std::path::Path;
use std::sync::Arc;

use crate::error::Code;
use crate::lifecycle::State;
use crate::saved::{MANIFEST, Saved};
use crate::vm::fake::{Behaviour, FakeBackend, booted, host, host_of, output};
use crate::vm::{RestoreOptions, Vm};

async fn restore_fails(vm: &Vm, snapshot: &Arc<crate::vm::Snapshot>) -> Code {
    let failed = vm.restore(&snapshot.clone().into(), RestoreOptions::default()).await;
    failed.unwrap_err().code()
}

#[tokio::test]
async fn a_snapshot_is_loaded_by_another_host_and_forked() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("one/clean");
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    output(&vm, "echo once").await;
    let root = vm.snapshot(None).await.unwrap();
    let clean = vm.snapshot(Some("clean".to_owned())).await.unwrap();
    clean.save(&directory).await.unwrap();

    let (other, _backend) = host(Behaviour::default());
    let loaded = other.load(&directory, false).await.unwrap();
    assert_eq!((loaded.id(), loaded.name(), loaded.vm_id()), (clean.id(), "clean", vm.id()));
    assert_eq!((loaded.parent(), loaded.memory()), (Some(root.id()), clean.memory()));
    let apart = clean.created().duration_since(loaded.created()).unwrap();
    assert!(apart.as_micros() == 0, "{apart:?}");
    let forks = loaded.fork(2, RestoreOptions::default()).await.unwrap();
    for fork in &forks {
        assert_eq!(fork.state(), State::Running);
        // The connection that was idle lives on, and the guest heard of its life.
        assert_eq!(fork.agent.as_ref().unwrap().idle_connections(), 1);
        assert_eq!(output(fork, "echo again").await, "again\n");
        fork.restore(&loaded.clone().into(), RestoreOptions::default()).await.unwrap();
        assert_eq!(output(fork, "echo again").await, "again\n");
    }
    loaded.save(&folder.path().join("two")).await.unwrap();
    loaded.delete().await.unwrap();
    assert_eq!(loaded.delete().await.unwrap_err().code(), Code::SnapshotNotFound);
    assert_eq!(
        loaded.fork(1, RestoreOptions::default()).await.unwrap_err().code(),
        Code::SnapshotNotFound
    );
    assert_eq!(loaded.save(&directory).await.unwrap_err().code(), Code::SnapshotNotFound);
    assert_eq!(restore_fails(&forks[0], &loaded).await, Code::SnapshotNotFound);
    let again = other.load(&folder.path().join("two"), false).await.unwrap();
    assert_eq!(again.id(), clean.id());
}

#[tokio::test]
async fn a_loaded_snapshot_is_the_machines_own_or_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let (host, vm, _machine) = booted(Behaviour::default()).await;
    let clean = vm.snapshot(None).await.unwrap();
    clean.save(&folder.path().join("clean")).await.unwrap();
    let loaded = host.load(&folder.path().join("clean"), false).await.unwrap();
    vm.restore(&loaded.clone().into(), RestoreOptions::default()).await.unwrap();
    assert_eq!(output(&vm, "echo x").await, "x\n");
    let other = host.boot(None, crate::vm::fake::spec()).await.unwrap();
    assert_eq!(restore_fails(&other, &loaded).await, Code::SnapshotForeign);
    clean.delete().await.unwrap();
    assert_eq!(restore_fails(&vm, &loaded).await, Code::SnapshotForeign);
}

#[tokio::test(start_paused = true)]
async fn a_loaded_guest_that_does_not_confirm_its_life_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let deaf = Behaviour { confirms_life: false, ..Behaviour::default() };
    let (host, vm, _machine) = booted(deaf).await;
    vm.snapshot(None).await.unwrap().save(&folder.path().join("x")).await.unwrap();
    let loaded = host.load(&folder.path().join("x"), false).await.unwrap();
    assert_eq!(
        loaded.fork(1, RestoreOptions::default()).await.unwrap_err().code(),
        Code::SnapshotEntropy
    );
}

/// Writes a manifest with changes, and a hash that fits.
fn edit(directory: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = directory.join(MANIFEST);
    let mut file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut file["manifest"]);
    let hash = blake3::hash(file["manifest"].to_string().as_bytes()).to_hex();
    file["hash"] = hash.to_string().into();
    std::fs::write(&path, file.to_string()).unwrap();
}

#[tokio::test]
async fn what_this_program_cannot_use_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (host, vm, _machine) = booted(Behaviour::default()).await;
    let clean = vm.snapshot(None).await.unwrap();
    let directory = folder.path().join("x");
    let refused = async |change: fn(&mut serde_json::Value)| {
        clean.save(&directory).await.unwrap();
        edit(&directory, change);
        let error = host.load(&directory, false).await.unwrap_err();
        (error.code(), error.message().to_owned())
    };
    for (change, code, word) in [
        (
            (|manifest| manifest["format"] = 7.into()) as fn(&mut serde_json::Value),
            Code::SnapshotIncompatible,
            "format 7",
        ),
        (|manifest| manifest["backend"] = "other".into(), Code::SnapshotIncompatible, "\"other\""),
        (
            |manifest| manifest["annotations"]["version"] = 9.into(),
            Code::SnapshotIncompatible,
            "version 9",
        ),
        (
            |manifest| manifest["annotations"]["agent"]["ready"][0] = 4711.into(),
            Code::SnapshotIncompatible,
            "4711",
        ),
        (
            |manifest| manifest["annotations"]["name"] = 3.into(),
            Code::SnapshotCorrupt,
            "describes no machine",
        ),
        (|manifest| manifest["more"] = 1.into(), Code::SnapshotCorrupt, "lacks"),
        (
            |manifest| manifest["parts"]["memory"]["length"] = 1.into(),
            Code::SnapshotCorrupt,
            "memory has 10000 bytes instead of 1",
        ),
        (
            |manifest| manifest["parts"]["more"] = manifest["parts"]["memory"].clone(),
            Code::SnapshotCorrupt,
            "more cannot be read",
        ),
    ] {
        let (found, message) = refused(change).await;
        assert!(found == code && message.contains(word), "{word}: {found} {message}");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_work_here_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    vm.snapshot(None).await.unwrap().save(&folder.path().join("x")).await.unwrap();
    let mut absent = FakeBackend::new("fake", Behaviour::default());
    absent.absent = Some("no hardware");
    let host = host_of(vec![Arc::new(absent)]);
    let error = host.load(&folder.path().join("x"), false).await.unwrap_err();
    assert_eq!(error.code(), Code::BackendUnavailable);
    // The directory can be checked all the same.
    let saved = Saved::open(&folder.path().join("x")).unwrap();
    saved.verify(&crate::saved::Progress::new(crate::saved::Work::Verifying, None)).unwrap();
}

#[tokio::test]
async fn only_snapshots_and_nothing_are_replaced_or_removed() {
    use crate::saved::folder;
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    let clean = vm.snapshot(None).await.unwrap();
    std::fs::create_dir(at("empty")).unwrap();
    clean.save(&at("empty")).await.unwrap();
    std::fs::create_dir(at("mine")).unwrap();
    std::fs::write(at("mine/manifest.json"), "{}").unwrap();
    assert_eq!(clean.save(&at("mine")).await.unwrap_err().code(), Code::FileIo);
    assert_eq!(folder::remove(&at("mine")).unwrap_err().code(), Code::FileIo);
    std::fs::write(at("file"), "").unwrap();
    clean.save(&at("file")).await.unwrap_err();
    // Through a link, which stays.
    std::os::unix::fs::symlink(at("empty"), at("link")).unwrap();
    clean.save(&at("link")).await.unwrap();
    assert!(at("link").is_symlink() && Saved::open(&at("empty")).is_ok());
    // What a killed writer left is removed by the next one.
    std::fs::create_dir(at(".vmoon-saving-left")).unwrap();
    clean.save(&at("deep/er")).await.unwrap();
    assert!(at(".vmoon-saving-left").exists());
    clean.save(&at("again")).await.unwrap();
    assert!(!at(".vmoon-saving-left").exists());
    let found = folder::find(place.path()).unwrap();
    assert_eq!(found, [at("again"), at("deep/er"), at("empty")]);
    std::fs::write(at("again/notes"), "").unwrap();
    assert!(folder::remove(&at("again")).unwrap_err().message().contains("notes"));
    std::fs::write(at("empty/memory"), "").unwrap();
    folder::remove(&at("empty")).unwrap();
    assert_eq!(folder::remove(&at("empty")).unwrap_err().code(), Code::SnapshotNotFound);
    assert!(!at("empty").exists());
}
