//! Snapshots above a first one.

use std::sync::Arc;
use std::time::Instant;

use vmoon_core::Result;
use vmoon_core::vm::{Host, RestoreOptions};

use super::figure::{Figure, Samples, median};
use super::floor::Floor;
use super::guest;
use super::plan::Plan;

/// Takes snapshots of a machine that has one already, the same pages dirty each time.
pub(super) async fn measure(host: &Arc<Host>, plan: &Plan) -> Result<Figure> {
    let vm = guest::boot(host, plan, plan.memory).await?;
    let first = vm.snapshot(None).await?.into();
    let (mut times, mut floors, mut dirty) = (Samples::default(), Samples::default(), Vec::new());
    let mut floor = None;
    for round in 0..=plan.fewer(2) {
        guest::dirty(&vm, plan).await?;
        let begun = Instant::now();
        let snapshot = vm.snapshot(None).await?;
        let time = begun.elapsed();
        let pages = snapshot.figures().dirty_pages;
        snapshot.delete().await?;
        drop(snapshot);
        let floor = match &mut floor {
            Some(floor) => floor,
            None => floor.insert(Floor::new(plan.memory, pages)?),
        };
        let least = floor.snapshot()?;
        if round > 0 {
            times.push(time);
            floors.extend(least);
            dirty.push(pages);
        }
        vm.restore(&first, RestoreOptions::default()).await?;
    }
    vm.close();
    let about = "a later snapshot (floor: the same copies and state calls)";
    Ok(Figure::new("snapshot", about, times).with_floor(floors).dirty(median(dirty)))
}
