use std::sync::Arc;
use std::time::Duration;

use crate::error::Code;
use crate::lifecycle::State;
use crate::vm::fake::{Behaviour, booted, output, spec};
use crate::vm::{ExecRequest, RestoreOptions, Snapshot, SnapshotSelector, Vm};

async fn snapshot(vm: &Arc<Vm>, name: &str) -> Arc<Snapshot> {
    vm.snapshot(Some(name.to_owned())).await.unwrap()
}

async fn restore(vm: &Vm, snapshot: &Arc<Snapshot>) {
    vm.restore(&snapshot.clone().into(), RestoreOptions::default()).await.unwrap();
}

fn idle(vm: &Vm) -> usize {
    vm.agent.as_ref().unwrap().idle_connections()
}

#[tokio::test]
async fn connections_idle_in_the_snapshot_live_on_and_the_next_command_carries_the_life() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    output(&vm, "echo once").await;
    let clean = snapshot(&vm, "clean").await;
    // Two connections are open now; only the first one lay idle in the snapshot.
    tokio::join!(output(&vm, "echo one"), output(&vm, "echo two"));
    assert_eq!((idle(&vm), machine.connects()), (2, 2));
    for epoch in 2..5 {
        restore(&vm, &clean).await;
        assert_eq!(idle(&vm), 1);
        assert_eq!(output(&vm, "echo again").await, "again\n");
        output(&vm, "echo more").await;
        let log = machine.log();
        let told = [format!("life {epoch}"), "exec echo again".into(), "exec echo more".into()];
        assert_eq!(log[log.len() - 3..], told);
    }
    assert_eq!(machine.connects(), 2, "no connection was opened after a restore");
    vm.watch_guest(vmoon_protocol::watch::Watch::Port(80), None).await.unwrap();
}

#[tokio::test]
async fn a_deterministic_restore_tells_the_guest_nothing() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let clean = snapshot(&vm, "clean").await;
    let options = RestoreOptions { paused: true, deterministic: true };
    vm.restore(&"clean".into(), options).await.unwrap();
    assert_eq!(vm.state(), State::Paused);
    vm.resume().await.unwrap();
    output(&vm, "echo x").await;
    assert_eq!(machine.log(), ["exec echo x"]);
    assert_eq!(clean.parent(), None);
}

#[tokio::test]
async fn a_watch_announces_the_life_once() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    let clean = snapshot(&vm, "clean").await;
    restore(&vm, &clean).await;
    for _ in 0..2 {
        vm.watch_guest(vmoon_protocol::watch::Watch::Port(80), None).await.unwrap();
    }
    output(&vm, "echo x").await;
    assert_eq!(machine.log(), ["life 2", "exec echo x"]);
}

#[tokio::test]
async fn commands_do_not_outlive_a_restore() {
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    let clean = snapshot(&vm, "clean").await;
    let mut process = vm.spawn(ExecRequest::shell("sleep")).await.unwrap();
    process.next().await.unwrap();
    let busy = snapshot(&vm, "busy").await;
    let going_back = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        restore(&vm, &clean).await;
    };
    let (cut, ()) = tokio::join!(vm.exec(ExecRequest::shell("sleep")), going_back);
    assert_eq!(cut.unwrap_err().code(), Code::VsockReset);
    assert_eq!(process.next().await.unwrap_err().code(), Code::VsockReset);
    output(&vm, "echo x").await;
    // The connection of the process was in use in this snapshot: it is not kept.
    restore(&vm, &busy).await;
    assert_eq!(idle(&vm), 0);
    output(&vm, "echo x").await;
}

#[tokio::test]
async fn watches_do_not_outlive_a_restore() {
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    let clean = snapshot(&vm, "clean").await;
    let going_back = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        restore(&vm, &clean).await;
    };
    let watch = vmoon_protocol::watch::Watch::File(b"/x".to_vec());
    let (cut, ()) = tokio::join!(vm.watch_guest(watch, None), going_back);
    assert_eq!(cut.unwrap_err().code(), Code::VsockReset);
}

#[tokio::test]
async fn the_tree_remembers_where_the_machine_came_from() {
    let (_host, vm, _machine) = booted(Behaviour::default()).await;
    let root = vm.snapshot(None).await.unwrap();
    let left = snapshot(&vm, "left").await;
    restore(&vm, &root).await;
    let right = snapshot(&vm, "same").await;
    let right_again = snapshot(&vm, "same").await;
    assert_eq!(root.name(), "snapshot-1");
    assert_eq!((root.parent(), left.parent()), (None, Some(root.id())));
    assert_eq!(right.parent(), Some(root.id()));
    assert_eq!(right_again.parent(), Some(right.id()));
    let ids = |list: Vec<Arc<Snapshot>>| list.iter().map(|s| s.id()).collect::<Vec<_>>();
    assert_eq!(ids(vm.snapshots()), [right_again.id(), right.id(), left.id(), root.id()]);
    vm.restore(&"same".into(), RestoreOptions::default()).await.unwrap();
    let child = snapshot(&vm, "child").await;
    assert_eq!(child.parent(), Some(right_again.id()), "the newest of that name");
    assert_eq!(vm.prune(2).await.unwrap(), [root.id(), left.id(), right.id()]);
    assert_eq!(ids(vm.snapshots()), [child.id(), right_again.id()]);
    assert_eq!(vm.prune(2).await.unwrap(), []);
}

