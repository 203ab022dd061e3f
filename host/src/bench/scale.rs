//! Figures for people only: many forks at once, and memories of different sizes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmoon_core::vm::{Host, RestoreOptions};
use vmoon_core::{Bytes, Result};

use super::figure::Samples;
use super::guest;
use super::plan::Plan;

const FORKS: u32 = 100;
const SMALL: Bytes = Bytes::mib(256);
const LARGE: Bytes = Bytes::gib(4);

/// Many forks at once.
#[derive(Debug)]
pub(super) struct Forks {
    pub(super) count: u32,
    pub(super) wall: Duration,
    /// What the process grew by for each fork, where the host tells.
    pub(super) added: Option<Bytes>,
}

/// Makes many forks of one snapshot at once.
pub(super) async fn forks(host: &Arc<Host>, plan: &Plan) -> Result<Forks> {
    let vm = guest::boot(host, plan, plan.memory).await?;
    let snapshot = vm.snapshot(None).await?;
    let mut wall = Samples::default();
    let mut added = None;
    for _ in 0..plan.fewer(70) {
        let before = resident();
        let begun = Instant::now();
        let forks = snapshot.fork(FORKS as usize, RestoreOptions::default()).await?;
        wall.push(begun.elapsed());
        guest::idle().await;
        // Later ones reuse what the allocator kept of the first.
        added = added.or_else(|| {
            let grown = resident()?.saturating_sub(before?);
            Some(Bytes(grown / u64::from(FORKS)))
        });
        for fork in forks {
            fork.close();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    vm.close();
    Ok(Forks { count: FORKS, wall: wall.p50(), added })
}

/// This process's share of memory in bytes: pages that several mappings share count once.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The same restore in memories of two sizes.
#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) small: (Bytes, Duration),
    pub(super) large: (Bytes, Duration),
}

/// Restores two machines in turns, the same number of pages dirty in both.
pub(super) async fn sizes(host: &Arc<Host>, plan: &Plan) -> Result<Sizes> {
    let mut machines = Vec::new();
    for memory in [SMALL, LARGE] {
        let vm = guest::boot(host, plan, memory).await?;
        let clean = vm.snapshot(None).await?;
        machines.push((vm, clean, Samples::default()));
    }
    for round in 0..=plan.fewer(2) {
        for (vm, clean, times) in &mut machines {
            guest::dirty(vm, plan).await?;
            let begun = Instant::now();
            vm.restore(&clean.clone().into(), RestoreOptions::default()).await?;
            if round > 0 {
                times.push(begun.elapsed());
            }
        }
    }
    let p50 = |index: usize| {
        let (vm, _, times) = &machines[index];
        (vm.spec().memory, times.p50())
    };
    let sizes = Sizes { small: p50(0), large: p50(1) };
    for (vm, ..) in &machines {
        vm.close();
    }
    Ok(sizes)
}
