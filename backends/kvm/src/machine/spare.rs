//! Machines that wait for forks.
//!
//! `KVM_CREATE_VM` and its like take most of a fork's time, some of it in grace periods that a
//! busy host stretches. The first fork of a plan pays for it; from then on a few machines are
//! made ahead, and a fork only maps memory and puts state into one.
//!
//! They are made by a thread of their own, and not at once: the making takes a processor, which
//! the fork that was just taken, its vCPU and whoever waits for it want more.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use vmoon_core::Result;

use super::birth::Unborn;
use crate::vm::plan::Plan;

/// How many wait. Each holds a thread for itself and each of its vCPUs, some twenty file
/// descriptors and no guest memory.
const READY: usize = 4;

/// How long a fork is left alone before the next machine is made: about what it takes to come to
/// life and answer its first command.
const COURTESY: Duration = Duration::from_millis(3);

/// The machines that wait, of one plan.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Oldest first.
    machines: Vec<Unborn>,
    /// Tells the keeper that one was taken; it ends when this is gone.
    taken: Option<SyncSender<()>>,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine of `plan`: one that waits, or a new one; and others are made in its place.
pub(crate) fn take(plan: &Arc<Plan>) -> Result<Unborn> {
    let mut waiting = plan.spares.lock();
    // The oldest is the one most surely made by now.
    let oldest = if waiting.machines.is_empty() { None } else { Some(waiting.machines.remove(0)) };
    if waiting.taken.is_none() {
        waiting.taken = keeper(plan);
    }
    if let Some(taken) = &waiting.taken {
        // When it is full, the keeper has yet to look.
        let _ = taken.try_send(());
    }
    drop(waiting);
    oldest.map_or_else(|| Unborn::conceive(plan, false), Ok)
}

/// Starts the thread that makes machines ahead. Without it forks are slower, and that is all.
fn keeper(plan: &Arc<Plan>) -> Option<SyncSender<()>> {
    let (taken, told) = mpsc::sync_channel(1);
    // The plan holds the machines: whoever keeps them must not hold the plan.
    let plan = Arc::downgrade(plan);
    std::thread::Builder::new()
        .name("spares".to_owned())
        .spawn(move || keep(&plan, &told))
        .inspect_err(|error| tracing::debug!(%error, "no machines are made ahead"))
        .ok()?;
    Some(taken)
}

fn keep(plan: &Weak<Plan>, told: &Receiver<()>) {
    while told.recv().is_ok() {
        std::thread::sleep(COURTESY);
        let Some(plan) = plan.upgrade() else { return };
        while plan.spares.lock().machines.len() < READY {
            match Unborn::conceive(&plan, false) {
                Ok(unborn) => plan.spares.lock().machines.push(unborn),
                Err(error) => {
                    tracing::debug!(error = error.full_message(), "no machine was made ahead");
                    break;
                }
            }
        }
    }
}
