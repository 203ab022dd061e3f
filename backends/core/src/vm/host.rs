//! Makes machines and knows those that live.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError, Weak};

use tokio::sync::watch;

use super::machine::{Parts, Vm};
use super::names::{NameLease, Names};
use super::room::{Place, Room, Tenant};
use super::saving::Works;
use super::{check, choice};
use crate::agent::AgentClient;
use crate::backend::Backend;
use crate::error::{Code, Error, Result};
use crate::guest::{self, GuestImages};
use crate::registry::{CidLease, CidPool};
use crate::spec::{Identity, MachineSpec};
use crate::units::{Bytes, MachineId};

/// The place where machines live: one in a process.
#[derive(Debug)]
pub struct Host {
    backends: Vec<Arc<dyn Backend>>,
    images: GuestImages,
    names: Names,
    cids: CidPool,
    machines: Mutex<Vec<Weak<Vm>>>,
    /// How many machines there have been.
    births: watch::Sender<u64>,
    /// Says once, not for each machine, that they do not run where they run best.
    told: Once,
    /// The memory that it shares with other hosts.
    room: OnceLock<Tenant>,
    /// Whether machines note what they are asked for.
    transcripts: AtomicBool,
    pub(super) works: Works,
}

/// What tells a machine from the others, held until it is closed.
#[derive(Debug)]
pub(super) struct Leases {
    pub(super) name: NameLease,
    pub(super) cid: CidLease,
    /// Room beside the guests of other hosts.
    pub(super) _place: Option<Place>,
}

impl Leases {
    /// The identity of a machine that is to be made.
    pub(super) fn identity(&self) -> Identity {
        let id = MachineId::random();
        let mac = mac_of(id);
        Identity { id, name: self.name.name().to_owned(), cid: self.cid.cid(), mac }
    }
}

