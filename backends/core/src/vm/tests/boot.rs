use std::sync::Arc;
use std::time::Duration;

use crate::error::Code;
use crate::lifecycle::State;
use crate::spec::{MachineSpec, Ready, VsockSpec};
use crate::units::{Bytes, Cid};
use crate::vm::ExecRequest;
use crate::vm::fake::{Behaviour, FakeBackend, booted, host, host_of, output, spec};

#[tokio::test]
async fn boots_names_and_lists_machines() {
    let (host, backend) = host(Behaviour::default());
    let first = host.boot(None, spec()).await.unwrap();
    let second = host
        .create(Some("fake"), MachineSpec { name: Some("database".into()), ..spec() })
        .await
        .unwrap();
    assert_eq!((first.name(), first.state()), ("vm-1", State::Running));
    assert_eq!((second.name(), second.state()), ("database", State::Created));
    assert_ne!(first.cid(), second.cid());
    assert_ne!(first.mac(), second.mac());
    assert!(Arc::ptr_eq(&host.get("database").unwrap(), &second));
    assert!(Arc::ptr_eq(&host.get(&first.id().to_string()).unwrap(), &first));
    assert_eq!(host.list().len(), 2);
    drop(first);
    assert!(backend.machine(0).is_closed(), "dropping the last handle closes");
    assert_eq!(host.list().len(), 1);
    host.close_all();
    assert!(backend.machine(1).is_closed());
    assert!(host.list().is_empty());
    assert_eq!(second.state(), State::Stopped);
    assert_eq!(second.start().await.unwrap_err().code(), Code::VmState);
}

#[tokio::test]
async fn names_and_cids_clash_until_the_machine_is_closed() {
    let (host, _) = host(Behaviour::default());
    let wanted = || MachineSpec {
        name: Some("one".into()),
        vsock: Some(VsockSpec { cid: Some(Cid(42)) }),
        ..spec()
    };
    let first = host.create(None, wanted()).await.unwrap();
    let name = host.create(None, wanted()).await.unwrap_err();
    assert_eq!(name.code(), Code::VmSpec);
    assert!(name.message().contains("one"), "{name}");
    let cid = host.create(None, MachineSpec { name: None, ..wanted() }).await.unwrap_err();
    assert_eq!(cid.code(), Code::VmSpec);
    assert!(cid.message().contains("42"), "{cid}");
    first.close();
    assert_eq!(host.create(None, wanted()).await.unwrap().cid(), Cid(42));
}

#[tokio::test]
async fn the_first_backend_that_works_and_can_is_chosen() {
    let mut absent = FakeBackend::new("absent", Behaviour::default());
    absent.absent = Some("/dev/fake is missing");
    let mut small = FakeBackend::new("small", Behaviour::default());
    small.capabilities.max_cpus = 1;
    let absent: Arc<FakeBackend> = Arc::new(absent);
    let host = host_of(vec![
        absent.clone(),
        Arc::new(small),
        Arc::new(FakeBackend::new("large", Behaviour::default())),
    ]);
    let cpus = |cpus| MachineSpec { cpus, ..spec() };
    assert_eq!(host.choose(None, &cpus(1)).unwrap().name(), "small");
    assert_eq!(host.choose(Some("auto"), &cpus(2)).unwrap().name(), "large");
    assert_eq!(host.choose(Some("small"), &cpus(2)).unwrap_err().code(), Code::VmSpec);
    let refused = host.choose(None, &MachineSpec { net: true, ..spec() }).unwrap_err();
    assert_eq!(refused.code(), Code::BackendUnsupported);
    assert!(refused.message().contains("small"), "{refused}");
    for name in ["absent", "unheard-of"] {
        let error = host.choose(Some(name), &spec()).unwrap_err();
        assert_eq!(error.code(), Code::BackendUnavailable, "{name}");
    }
    let alone = host_of(vec![absent]).choose(None, &spec()).unwrap_err();
    assert_eq!(alone.code(), Code::BackendUnavailable);
    assert_eq!(alone.hint(), Some("try more"));
}

#[tokio::test]
async fn a_bad_spec_reserves_nothing() {
    let (host, _) = host(Behaviour::default());
    let named = |memory| MachineSpec { name: Some("one".into()), memory, ..spec() };
    for memory in [Bytes(0), Bytes(12), Bytes::gib(1 << 20)] {
        assert_eq!(host.boot(None, named(memory)).await.unwrap_err().code(), Code::VmSpec);
    }
    host.boot(None, named(Bytes::mib(64))).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_crashes_while_booting_is_closed_and_explained() {
    let (host, backend) = host(Behaviour { crashes_on_boot: true, ..Behaviour::default() });
    let error = host.boot(None, spec()).await.unwrap_err();
    assert_eq!(error.code(), Code::GuestPanic);
    assert!(error.message().contains("triple fault"), "{error}");
    let tail = error.details()["console_tail"].as_str().unwrap();
    assert!(tail.ends_with("no init"), "{tail:?}");
    assert!(backend.machine(0).is_closed());
    assert!(host.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_guest_without_an_agent_times_out_with_its_console() {
    let (host, backend) = host(Behaviour { dials: false, ..Behaviour::default() });
    let error = host.boot(None, spec()).await.unwrap_err();
    assert_eq!(error.code(), Code::VmTimeout);
    assert!(error.message().contains("agent"), "{error}");
    assert!(error.hint().is_some());
    assert_eq!(error.details()["console_tail"], "booting");
    assert!(backend.machine(0).is_closed());

    let vm = host.boot(None, MachineSpec { ready: Ready::Nothing, ..spec() }).await.unwrap();
    let silent = vm.exec(ExecRequest::shell("echo x")).await.unwrap_err();
    assert_eq!(silent.code(), Code::AgentUnavailable);
    let vm = host.boot(None, MachineSpec { agent: false, ..spec() }).await.unwrap();
    let none = vm.exec(ExecRequest::shell("echo x")).await.unwrap_err();
    assert_eq!(none.code(), Code::AgentUnavailable);
    assert!(none.message().contains("agent = false"), "{none}");
}

#[tokio::test]
async fn an_agent_of_another_version_is_refused() {
    let (host, _) = host(Behaviour { version: 99, ..Behaviour::default() });
    let error = host.boot(None, spec()).await.unwrap_err();
    assert_eq!(error.code(), Code::AgentUnavailable);
    assert!(error.message().contains("99") && error.hint().is_some(), "{error}");
}

#[tokio::test]
async fn a_rebooted_guest_announces_itself_again() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    output(&vm, "echo before").await;
    machine.reset_connections();
    tokio::task::yield_now().await;
    machine.dial_agent();
    vm.wait_ready(Duration::from_secs(1)).await.unwrap();
    assert_eq!(output(&vm, "echo after").await, "after\n");
    // A second dial replaces the first one.
    machine.dial_agent();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let watch = vmoon_protocol::watch::Watch::Port(80);
    vm.watch_guest(watch, Some(Duration::from_secs(1))).await.unwrap();
}

#[tokio::test]
async fn an_abandoned_boot_leaves_nothing() {
    let (host, backend) = host(Behaviour { dials: false, ..Behaviour::default() });
    let boot = host.boot(None, spec());
    assert!(tokio::time::timeout(Duration::from_millis(50), boot).await.is_err());
    assert!(backend.machine(0).is_closed());
    assert!(host.list().is_empty());
}
