//! Snapshots, in memory and on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::backend::Behaviour;
use super::disk::FakeDisk;
use super::machine::{FakeMachine, Frozen};
use crate::backend::{Forked, SnapshotFigures, SnapshotImage};
use crate::disk::DiskContents;
use crate::error::Result;
use crate::lifecycle::State;
use crate::saved::manifest::FORMAT;
use crate::saved::{Manifest, Progress, Saved, Writer};
use crate::spec::Identity;
use crate::units::{Bytes, SnapshotId, VsockPort};
use crate::vsock::ConnectionId;

#[derive(Clone, Debug)]
pub(super) struct FakeImage {
    pub(super) id: SnapshotId,
    pub(super) frozen: Frozen,
    pub(super) behaviour: Behaviour,
    pub(super) memory: Bytes,
}

impl FakeImage {
    pub(super) fn load(saved: &Saved, behaviour: Behaviour) -> Self {
        let manifest = saved.manifest();
        let ports: Vec<(u32, u32)> = serde_json::from_value(manifest.machine.clone()).unwrap();
        let id = |(host, guest)| ConnectionId { host: VsockPort(host), guest: VsockPort(guest) };
        let state = if manifest.paused { State::Paused } else { State::Running };
        let frozen = Frozen { state, connections: ports.into_iter().map(id).collect() };
        Self { id: manifest.id, frozen, behaviour, memory: manifest.memory }
    }
}

#[async_trait]
impl SnapshotImage for FakeImage {
    fn id(&self) -> SnapshotId {
        self.id
    }

    fn figures(&self) -> SnapshotFigures {
        let paused = self.frozen.state == State::Paused;
        SnapshotFigures { dirty_pages: 7, bytes: Bytes::kib(28), paused }
    }

    async fn fork(&self, _: Identity, _: bool) -> Result<Forked> {
        let (machine, connections) = FakeMachine::fork(self);
        Ok(Forked { machine, connections, snapshot: Arc::new(self.clone()) })
    }

    async fn disk(&self, _: usize) -> Result<Arc<dyn DiskContents>> {
        Ok(Arc::new(FakeDisk))
    }

    async fn save(
        &self,
        directory: &Path,
        annotations: serde_json::Value,
        progress: Progress,
    ) -> Result<()> {
        let mut writer = Writer::begin(directory, progress)?;
        writer.write("memory", &[7; 10_000])?;
        let connections = self.frozen.connections.iter();
        let ports: Vec<(u32, u32)> = connections.map(|id| (id.host.0, id.guest.0)).collect();
        writer.commit(Manifest {
            format: FORMAT,
            backend: "fake".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            id: self.id,
            memory: self.memory,
            paused: self.figures().paused,
            machine: serde_json::to_value(ports).unwrap(),
            annotations,
            parts: BTreeMap::new(),
        })
    }
}
