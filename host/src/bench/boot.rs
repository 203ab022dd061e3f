//! From nothing to a guest that takes commands.

use std::sync::Arc;
use std::time::Instant;

use vmoon_core::Result;
use vmoon_core::vm::Host;

use super::figure::{Figure, Samples};
use super::guest;
use super::plan::Plan;

/// Boots machines, one after the other.
pub(super) async fn measure(host: &Arc<Host>, plan: &Plan) -> Result<Figure> {
    let mut times = Samples::default();
    for round in 0..=plan.fewer(10) {
        let begun = Instant::now();
        let vm = host.boot(None, plan.spec(plan.memory)).await?;
        // The first opens the hypervisor and reads the guest's files.
        if round > 0 {
            times.push(begun.elapsed());
        }
        vm.close();
        guest::idle().await;
    }
    Ok(Figure::new("boot", "create a machine, boot it, until it takes commands", times))
}
