//! Machines on a framework that pretends.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use vmoon_core::backend::{Backend, RestoreOptions};
use vmoon_core::saved::{Progress, Saved, Work};
use vmoon_core::spec::{Disk, DiskMode, MachineSpec};
use vmoon_core::{Bytes, Code, Error, Machine, Result, SnapshotId, State, VsockPort};

use crate::VzBackend;
use crate::framework::{Answer, Created, Ended, Engine, Framework, RawConnection, Sockets, Wiring};
use crate::host::HostFacts;
use crate::host::tests::modern;
use crate::plan::tests::{boot, identity, linux};
use crate::plan::{Files, Plan};

/// What was done to the machines of a framework, and how they behave.
#[derive(Debug, Default)]
struct World {
    log: Vec<String>,
    identifiers: Vec<Option<Vec<u8>>>,
    disks: Vec<std::path::PathBuf>,
    unsaveable: Option<String>,
    fails: Option<&'static str>,
    wiring: Vec<Arc<Wiring>>,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn note(&self, what: impl Into<String>) -> Result<()> {
        let (what, mut world) = (what.into(), self.0.lock().unwrap());
        let fails = world.fails.is_some_and(|fails| what.starts_with(fails));
        world.log.push(what);
        if fails { Err(Error::new(Code::FileIo, "the framework fails")) } else { Ok(()) }
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }

    fn wiring(&self) -> Arc<Wiring> {
        self.0.lock().unwrap().wiring.last().unwrap().clone()
    }
}

impl Framework for Fake {
    fn facts(&self) -> HostFacts {
        modern()
    }

    fn create(
        &self,
        _: &Plan,
        files: &Files,
        identifier: Option<&[u8]>,
        wiring: Wiring,
    ) -> Result<Created> {
        self.note("create")?;
        let mut world = self.0.lock().unwrap();
        world.identifiers.push(identifier.map(<[u8]>::to_owned));
        world.disks.clone_from(&files.disks);
        world.wiring.push(Arc::new(wiring));
        let fresh = || SnapshotId::random().to_string().into_bytes();
        Ok(Created {
            engine: Box::new(self.clone()),
            sockets: Some(Arc::new(self.clone())),
            identifier: identifier.map_or_else(fresh, <[u8]>::to_owned),
            unsaveable: world.unsaveable.clone(),
        })
    }
}

impl Engine for Fake {
    fn start(&mut self) -> Result<()> {
        self.note("start")
    }
    fn pause(&mut self) -> Result<()> {
        self.note("pause")
    }
    fn resume(&mut self) -> Result<()> {
        self.note("resume")
    }
    fn stop(&mut self) -> Result<()> {
        self.note("stop")
    }
    fn press_power_button(&mut self) -> Result<()> {
        self.note("button")
    }
    fn save(&mut self, file: &Path) -> Result<()> {
        assert!(!file.exists(), "the framework does not save over a file");
        fs::write(file, b"memory").unwrap();
        self.note("save")
    }
    fn restore(&mut self, file: &Path) -> Result<()> {
        self.note(format!("restore {}", fs::read_to_string(file).unwrap()))
    }
    fn set_balloon(&mut self, target: Bytes) -> Result<()> {
        self.note(format!("balloon {target}"))
    }
}

impl Sockets for Fake {
    fn connect(&self, port: u32, answer: Answer) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        // The guest's end stays open until the machine's does.
        std::mem::forget(theirs);
        answer(Ok(RawConnection { socket: ours.into(), host_port: 70, guest_port: port }));
    }
    fn listen(&self, port: u32) {
        self.note(format!("listen {port}")).unwrap();
    }
    fn unlisten(&self, port: u32) {
        self.note(format!("unlisten {port}")).unwrap();
    }
}

async fn create(fake: &Fake, spec: MachineSpec) -> Result<Arc<dyn Machine>> {
    backend(fake).create(Arc::new(spec), identity(), boot()).await
}

fn backend(fake: &Fake) -> VzBackend {
    VzBackend::with_framework(Arc::new(fake.clone()))
}

async fn started(fake: &Fake) -> Arc<dyn Machine> {
    let machine = create(fake, linux()).await.unwrap();
    machine.start().await.unwrap();
    fake.log();
    machine
}

async fn wait_for(machine: &dyn Machine, state: State) -> Option<String> {
    let mut status = machine.watch();
    let waited = status.wait_for(|now| now.state == state);
    tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap().unwrap().reason.clone()
}

fn with_disk(image: &Path) -> MachineSpec {
    let disk = Disk { path: image.to_owned(), readonly: false, mode: DiskMode::Overlay };
    MachineSpec { disks: vec![disk], ..linux() }
}

const PAUSED: RestoreOptions = RestoreOptions { paused: true, deterministic: false };

