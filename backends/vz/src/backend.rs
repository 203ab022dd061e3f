//! Virtualization.framework as a backend.

use std::sync::Arc;

use async_trait::async_trait;
use vmoon_core::backend::{Backend, SnapshotImage};
use vmoon_core::saved::{Progress, Saved};
use vmoon_core::spec::{Identity, MachineSpec};
use vmoon_core::{BootSource, Capabilities, Machine, Result};

use crate::framework::Framework;
use crate::machine::birth::{self, Origin};
use crate::plan::Plan;
use crate::snapshot::image::blocking;
use crate::snapshot::{VzSnapshot, saved};

/// Apple's hypervisor.
#[derive(Debug)]
pub struct VzBackend {
    framework: Arc<dyn Framework>,
}

impl VzBackend {
    /// The backend on Virtualization.framework; it is not asked anything yet.
    #[cfg(target_os = "macos")]
    pub fn new() -> Self {
        Self::with_framework(Arc::new(crate::macos::Virtualization))
    }

    /// The backend on another framework: for tests.
    pub fn with_framework(framework: Arc<dyn Framework>) -> Self {
        Self { framework }
    }
}

#[cfg(target_os = "macos")]
impl Default for VzBackend {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for VzBackend {
    fn name(&self) -> &'static str {
        "vz"
    }

    fn probe(&self) -> Result<()> {
        self.framework.facts().probe()
    }

    fn capabilities(&self) -> Capabilities {
        self.framework.facts().capabilities()
    }

    async fn create(
        &self,
        spec: Arc<MachineSpec>,
        identity: Identity,
        boot: BootSource,
    ) -> Result<Arc<dyn Machine>> {
        let plan = Arc::new(Plan::new(&spec, &identity, &boot, &self.framework.facts())?);
        let origin = Origin::Boot(Box::new(boot));
        Ok(Arc::new(birth::bear(self.framework.clone(), plan, origin).await?))
    }

    async fn load(&self, saved: Saved, progress: Progress) -> Result<Arc<dyn SnapshotImage>> {
        let facts = self.framework.facts();
        let frozen = blocking(move || saved::read(&saved, &facts, &progress)).await?;
        Ok(Arc::new(VzSnapshot { frozen: Arc::new(frozen), framework: self.framework.clone() }))
    }
}
