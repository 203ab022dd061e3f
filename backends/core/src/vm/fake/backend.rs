//! The backend.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::image::FakeImage;
use super::machine::FakeMachine;
use crate::backend::{Backend, Machine, SnapshotImage};
use crate::capabilities::{Capabilities, Capability};
use crate::error::{Code, Error, Result};
use crate::saved::{Progress, Saved};
use crate::spec::{BootSource, Identity, MachineSpec};

/// How guests and machines behave.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is one fault that a test switches on")]
pub(in super::super) struct Behaviour {
    pub(in super::super) version: u32,
    pub(in super::super) dials: bool,
    pub(in super::super) crashes_on_boot: bool,
    pub(in super::super) heeds_shutdown: bool,
    pub(in super::super) heeds_power_button: bool,
    pub(in super::super) confirms_life: bool,
    pub(in super::super) restore_fails: bool,
    pub(in super::super) balloon_moves: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            version: vmoon_protocol::VERSION,
            dials: true,
            crashes_on_boot: false,
            heeds_shutdown: true,
            heeds_power_button: true,
            confirms_life: true,
            restore_fails: false,
            balloon_moves: true,
        }
    }
}

#[derive(Debug)]
pub(in super::super) struct FakeBackend {
    name: &'static str,
    behaviour: Behaviour,
    /// Why it does not work here.
    pub(in super::super) absent: Option<&'static str>,
    pub(in super::super) capabilities: Capabilities,
    machines: Mutex<Vec<Arc<FakeMachine>>>,
}

impl FakeBackend {
    pub(in super::super) fn new(name: &'static str, behaviour: Behaviour) -> Self {
        let yes = Capability::Yes;
        Self {
            name,
            behaviour,
            absent: None,
            capabilities: Capabilities {
                snapshot: yes.clone(),
                fork: yes.clone(),
                save: yes.clone(),
                vsock: yes.clone(),
                balloon: yes.clone(),
                balloon_reclaims_host_memory: yes.clone(),
                entropy: yes.clone(),
                disks: yes.clone(),
                qcow2: yes.clone(),
                shares: Capability::no("it has no file system device"),
                net: Capability::no("it has no network device"),
                rosetta: Capability::no("needs Apple silicon"),
                faults: Capability::no("nothing here can break"),
                linux: yes,
                max_cpus: 4,
            },
            machines: Mutex::default(),
        }
    }

    /// The other side of the machine that was created as this one in turn.
    pub(in super::super) fn machine(&self, index: usize) -> Arc<FakeMachine> {
        self.machines.lock().unwrap()[index].clone()
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        self.name
    }

    fn probe(&self) -> Result<()> {
        match self.absent {
            None => Ok(()),
            Some(reason) => Err(Error::new(Code::BackendUnavailable, reason).with_hint("try more")),
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    async fn create(
        &self,
        spec: Arc<MachineSpec>,
        _: Identity,
        _: BootSource,
    ) -> Result<Arc<dyn Machine>> {
        let machine = FakeMachine::new(self.behaviour.clone(), spec.memory);
        self.machines.lock().unwrap().push(machine.clone());
        Ok(machine)
    }

    async fn load(&self, saved: Saved, progress: Progress) -> Result<Arc<dyn SnapshotImage>> {
        saved.verify(&progress)?;
        Ok(Arc::new(FakeImage::load(&saved, self.behaviour.clone())))
    }
}