#[tokio::test]
async fn a_life_from_start_to_power_off() {
    let fake = Fake::default();
    let machine = create(&fake, linux()).await.unwrap();
    assert_eq!(machine.pause().await.unwrap_err().code(), Code::VmState);
    machine.start().await.unwrap();
    machine.pause().await.unwrap();
    machine.resume().await.unwrap();
    machine.set_balloon(Bytes::mib(64)).await.unwrap();
    machine.begin_stop().await.unwrap();
    machine.press_power_button().await.unwrap();
    assert_eq!(fake.log(), ["create", "start", "pause", "resume", "balloon 64MiB", "button"]);
    (fake.wiring().ended)(Ended::PoweredOff);
    let reason = wait_for(machine.as_ref(), State::Stopped).await;
    assert!(reason.unwrap().contains("powered off"));
    assert!(machine.balloon().await.unwrap_err().message().contains("does not tell"));
}

#[tokio::test]
async fn a_failed_start_can_be_tried_again() {
    let fake = Fake::default();
    let machine = create(&fake, linux()).await.unwrap();
    fake.0.lock().unwrap().fails = Some("start");
    machine.start().await.unwrap_err();
    assert_eq!(machine.watch().borrow().state, State::Created);
    fake.0.lock().unwrap().fails = None;
    machine.start().await.unwrap();
}

#[tokio::test]
async fn a_panic_on_the_console_ends_the_guest_as_crashed() {
    use std::io::Write;
    let fake = Fake::default();
    let machine = started(&fake).await;
    let output = fake.wiring().console.1.try_clone().unwrap();
    fs::File::from(output).write_all(b"Kernel panic - not syncing: no init\n").unwrap();
    let reason = wait_for(machine.as_ref(), State::Crashed).await.unwrap();
    assert_eq!(reason, "kernel panic: no init");
    assert_eq!(fake.log(), ["stop"]);
}

#[tokio::test]
async fn a_restore_brings_memory_and_disks_back_under_the_same_identifier() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.img");
    fs::write(&image, b"base").unwrap();
    let fake = Fake::default();
    let machine = create(&fake, with_disk(&image)).await.unwrap();
    machine.start().await.unwrap();
    let own = || fake.0.lock().unwrap().disks[0].clone();
    fs::write(own(), b"first").unwrap();
    let id = SnapshotId::random();
    let snapshot = machine.snapshot(id).await.unwrap();
    assert!(snapshot.figures().bytes > Bytes(0) && !snapshot.figures().paused);
    fs::write(own(), b"second").unwrap();
    for (disk, expected) in [
        (machine.disk(0).await.unwrap(), b"second".as_slice()),
        (snapshot.disk(0).await.unwrap(), b"first"),
    ] {
        let mut bytes = vec![0; usize::try_from(disk.length()).unwrap()];
        disk.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
        assert_eq!(disk.data().unwrap().len(), 1);
    }
    fake.log();
    machine.restore(id, RestoreOptions::default()).await.unwrap();
    assert_eq!(fake.log(), ["stop", "create", "restore memory", "resume"]);
    assert_eq!(fs::read(own()).unwrap(), b"first");
    assert_eq!(fs::read(&image).unwrap(), b"base");
    assert_eq!(machine.watch().borrow().state, State::Running);
    // Out of a crash, and held.
    (fake.wiring().ended)(Ended::Failed("gone".to_owned()));
    wait_for(machine.as_ref(), State::Crashed).await;
    machine.restore(id, PAUSED).await.unwrap();
    assert_eq!(machine.watch().borrow().state, State::Paused);
    let world = fake.0.lock().unwrap();
    assert_eq!(world.identifiers.len(), 3);
    assert!(world.identifiers[0].is_none());
    assert!(world.identifiers[1].is_some() && world.identifiers[1] == world.identifiers[2]);
}

#[tokio::test]
async fn an_ending_of_the_life_before_changes_nothing() {
    let fake = Fake::default();
    let machine = started(&fake).await;
    let old = fake.wiring();
    let id = SnapshotId::random();
    machine.snapshot(id).await.unwrap();
    machine.restore(id, RestoreOptions::default()).await.unwrap();
    (old.ended)(Ended::PoweredOff);
    machine.info().await.unwrap();
    assert_eq!(machine.watch().borrow().state, State::Running);
}

#[tokio::test]
async fn a_snapshot_that_fails_leaves_a_machine_that_runs() {
    let fake = Fake::default();
    let machine = started(&fake).await;
    fake.0.lock().unwrap().fails = Some("save");
    machine.snapshot(SnapshotId::random()).await.unwrap_err();
    assert_eq!(fake.log(), ["pause", "save", "resume"]);
    assert_eq!(machine.watch().borrow().state, State::Running);
    fake.0.lock().unwrap().fails = Some("restore");
    let missing = machine.restore(SnapshotId::random(), PAUSED).await.unwrap_err();
    assert_eq!(missing.code(), Code::SnapshotNotFound);
    assert_eq!(machine.watch().borrow().state, State::Running);
}