#[tokio::test]
async fn deleted_foreign_and_unknown_snapshots_change_nothing() {
    let (host, vm, machine) = booted(Behaviour::default()).await;
    let other = host.boot(None, spec()).await.unwrap();
    let clean = snapshot(&vm, "clean").await;
    let gone = snapshot(&vm, "gone").await;
    gone.delete().await.unwrap();
    assert_eq!(gone.delete().await.unwrap_err().code(), Code::SnapshotNotFound);
    let fails = async |vm: &Vm, selector: SnapshotSelector| {
        vm.restore(&selector, RestoreOptions::default()).await.unwrap_err()
    };
    assert_eq!(fails(&vm, gone.clone().into()).await.code(), Code::SnapshotNotFound);
    let unknown = fails(&vm, "gone".into()).await;
    assert_eq!(unknown.code(), Code::SnapshotNotFound);
    assert!(unknown.hint().unwrap().contains("clean"));
    assert_eq!(fails(&other, clean.clone().into()).await.code(), Code::SnapshotForeign);
    assert_eq!(
        gone.fork(1, RestoreOptions::default()).await.unwrap_err().code(),
        Code::SnapshotNotFound
    );
    output(&vm, "echo x").await;
    assert_eq!(machine.log(), ["exec echo x"]);
}

#[tokio::test]
async fn a_restore_that_fails_changes_nothing() {
    let (_host, vm, machine) =
        booted(Behaviour { restore_fails: true, ..Behaviour::default() }).await;
    let clean = snapshot(&vm, "clean").await;
    let mut process = vm.spawn(ExecRequest::shell("cat")).await.unwrap();
    let error = vm.restore(&clean.into(), RestoreOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::SnapshotCorrupt);
    process.input().close().await.unwrap();
    assert!(matches!(process.next().await.unwrap(), crate::vm::Output::Exit(_)));
    vm.watch_guest(vmoon_protocol::watch::Watch::Port(80), None).await.unwrap();
    assert_eq!(machine.connects(), 1);
}

#[tokio::test]
async fn a_crashed_or_stopped_machine_comes_back() {
    let (_host, vm, machine) = booted(Behaviour::default()).await;
    output(&vm, "echo x").await;
    let clean = snapshot(&vm, "clean").await;
    vm.exec(ExecRequest::shell("crash")).await.unwrap_err();
    restore(&vm, &clean).await;
    assert_eq!(output(&vm, "echo x").await, "x\n");
    vm.kill().await.unwrap();
    restore(&vm, &clean).await;
    assert_eq!(vm.state(), State::Running);
    assert_eq!(output(&vm, "echo x").await, "x\n");
    drop(machine);
}

#[tokio::test]
async fn forks_have_identities_of_their_own_and_confirm_their_life() {
    let (host, vm, machine) = booted(Behaviour::default()).await;
    output(&vm, "echo x").await;
    let clean = snapshot(&vm, "clean").await;
    let forks = clean.fork(3, RestoreOptions::default()).await.unwrap();
    let names: Vec<&str> = forks.iter().map(|fork| fork.name()).collect();
    assert_eq!(names, ["vm-1-fork-1", "vm-1-fork-2", "vm-1-fork-3"]);
    assert_eq!(host.list().len(), 4);
    for fork in &forks {
        assert_eq!(fork.state(), State::Running);
        assert_ne!((fork.id(), fork.cid(), fork.mac()), (vm.id(), vm.cid(), vm.mac()));
        assert_eq!(idle(fork), 1, "the idle connection lives on");
        assert_eq!(output(fork, "echo fork").await, "fork\n");
        assert_eq!(fork.snapshots().len(), 0);
    }
    let fork = &forks[0];
    // To where it came from, but to no other snapshot of the parent.
    restore(fork, &clean).await;
    assert_eq!(output(fork, "echo fork").await, "fork\n");
    let later = snapshot(&vm, "later").await;
    let foreign = fork.restore(&later.into(), RestoreOptions::default()).await.unwrap_err();
    assert_eq!(foreign.code(), Code::SnapshotForeign);
    let own = snapshot(fork, "own").await;
    assert_eq!(own.parent(), Some(clean.id()));
    assert_eq!(
        own.fork(1, RestoreOptions::default()).await.unwrap()[0].name(),
        "vm-1-fork-1-fork-1"
    );
    assert_eq!(machine.connects(), 1);
    drop(forks);
    assert_eq!(host.list().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fork_that_does_not_confirm_fails_them_all() {
    let (host, vm, _machine) =
        booted(Behaviour { confirms_life: false, ..Behaviour::default() }).await;
    let clean = snapshot(&vm, "clean").await;
    let error = clean.fork(2, RestoreOptions::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::SnapshotEntropy);
    assert_eq!(host.list().len(), 1);
    // A paused one cannot be asked: its first command tells it.
    vm.pause().await.unwrap();
    let held = snapshot(&vm, "held").await;
    let forks = held.fork(1, RestoreOptions::default()).await.unwrap();
    assert_eq!(forks[0].state(), State::Paused);
    forks[0].resume().await.unwrap();
    output(&forks[0], "echo x").await;
}
