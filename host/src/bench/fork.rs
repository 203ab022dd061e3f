//! Forks of an idle machine.

use std::sync::Arc;
use std::time::Instant;

use vmoon_core::Result;
use vmoon_core::vm::{Host, RestoreOptions};

use super::figure::{Figure, Samples};
use super::floor::Floor;
use super::guest;
use super::plan::Plan;

/// Forks, one after the other, each closed before the next.
pub(super) async fn measure(host: &Arc<Host>, plan: &Plan) -> Result<[Figure; 2]> {
    let vm = guest::boot(host, plan, plan.memory).await?;
    let snapshot = vm.snapshot(None).await?;
    let floor = Floor::new(plan.memory, 1)?;
    let mut times = [Samples::default(), Samples::default()];
    let mut floors = Samples::default();
    for round in 0..=plan.fewer(2) {
        let begun = Instant::now();
        let forks = snapshot.fork(1, RestoreOptions::default()).await?;
        let forked = begun.elapsed();
        for fork in &forks {
            guest::succeed(fork, "true").await?;
        }
        let replied = begun.elapsed();
        for fork in forks {
            fork.close();
        }
        guest::idle().await;
        let least = floor.fork()?;
        if round > 0 {
            times[0].push(forked);
            times[1].push(replied);
            floors.extend(least);
        }
        guest::idle().await;
    }
    vm.close();
    let [forked, replied] = times;
    Ok([
        Figure::new("fork", "snap:fork(1) (floor: a new bare machine in KVM)", forked)
            .with_floor(floors),
        Figure::new("fork_exec", "fork to the reply of its first command", replied),
    ])
}