#[tokio::test]
async fn a_restore_that_fails_halfway_is_a_crash_out_of_which_another_leads() {
    let fake = Fake::default();
    let machine = started(&fake).await;
    let id = SnapshotId::random();
    machine.snapshot(id).await.unwrap();
    fake.0.lock().unwrap().fails = Some("restore");
    machine.restore(id, PAUSED).await.unwrap_err();
    assert_eq!(machine.watch().borrow().state, State::Crashed);
    fake.0.lock().unwrap().fails = None;
    machine.restore(id, PAUSED).await.unwrap();
    assert_eq!(machine.watch().borrow().state, State::Paused);
}

#[tokio::test]
async fn devices_that_rule_a_snapshot_out_are_named() {
    let fake = Fake::default();
    fake.0.lock().unwrap().unsaveable = Some("not with this device".to_owned());
    let share =
        vmoon_core::spec::Share { path: "/tmp".into(), tag: "src".to_owned(), readonly: true };
    let machine = create(&fake, MachineSpec { shares: vec![share], ..linux() }).await.unwrap();
    machine.start().await.unwrap();
    let error = machine.snapshot(SnapshotId::random()).await.unwrap_err();
    assert_eq!(error.code(), Code::BackendUnsupported);
    let message = error.message();
    assert!(message.contains("shares") && message.contains("not with this device"), "{message}");
    assert_eq!(machine.watch().borrow().state, State::Running);
}

#[tokio::test]
async fn connections_end_with_a_restore_and_listeners_do_not() {
    let fake = Fake::default();
    let machine = started(&fake).await;
    let listener = machine.listen(VsockPort(5000)).await.unwrap();
    assert_eq!(machine.listen(VsockPort(5000)).await.unwrap_err().code(), Code::VmSpec);
    let mut stream = machine.connect(VsockPort(80)).await.unwrap();
    assert!(!stream.outlives_restores());
    let deliver = |wiring: &Wiring, guest_port| {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        std::mem::forget(theirs);
        let raw = RawConnection { socket: ours.into(), host_port: 5000, guest_port };
        (wiring.incoming)(5000, raw)
    };
    let id = SnapshotId::random();
    machine.snapshot(id).await.unwrap();
    // Nobody accepts it in the life in which it came.
    assert!(deliver(&fake.wiring(), 1));
    machine.restore(id, RestoreOptions::default()).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(fake.log().contains(&"listen 5000".to_owned()));
    assert!(deliver(&fake.wiring(), 2));
    assert_eq!(listener.accept().await.unwrap().id().guest, VsockPort(2));
    drop(listener);
    assert!(!deliver(&fake.wiring(), 3), "nobody listens any more");
}

#[tokio::test]
async fn a_saved_machine_comes_back_once_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("a.img");
    fs::write(&image, b"base").unwrap();
    let fake = Fake::default();
    let machine = create(&fake, with_disk(&image)).await.unwrap();
    machine.start().await.unwrap();
    fs::write(fake.0.lock().unwrap().disks[0].clone(), b"saved").unwrap();
    let snapshot = machine.snapshot(SnapshotId::random()).await.unwrap();
    let target = folder.path().join("snapshot");
    let annotations = serde_json::Value::Null;
    snapshot.save(&target, annotations, Progress::new(Work::Saving, None)).await.unwrap();
    drop(snapshot);
    let saved = Saved::open(&target).unwrap();
    let backend = backend(&fake);
    let load = || backend.load(saved.clone(), Progress::new(Work::Loading, None));
    let loaded = load().await.unwrap();
    let error = loaded.fork(identity(), false).await.unwrap_err();
    assert_eq!(error.code(), Code::BackendUnsupported);
    machine.close();
    // What was loaded needs neither the directory nor the first image.
    fs::remove_file(&image).unwrap();
    let forked = loaded.fork(identity(), false).await.unwrap();
    assert_eq!(forked.machine.watch().borrow().state, State::Paused);
    assert_eq!(fs::read(&fake.0.lock().unwrap().disks[0]).unwrap(), b"saved");
    forked.machine.resume().await.unwrap();
    forked.machine.restore(loaded.id(), PAUSED).await.unwrap();
    // A byte that changed is found before anything is made.
    let disk = target.join("disk-0");
    fs::write(&disk, b"sAved").unwrap();
    let error = load().await.unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt);
    assert!(error.message().contains("disk-0"), "{error}");
}

#[tokio::test]
async fn closing_is_for_good_and_leaves_no_files() {
    let fake = Fake::default();
    let machine = started(&fake).await;
    let kernel = machine.snapshot(SnapshotId::random()).await;
    drop(kernel);
    machine.close();
    machine.close();
    assert_eq!(machine.watch().borrow().state, State::Stopped);
    assert_eq!(machine.start().await.unwrap_err().code(), Code::VmState);
    assert_eq!(machine.listen(VsockPort(9)).await.unwrap_err().code(), Code::VmState);
    assert!(fake.log().ends_with(&["stop".to_owned()]));
}
