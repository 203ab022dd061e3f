//! One of each: the same things are done to both, in turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vmoon_core::spec::{Guest, MachineSpec};
use vmoon_core::vm::{ExecRequest, Host, RestoreOptions, SnapshotSelector, Vm};
use vmoon_core::{BootSource, State};

use super::plain::Plain;
use super::table::{Row, Table};

/// How often each thing is done to a machine.
const TURNS: usize = 10;

/// How long both are left alone before they are measured.
const IDLE: Duration = Duration::from_millis(50);

/// Boots `rounds` machines of each and measures.
pub(super) async fn measure(
    host: &Arc<Host>,
    spec: &MachineSpec,
    files: &BootSource,
    rounds: usize,
) -> Result<Table> {
    let has_shell = spec.guest != Guest::Micro;
    let mut boot = Row::new("boot");
    let mut first = Row::new("first snapshot");
    let mut snapshot = Row::new("snapshot");
    let mut restore = Row::new("restore");
    let mut exec = Row::new("exec");
    let mut restore_exec = Row::new("restore to the first command's end");
    for _ in 0..rounds {
        let (mut plain, by_hand) = Plain::boot(spec, files)?;
        let begun = Instant::now();
        let vm = host.boot(None, spec.clone()).await?;
        boot.push(by_hand, begun.elapsed());
        settle().await;
        first.push(plain.monitor.human("savevm first")?, take(&vm).await?);
        for _ in 0..TURNS {
            settle().await;
            let by_hand = plain.monitor.human("savevm next")?;
            snapshot.push(by_hand, take(&vm).await?);
            settle().await;
            let by_hand = plain.monitor.human("loadvm first")?;
            restore.push(by_hand, go_back(&vm).await?);
            plain.monitor.human("delvm next")?;
            if has_shell {
                // What the guest runs must first be translated again, after either.
                let begun = Instant::now();
                plain.monitor.human("loadvm first")?;
                plain.run()?;
                let by_hand = begun.elapsed();
                let begun = Instant::now();
                go_back(&vm).await?;
                run(&vm).await?;
                restore_exec.push(by_hand, begun.elapsed());
                let by_hand = plain.run()?;
                exec.push(by_hand, run(&vm).await?);
            }
        }
        ensure!(vm.state() == State::Running, "the machine is {}", vm.state());
        vm.close();
    }
    let name = if has_shell { "stock Linux" } else { "the built-in guest" };
    let mut rows = vec![boot, first, snapshot, restore];
    if has_shell {
        rows.extend([restore_exec, exec]);
    }
    Ok(Table { title: format!("{name}, {} of memory", spec.memory), rows })
}

async fn settle() {
    tokio::time::sleep(IDLE).await;
}

/// Takes a snapshot, of which only the first is kept.
async fn take(vm: &Arc<Vm>) -> Result<Duration> {
    let begun = Instant::now();
    let snapshot = vm.snapshot(None).await?;
    let time = begun.elapsed();
    if snapshot.parent().is_some() {
        snapshot.delete().await?;
    }
    Ok(time)
}

/// Restores the first snapshot.
async fn go_back(vm: &Arc<Vm>) -> Result<Duration> {
    let first = vm.snapshots().pop().expect("the first is kept");
    let begun = Instant::now();
    vm.restore(&SnapshotSelector::Handle(first), RestoreOptions::default()).await?;
    Ok(begun.elapsed())
}

/// The command that is also typed by hand.
async fn run(vm: &Vm) -> Result<Duration> {
    let begun = Instant::now();
    let result = vm.exec(ExecRequest::shell("echo here")).await?;
    let time = begun.elapsed();
    ensure!(result.ok() && result.stdout == b"here\n", "{result:?}");
    Ok(time)
}
