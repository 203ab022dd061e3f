//! Boots the built-in guest and times what it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmoon_core::vm::{ExecRequest, Host, RestoreOptions, SnapshotSelector, Vm};
use vmoon_core::{Bytes, MachineSpec, Result};

/// How often each thing is done; the median counts.
const ROUNDS: usize = 7;

/// How long a healthy host needs at the very most.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long things took.
#[derive(Debug)]
pub(super) struct Figures {
    /// From nothing to a guest that takes commands, once.
    pub(super) boot: Duration,
    /// The first command, and those after it.
    pub(super) exec: Duration,
    /// Snapshots; none where there are none.
    pub(super) snapshot: Option<Duration>,
    /// Restores in place.
    pub(super) restore: Option<Duration>,
}

impl Figures {
    /// The figures by name, those that there are.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        [
            ("boot", Some(self.boot)),
            ("snapshot", self.snapshot),
            ("restore", self.restore),
            ("exec", Some(self.exec)),
        ]
        .into_iter()
        .filter_map(|(name, time)| Some((name, time?)))
    }
}

/// Runs the built-in guest on a backend.
pub(super) async fn run(host: &Arc<Host>, backend: &str) -> Result<Figures> {
    let spec = MachineSpec { memory: Bytes::mib(64), timeout: TIMEOUT, ..MachineSpec::default() };
    let begun = Instant::now();
    let vm = host.boot(Some(backend), spec).await?;
    let boot = begun.elapsed();
    let figures = measure(&vm, boot).await;
    vm.close();
    figures
}

async fn measure(vm: &Arc<Vm>, boot: Duration) -> Result<Figures> {
    let (mut execs, mut snapshots, mut restores) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        vm.exec(ExecRequest::shell("true")).await?;
        execs.push(begun.elapsed());
    }
    if vm.backend().capabilities().snapshot.is_yes() {
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let snapshot = vm.snapshot(None).await?;
            snapshots.push(begun.elapsed());
            vm.exec(ExecRequest::shell("put key value")).await?;
            let begun = Instant::now();
            let selector = SnapshotSelector::Handle(snapshot.clone());
            vm.restore(&selector, RestoreOptions::default()).await?;
            restores.push(begun.elapsed());
        }
    }
    let exec = median(execs).unwrap_or_default();
    Ok(Figures { boot, exec, snapshot: median(snapshots), restore: median(restores) })
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