/// A locally administered unicast address from the machine's id (IEEE 802 section 8.2.2).
fn mac_of(id: MachineId) -> [u8; 6] {
    let bytes = id.0.as_bytes();
    [(bytes[0] & 0xfc) | 0x02, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

impl Host {
    /// A host with these backends, in the order in which they are tried.
    pub fn new(backends: Vec<Arc<dyn Backend>>, images: GuestImages) -> Arc<Self> {
        Arc::new(Self {
            backends,
            images,
            names: Names::default(),
            cids: CidPool::default(),
            machines: Mutex::default(),
            births: watch::Sender::default(),
            told: Once::new(),
            room: OnceLock::new(),
            transcripts: AtomicBool::new(false),
            works: Works::default(),
        })
    }

    /// Shares the computer's memory with other hosts: see [`Room`]. Asked once, before there are
    /// machines.
    pub fn share(&self, room: &Arc<Room>) {
        let _ = self.room.set(room.tenant());
    }

    /// Lets machines that are made from now on keep a transcript.
    pub fn keep_transcripts(&self) {
        self.transcripts.store(true, Ordering::Relaxed);
    }

    pub(super) fn keeps_transcripts(&self) -> bool {
        self.transcripts.load(Ordering::Relaxed)
    }

    /// Waits until there is room for a guest of this host beside those of others, and takes it;
    /// none where there are no others. Cancel-safe.
    pub async fn reserve(&self, memory: Bytes) -> Option<Place> {
        match self.room.get() {
            Some(tenant) => Some(tenant.take(memory).await),
            None => None,
        }
    }

    /// The backends, in the order in which they are tried.
    pub fn backends(&self) -> &[Arc<dyn Backend>] {
        &self.backends
    }

    /// The backend of this name, or for none (or `auto`) the first that works here and can do
    /// what the spec asks. Why is told by tracing.
    ///
    /// # Errors
    /// `backend.unavailable` when none works; `backend.unsupported` or `vm.spec` when those that
    /// work cannot do what is asked.
    pub fn choose(&self, wanted: Option<&str>, spec: &MachineSpec) -> Result<Arc<dyn Backend>> {
        choice::choose(&self.backends, wanted, spec).map(|choice| choice.backend)
    }

    /// Reserves a machine; no guest code runs yet.
    ///
    /// # Errors
    /// `vm.spec`, `file.*`, `backend.*`.
    pub async fn create(
        self: &Arc<Self>,
        backend: Option<&str>,
        spec: MachineSpec,
    ) -> Result<Arc<Vm>> {
        check::spec(&spec)?;
        let choice::Choice { backend, passed_over } =
            choice::choose(&self.backends, backend, &spec)?;
        if let Some((other, reason)) = passed_over {
            let name = backend.name();
            self.told.call_once(|| tracing::warn!("machines run on {name}, not {other}: {reason}"));
        }
        let name = self.names.lease(spec.name.as_deref())?;
        let cid = self.cids.lease(spec.vsock.and_then(|vsock| vsock.cid))?;
        let leases = Leases { name, cid, _place: self.reserve(spec.memory).await };
        let identity = leases.identity();
        let spec = Arc::new(spec);
        let boot = {
            let (spec, images) = (spec.clone(), self.images);
            tokio::task::spawn_blocking(move || guest::resolve(&spec, &images)).await.map_err(
                |error| {
                    Error::new(Code::VmSpec, "the guest's files could not be prepared")
                        .with_source(error)
                },
            )??
        };
        let machine = backend.create(spec.clone(), identity.clone(), boot).await?;
        // From here on a failure must close the machine.
        let agent = if spec.agent && spec.vsock.is_some() {
            AgentClient::attach(machine.clone(), spec.timeout)
                .await
                .inspect_err(|_| machine.close())
                .map(Some)?
        } else {
            None
        };
        Ok(self.register(Vm::new(Parts {
            host: self.clone(),
            backend,
            spec,
            identity,
            leases,
            machine,
            agent,
            origin: None,
        })))
    }

    /// Creates a machine, starts it and waits until it is ready. When that fails the machine is
    /// closed, and the error carries the end of what the guest printed.
    ///
    /// # Errors
    /// Those of [`Host::create`], `vm.timeout`, `guest.panic`, `guest.stopped`.
    pub async fn boot(
        self: &Arc<Self>,
        backend: Option<&str>,
        spec: MachineSpec,
    ) -> Result<Arc<Vm>> {
        let vm = self.create(backend, spec).await?;
        // Dropped on every way out but the last: a boot that fails or is abandoned leaves nothing.
        let rollback = CloseOnDrop(&vm);
        vm.start().await?;
        vm.wait_ready(vm.spec().timeout).await?;
        std::mem::forget(rollback);
        Ok(vm)
    }

    /// The live machines, oldest first.
    pub fn list(&self) -> Vec<Arc<Vm>> {
        self.lock().iter().filter_map(Weak::upgrade).filter(|vm| !vm.is_closed()).collect()
    }

    /// How many machines there have been, as it grows: wakes who wants to see new ones.
    pub fn births(&self) -> watch::Receiver<u64> {
        self.births.subscribe()
    }

    /// The live machine with this id or name.
    pub fn get(&self, id_or_name: &str) -> Option<Arc<Vm>> {
        self.list()
            .into_iter()
            .find(|vm| vm.name() == id_or_name || vm.id().to_string() == id_or_name)
    }

    /// Closes every machine, synchronously, and lets works on files that were stopped remove what
    /// they began; for Ctrl-C and exit.
    pub fn close_all(&self) {
        for vm in self.list() {
            vm.close();
        }
        self.works.wait();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Vm>>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a machine known. The registry does not keep it alive.
    pub(super) fn register(&self, vm: Vm) -> Arc<Vm> {
        let vm = Arc::new(vm);
        let mut machines = self.lock();
        machines.retain(|known| known.strong_count() > 0);
        machines.push(Arc::downgrade(&vm));
        drop(machines);
        self.births.send_modify(|births| *births += 1);
        vm
    }

    /// Takes a name, a CID and room for a fork of `parent`.
    pub(super) async fn lease_fork(&self, parent: &str, memory: Bytes) -> Result<Leases> {
        Ok(Leases {
            name: self.names.lease_fork(parent),
            cid: self.cids.lease(None)?,
            _place: self.reserve(memory).await,
        })
    }
}

struct CloseOnDrop<'a>(&'a Arc<Vm>);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_locally_administered_and_unicast() {
        for _ in 0..64 {
            assert_eq!(mac_of(MachineId::random())[0] & 0b11, 0b10);
        }
    }
}
