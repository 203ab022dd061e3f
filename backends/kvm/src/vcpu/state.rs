//! The state of one vCPU: saved while it is paused, put back in the order that KVM needs.

use kvm_bindings::{
    Msrs, Xsave, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{SyncReg, VcpuFd};
use serde::{Deserialize, Serialize};
use vmoon_core::{Code, Error, Result};

use super::msrs;
use crate::vm::host::KvmHost;
use crate::vm::shell::shortage;

/// All that a vCPU holds but its CPUID, which never changes while a machine lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(
    clippy::unsafe_derive_deserialize,
    reason = "its unsafe call relies on a length that loading checks"
)]
pub(crate) struct VcpuState {
    mp_state: kvm_mp_state,
    registers: kvm_regs,
    special_registers: kvm_sregs,
    extended_state: Xsave,
    /// None where vCPUs have no XSAVE, and so nothing to change.
    extended_controls: Option<kvm_xcrs>,
    debug_registers: kvm_debugregs,
    local_apic: kvm_lapic_state,
    msrs: Msrs,
    events: kvm_vcpu_events,
}

impl VcpuState {
    /// Reads the state of a paused vCPU.
    ///
    /// The order is KVM's: reading the multiprocessing state first makes KVM settle pending INIT
    /// and SIPI; events come last, for the other calls may change them.
    pub(crate) fn save(vcpu: &mut VcpuFd, host: &KvmHost) -> Result<Self> {
        settle_shared_registers(vcpu);
        let mp_state = vcpu.get_mp_state().map_err(|error| failed("KVM_GET_MP_STATE", error))?;
        let registers = vcpu.get_regs().map_err(|error| failed("KVM_GET_REGS", error))?;
        let special_registers = vcpu.get_sregs().map_err(|error| failed("KVM_GET_SREGS", error))?;
        let extended_state = save_extended(vcpu, host.extended_length)?;
        let extended_controls = if host.has_xsave {
            Some(vcpu.get_xcrs().map_err(|error| failed("KVM_GET_XCRS", error))?)
        } else {
            None
        };
        let debug_registers =
            vcpu.get_debug_regs().map_err(|error| failed("KVM_GET_DEBUGREGS", error))?;
        let local_apic = vcpu.get_lapic().map_err(|error| failed("KVM_GET_LAPIC", error))?;
        let msrs = save_msrs(vcpu)?;
        let events =
            vcpu.get_vcpu_events().map_err(|error| failed("KVM_GET_VCPU_EVENTS", error))?;
        Ok(Self {
            mp_state,
            registers,
            special_registers,
            extended_state,
            extended_controls,
            debug_registers,
            local_apic,
            msrs,
            events,
        })
    }

    /// Puts the state back into a paused vCPU that has its CPUID.
    ///
    /// Each call costs microseconds, so there are no more than are needed: general registers and
    /// events travel with the next `KVM_RUN`, and what the guest cannot have changed is left out.
    /// The local APIC comes after the special registers, which hold its mode, and before the
    /// registers that arm its timer, or KVM drops the deadline silently. Injected events are put
    /// in last of all.
    pub(crate) fn restore(&self, vcpu: &mut VcpuFd) -> Result<()> {
        vcpu.set_mp_state(self.mp_state).map_err(|error| failed("KVM_SET_MP_STATE", error))?;
        vcpu.set_sregs(&self.special_registers).map_err(|error| failed("KVM_SET_SREGS", error))?;
        // SAFETY: the buffer came from KVM_GET_XSAVE2 of the same length, or from a manifest that
        // was checked against it.
        unsafe { vcpu.set_xsave2(&self.extended_state) }
            .map_err(|error| failed("KVM_SET_XSAVE", error))?;
        if let Some(controls) = &self.extended_controls {
            vcpu.set_xcrs(controls).map_err(|error| failed("KVM_SET_XCRS", error))?;
        }
        vcpu.set_debug_regs(&self.debug_registers)
            .map_err(|error| failed("KVM_SET_DEBUGREGS", error))?;
        vcpu.set_lapic(&self.local_apic).map_err(|error| failed("KVM_SET_LAPIC", error))?;
        self.restore_msrs(vcpu)?;
        let shared = vcpu.sync_regs_mut();
        shared.regs = self.registers;
        shared.events = self.events;
        vcpu.set_sync_dirty_reg(SyncReg::Register);
        vcpu.set_sync_dirty_reg(SyncReg::VcpuEvents);
        // Tells the guest's watchdog that time stood still, where it has a clock of KVM's.
        if self.has_kvm_clock() {
            vcpu.kvmclock_ctrl().map_err(|error| failed("KVM_KVMCLOCK_CTRL", error))?;
        }
        Ok(())
    }

