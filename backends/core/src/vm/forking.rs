//! New machines from a snapshot.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::machine::{Parts, Vm};
use super::snapshot::{RestoreOptions, Snapshot};
use super::tree::Origin;
use crate::agent::AgentClient;
use crate::backend::{self, Forked};
use crate::error::{Error, Result};
use crate::spec::MachineSpec;

/// How long a fork has to confirm its new life.
const LIFE_DEADLINE: Duration = Duration::from_secs(10);

impl Snapshot {
    /// New machines in the snapshot's state, sharing its memory copy-on-write, each with a name,
    /// an id, a CID, fresh entropy and the wall clock of its own. They run if the snapshot was
    /// taken of a running machine, unless the options say otherwise.
    ///
    /// # Errors
    /// `snapshot.not_found`, `backend.unsupported`, and `snapshot.entropy` when a guest does not
    /// confirm its new life; then none of the machines is left.
    pub async fn fork(&self, count: usize, options: RestoreOptions) -> Result<Vec<Arc<Vm>>> {
        self.check_exists()?;
        self.check_can_fork(count)?;
        let deterministic = options.deterministic || self.deterministic;
        // All at once: most of a birth is waiting for the kernel. Those whose births are given up
        // on are closed by whoever was to hold them.
        let births = (0..count).map(|_| self.fork_one(deterministic));
        let mut forks = Forks(try_join_all(births).await?);
        if !self.figures().paused && !options.paused {
            self.wake(&forks.0, deterministic).await?;
        }
        Ok(std::mem::take(&mut forks.0))
    }

    /// One machine of a snapshot whose own machine is gone is that machine brought back, which
    /// whoever can save can do.
    fn check_can_fork(&self, count: usize) -> Result<()> {
        let backend = &self.source.backend;
        let capabilities = backend.capabilities();
        let revives = count == 1 && self.source.vm.strong_count() == 0;
        let needed = if revives && !capabilities.fork.is_yes() {
            &capabilities.save
        } else {
            &capabilities.fork
        };
        backend::check_capability(backend.name(), "a fork", needed)
    }

    async fn fork_one(&self, deterministic: bool) -> Result<Arc<Vm>> {
        let source = &self.source;
        let leases = source.host.lease_fork(&source.name, source.spec.memory).await?;
        let identity = leases.identity();
        let forked = self.image.fork(identity.clone(), deterministic).await?;
        let machine = forked.machine.clone();
        let (agent, memo) =
            self.adopt(forked, deterministic).await.inspect_err(|_: &Error| machine.close())?;
        let spec = MachineSpec { name: Some(identity.name.clone()), ..(*source.spec).clone() };
        Ok(source.host.register(Vm::new(Parts {
            host: source.host.clone(),
            backend: source.backend.clone(),
            spec: Arc::new(spec),
            identity,
            leases,
            machine,
            agent,
            origin: Some(Origin { snapshot: self.id, memo }),
        })))
    }

    async fn adopt(
        &self,
        forked: Forked,
        deterministic: bool,
    ) -> Result<(Option<AgentClient>, Option<crate::agent::Memo>)> {
        let Some(memo) = &self.memo else {
            return Ok((None, None));
        };
        let patience = self.source.spec.timeout;
        let (agent, memo) =
            AgentClient::adopt(forked.machine, patience, memo, forked.connections, !deterministic)
                .await?;
        Ok((Some(agent), Some(memo)))
    }

    /// Lets the machines run. Each hears of its new life before it does anything else; all of
    /// them confirm it at the same time. Deterministic ones hear nothing.
    async fn wake(&self, forks: &[Arc<Vm>], deterministic: bool) -> Result<()> {
        // An agent that had not announced itself yet hears of it with its first command.
        let serves = !deterministic && self.memo.as_ref().is_some_and(crate::agent::Memo::is_ready);
        let mut confirmations = Vec::new();
        for vm in forks {
            if let Some(agent) = vm.agent.as_ref().filter(|_| serves) {
                confirmations.push(agent.renew_life(LIFE_DEADLINE)?);
            }
        }
        for vm in forks {
            vm.resume().await?;
        }
        for confirmed in confirmations {
            confirmed.await?;
        }
        Ok(())
    }
}

/// Machines that are closed unless all of them came to life.
struct Forks(Vec<Arc<Vm>>);

impl Drop for Forks {
    fn drop(&mut self) {
        for vm in &self.0 {
            vm.close();
        }
    }
}
