//! A new machine from a frozen one, sharing memory copy-on-write.

use std::sync::Arc;

use vmoon_core::Result;
use vmoon_core::backend::{Forked, RestoreOptions};
use vmoon_core::spec::Identity;

use super::frozen::{Frozen, KvmSnapshot};
use crate::machine::birth::Origin;
use crate::machine::spare;

/// Makes the machine, paused.
pub(crate) async fn fork(
    frozen: Arc<Frozen>,
    identity: Identity,
    deterministic: bool,
) -> Result<Forked> {
    frozen.memory.base().check()?;
    let origin = Origin::Snapshot(frozen.clone(), RestoreOptions { paused: true, deterministic });
    let (machine, connections) =
        spare::take(&frozen.plan)?.bear(frozen.plan.clone(), origin, &identity).await?;
    Ok(Forked { machine: Arc::new(machine), connections, snapshot: Arc::new(KvmSnapshot(frozen)) })
}
