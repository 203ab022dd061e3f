//! What the host can do at best: the same calls of KVM and the same copies, one after the other on
//! one thread, without a machine around them. `vmoon bench` quotes its figures beside these, from
//! the same run.

use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuFd, VmFd};
use rustix::mm::MapFlags;
use vmoon_core::{Bytes, Code, Error, MachineSpec, Result};

use crate::memory::PAGE_SIZE;
use crate::memory::mapping::Mapping;
use crate::memory::ram::Ram;
use crate::vcpu::state::VcpuState;
use crate::vm::hardware;
use crate::vm::host::KvmHost;
use crate::vm::plan::Plan;
use crate::vm::shell::cannot;
use crate::vm::state::ChipsetState;

/// A bare virtual machine with one vCPU, to measure on.
#[derive(Debug)]
pub struct Floor {
    vcpu: VcpuFd,
    vm: VmFd,
    vcpu_state: VcpuState,
    chipset: ChipsetState,
    /// The pages to copy from.
    source: Mapping,
    /// Which pages to copy to, scattered over `ram`.
    pages: Vec<usize>,
    ram: Ram,
    host: &'static KvmHost,
}

impl Floor {
    /// A machine with `memory` bytes of RAM of which `dirty_pages` scattered pages change.
    ///
    /// # Errors
    /// `backend.unavailable` without a usable KVM; `vm.spec` when there are more dirty pages than
    /// pages.
    pub fn new(memory: Bytes, dirty_pages: usize) -> Result<Self> {
        let host = KvmHost::get()?;
        let plan = Plan::new(&MachineSpec { memory, ..MachineSpec::default() }, host);
        let ram = Ram::new(plan.memory).map_err(|error| cannot("map memory", error.into()))?;
        if dirty_pages == 0 || dirty_pages > ram.pages() {
            let pages = ram.pages();
            return Err(Error::new(
                Code::VmSpec,
                format!("{dirty_pages} dirty pages of {pages} cannot be measured"),
            ));
        }
        let vm = hardware::create_vm(host, &ram)?;
        let mut vcpu = hardware::create_vcpu(&vm, 0, &plan.cpuid[0])?;
        let source = Mapping::anonymous(dirty_pages * PAGE_SIZE, MapFlags::POPULATE)
            .map_err(|error| cannot("map memory", error.into()))?;
        // Fibonacci hashing scatters them without repeats over a power of two of pages.
        let stride = (ram.pages() * 618 / 1000) | 1;
        let pages: Vec<usize> =
            (0..dirty_pages).map(|index| index.wrapping_mul(stride) % ram.pages()).collect();
        let floor = Self {
            vcpu_state: VcpuState::save(&mut vcpu, host)?,
            chipset: ChipsetState::save(&vm)?,
            vcpu,
            vm,
            source,
            pages,
            ram,
            host,
        };
        // Once, so that no page is touched for the first time while it is measured.
        floor.copy_back();
        Ok(floor)
    }

    fn copy_back(&self) {
        for (index, page) in self.pages.iter().enumerate() {
            // SAFETY: whole pages of two mappings of our own, which nobody else knows.
            unsafe {
                let source = self.source.start().add(index * PAGE_SIZE);
                self.ram.page(*page).copy_from_nonoverlapping(source, PAGE_SIZE);
            }
        }
    }

    /// The time to put back the pages and the state.
    pub fn restore(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.copy_back();
        self.vcpu_state.restore(&mut self.vcpu)?;
        self.chipset.restore(&self.vm)?;
        Ok(begun.elapsed())
    }

    /// The time to read the state and to copy the pages out.
    pub fn snapshot(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        VcpuState::save(&mut self.vcpu, self.host)?;
        ChipsetState::save(&self.vm)?;
        for (index, page) in self.pages.iter().enumerate() {
            // SAFETY: as in `copy_back`.
            unsafe {
                let target = self.source.start().add(index * PAGE_SIZE);
                target.copy_from_nonoverlapping(self.ram.page(*page), PAGE_SIZE);
            }
        }
        Ok(begun.elapsed())
    }

    /// The time to make another bare machine of the same size, in the state of this one.
    pub fn fork(&self) -> Result<Duration> {
        let cpuid = self
            .vcpu
            .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(|error| crate::vcpu::state::failed("KVM_GET_CPUID2", error))?;
        let begun = Instant::now();
        let ram = Ram::new(self.ram.pages() * PAGE_SIZE)
            .map_err(|error| cannot("map memory", error.into()))?;
        let vm = hardware::create_vm(self.host, &ram)?;
        let mut vcpu = hardware::create_vcpu(&vm, 0, &cpuid)?;
        self.vcpu_state.restore(&mut vcpu)?;
        self.chipset.restore(&vm)?;
        Ok(begun.elapsed())
    }
}
