//! Connections that are cut on purpose, and which are slow.

use vmoon_core::error::{Code, Error};
use vmoon_core::faults::{VsockEffect, VsockRule};

use super::device::VsockDevice;
use super::packet::Ports;
use crate::faults::Active;

/// Whether a rule cuts by now.
fn cuts(active: &Active<VsockRule>) -> bool {
    active.rule.effect == VsockEffect::Cut && active.seen >= active.rule.after
}

impl VsockDevice {
    /// Whether a connection between these ports may not be made; counts it.
    pub(super) fn is_barred(&self, ports: Ports) -> bool {
        if !self.faults.any() {
            return false;
        }
        let mut rules = self.faults.lock();
        let concerns = |active: &&mut Active<VsockRule>| {
            cuts(active) && active.rule.concerns(ports.host, ports.guest)
        };
        let Some(active) = rules.iter_mut().find(concerns) else { return false };
        active.hits += 1;
        true
    }

    /// Bytes have passed on a connection: a rule that counts them may cut from now on.
    pub(super) fn passed(&mut self, ports: Ports, length: u32) {
        if !self.faults.any() {
            return;
        }
        let mut met = false;
        for active in self.faults.lock().iter_mut() {
            if active.rule.concerns(ports.host, ports.guest) {
                let before = active.seen;
                active.seen = before.saturating_add(length.into());
                met |= before < active.rule.after && active.seen >= active.rule.after;
            }
        }
        if met {
            self.obey_rules();
        }
        self.cut_by_rule();
    }

    /// Cuts the connections that a rule is about, on both sides.
    pub(super) fn cut_by_rule(&mut self) {
        if !self.faults.any() {
            return;
        }
        let rules = self.faults.clone();
        for active in rules.lock().iter_mut().filter(|active| cuts(active)) {
            let concerned = |ports: Ports| active.rule.concerns(ports.host, ports.guest);
            let serials = self.table.established(concerned);
            active.hits += serials.len() as u64;
            for serial in serials {
                self.table.cut(serial);
            }
        }
    }
}

/// The error for a host that wants a connection which may not be made.
pub(super) fn barred() -> Error {
    Error::new(Code::VsockReset, "the connection is cut by a fault")
        .with_hint("the fault's close() mends it, as does vm.faults:clear()")
}
