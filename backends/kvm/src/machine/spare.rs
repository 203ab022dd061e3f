//! Machines that wait for forks.
//!
//! `KVM_CREATE_VM` and its like take most of a fork's time, some of it in grace periods that a
//! busy host stretches. The first fork of a plan pays for it; from then on a few machines are
//! made ahead, in the background, and a fork only maps memory and puts state into one.

use std::sync::{Arc, Mutex, PoisonError};

use vmoon_core::Result;

use super::birth::Unborn;
use crate::vm::plan::Plan;

/// How many wait. Each holds a thread for itself and each of its vCPUs, some twenty file
/// descriptors and no guest memory.
const READY: usize = 4;

/// The machines that wait, of one plan.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Unborn>>);

/// A machine of `plan`: one that waits, or a new one; and another is begun in its place.
pub(crate) fn take(plan: &Arc<Plan>) -> Result<Unborn> {
    let mut waiting = plan.spares.0.lock().unwrap_or_else(PoisonError::into_inner);
    // The oldest is the one most surely made by now.
    let taken = if waiting.is_empty() { None } else { Some(waiting.remove(0)) };
    while waiting.len() < READY {
        match Unborn::conceive(plan, false) {
            Ok(unborn) => waiting.push(unborn),
            Err(error) => {
                tracing::debug!(error = error.full_message(), "no machine could be made ahead");
                break;
            }
        }
    }
    drop(waiting);
    taken.map_or_else(|| Unborn::conceive(plan, false), Ok)
}