    /// The length of the extended state in bytes.
    pub(crate) fn extended_length(&self) -> usize {
        size_of::<kvm_bindings::kvm_xsave>() + size_of_val(self.extended_state.as_slice())
    }

    /// Whether the guest has switched its clock of KVM's on.
    fn has_kvm_clock(&self) -> bool {
        let is_on = |entry: &kvm_msr_entry| {
            msrs::KVM_SYSTEM_TIME.contains(&entry.index) && entry.data & msrs::ENABLED != 0
        };
        self.msrs.as_slice().iter().any(is_on)
    }

    fn restore_msrs(&self, vcpu: &VcpuFd) -> Result<()> {
        let entries = self.msrs.as_slice();
        let written = vcpu.set_msrs(&self.msrs).map_err(|error| failed("KVM_SET_MSRS", error))?;
        match entries.get(written) {
            None => Ok(()),
            Some(refused) => Err(Error::new(
                Code::SnapshotIncompatible,
                format!("this host's KVM refuses register {:#x}", refused.index),
            )
            .with_detail("register", refused.index)),
        }
    }
}

/// Puts in what [`VcpuState::restore`] left to a `KVM_RUN` that has not come: with
/// `immediate_exit` set, the call does that and returns.
fn settle_shared_registers(vcpu: &mut VcpuFd) {
    if vcpu.get_kvm_run().kvm_dirty_regs == 0 {
        return;
    }
    vcpu.set_kvm_immediate_exit(1);
    // It ends with EINTR, as asked.
    let _ = vcpu.run();
}

fn save_extended(vcpu: &VcpuFd, length: usize) -> Result<Xsave> {
    let fixed = size_of::<kvm_bindings::kvm_xsave>();
    let extra = length.saturating_sub(fixed).div_ceil(size_of::<u32>());
    let mut state = Xsave::new(extra)
        .map_err(|_| Error::new(Code::GuestPanic, format!("extended state of {length} bytes")))?;
    if extra == 0 {
        // SAFETY: writing a plain structure; the length beside it is not touched.
        unsafe { state.as_mut_fam_struct() }.xsave =
            vcpu.get_xsave().map_err(|error| failed("KVM_GET_XSAVE", error))?;
    } else {
        // SAFETY: the buffer has the length that KVM asks for.
        unsafe { vcpu.get_xsave2(&mut state) }.map_err(|error| failed("KVM_GET_XSAVE2", error))?;
    }
    Ok(state)
}

fn save_msrs(vcpu: &VcpuFd) -> Result<Msrs> {
    let indexes = msrs::saved(vcpu)?;
    let mut list = msrs::list(indexes)?;
    let read = vcpu.get_msrs(&mut list).map_err(|error| failed("KVM_GET_MSRS", error))?;
    if let Some(index) = indexes.get(read) {
        return Err(Error::new(Code::GuestPanic, format!("register {index:#x} cannot be read")));
    }
    let entries = list.as_mut_slice();
    let now = entries
        .iter()
        .find(|entry| entry.index == msrs::TIME_STAMP_COUNTER)
        .map_or(0, |entry| entry.data);
    // A deadline that has passed but whose interrupt is not injected yet reads as zero, and zero
    // means no deadline: put it in the past instead, and the interrupt comes after the restore.
    for entry in entries.iter_mut().filter(|entry| entry.index == msrs::TSC_DEADLINE) {
        if entry.data == 0 {
            entry.data = now;
        }
    }
    Ok(list)
}

/// A call of KVM that must not fail did.
pub(crate) fn failed(call: &'static str, error: kvm_ioctls::Error) -> Error {
    let error = std::io::Error::from(error);
    let shown = match shortage(&error) {
        Some(hint) => {
            Error::new(Code::BackendUnavailable, format!("{call} failed")).with_hint(hint)
        }
        None => Error::new(Code::GuestPanic, format!("{call} failed")),
    };
    shown.with_source(error).with_detail("call", call)
}
