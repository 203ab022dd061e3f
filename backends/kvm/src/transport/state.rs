//! What a snapshot keeps of a transport and its device.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use virtio_queue::QueueT;
use vmoon_core::error::{Code, Error, Result};
use vmoon_virtio::block::BlockState;
use vmoon_virtio::state::STATE_VERSION;
use vmoon_virtio::{DeviceKind, DeviceState, RestoreMode};

use super::mmio::MmioTransport;
use super::queue::SavedQueue;
use super::registers::status;

/// A transport and its device in a snapshot. Cheap to clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TransportState {
    queues: Vec<SavedQueue>,
    queue_select: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    status: u32,
    config_generation: u32,
    interrupt_status: u32,
    broken: Option<String>,
    device: DeviceState,
}

impl TransportState {
    /// The state of the device, if it is a disk.
    pub(crate) fn block(&self) -> Option<&BlockState> {
        match &self.device {
            DeviceState::Block(state) => Some(state),
            _ => None,
        }
    }
}

impl MmioTransport {
    /// The state of the device alone, if it is a disk.
    pub(crate) fn save_block(&self) -> Option<BlockState> {
        if self.device.kind() != DeviceKind::Block {
            return None;
        }
        match self.device.save() {
            DeviceState::Block(state) => Some(state),
            _ => None,
        }
    }

    /// The state of the registers, the queues and the device. To be called while no vCPU runs.
    pub(crate) fn save(&self) -> TransportState {
        TransportState {
            queues: self
                .queues
                .iter()
                .zip(&self.queue_registers)
                .map(|(queue, &registers)| SavedQueue::new(queue, registers))
                .collect(),
            queue_select: self.queue_select,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            driver_features: self.driver_features,
            status: self.status,
            config_generation: self.config_generation,
            interrupt_status: self.interrupt_status.0.load(Ordering::Acquire),
            broken: self.broken.clone(),
            device: self.device.save(),
        }
    }

    /// Goes back to a saved state, after RAM has gone back and while no vCPU runs. The
    /// next [`MmioTransport::host_wake`], which the caller owes it, looks at all queues, since
    /// kicks that were under way at the snapshot are not part of it, and raises an interrupt that
    /// the guest has not acknowledged again.
    ///
    /// # Errors
    /// `snapshot.incompatible` where the state does not fit the device; nothing has changed.
    pub(crate) fn restore(&mut self, state: &TransportState, mode: RestoreMode) -> Result<()> {
        let device = self.device.name().to_owned();
        let incompatible = move |reason: String| {
            Error::new(
                Code::SnapshotIncompatible,
                format!("the snapshot's device {device} does not fit: {reason}"),
            )
        };
        if state.device.version() != STATE_VERSION {
            return Err(incompatible(format!(
                "its state has version {}, this program knows {STATE_VERSION}",
                state.device.version()
            )));
        }
        let offered = self.device.queue_max_sizes();
        if !offered.iter().copied().eq(state.queues.iter().map(|queue| queue.max_size())) {
            return Err(incompatible("its queues have other sizes".to_owned()));
        }
        if state.driver_features & !self.device.features() != 0 {
            return Err(incompatible("it uses features that are not offered".to_owned()));
        }
        let queues = state
            .queues
            .iter()
            .map(|queue| queue.queue(&self.memory))
            .collect::<Result<Vec<_>, _>>()
            .map_err(&incompatible)?;
        self.device
            .restore(&state.device, mode)
            .map_err(|error| incompatible(error.to_string()))?;

        self.queues = queues;
        self.queue_registers.clear();
        self.queue_registers.extend(state.queues.iter().map(|queue| queue.registers()));
        self.queue_select = state.queue_select;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.driver_features = state.driver_features;
        self.status = state.status;
        self.config_generation = state.config_generation;
        self.interrupt_status.0.store(state.interrupt_status, Ordering::Release);
        self.broken.clone_from(&state.broken);
        self.again = 0;
        if self.status & status::DRIVER_OK != 0 {
            for (index, queue) in self.queues.iter().enumerate() {
                self.again |= u64::from(queue.ready()) << index;
            }
        }
        self.interrupt_pending = state.interrupt_status != 0;
        Ok(())
    }
}
