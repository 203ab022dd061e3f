//! A virtual machine with one vCPU, as `vmoon-kvm` boots the micro guest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::registers::{BASE, GSI, MUTE_BALLOON, MUTE_ENTROPY, Registers};

const RAM: usize = 32 << 20;
const GDT: u64 = 0x500;
const ZERO_PAGE: u64 = 0x7000;
const PAGE_TABLES: u64 = 0x9000;
const COMMAND_LINE: u64 = 0x2_0000;
const POWER_OFF: u16 = 0x600;
const PANIC: u16 = 0x505;
const SERIAL: u16 = 0x3f8;
/// Which page an address is in: devices have one each.
const PAGE: u64 = !0xfff;

/// How the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    PowerOff,
    Panic,
    TripleFault,
    Failed,
}

/// What the vCPU's thread shares with the test.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registers: Mutex<Registers>,
    pub(crate) console: Mutex<Vec<u8>>,
    pub(crate) end: Mutex<Option<End>>,
    /// Until this is set the guest waits where it first writes to a device that does nothing.
    pub(crate) released: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn wait_for_release(&self) {
        while !self.released.load(Ordering::Acquire) && !self.stop.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// The machine; dropping it stops the vCPU.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) shared: Arc<Shared>,
    irq: EventFd,
    thread: Option<JoinHandle<()>>,
    _vm: VmFd,
}

impl Machine {
    /// Boots the guest; none, with a word about it, where there is no KVM.
    pub(crate) fn boot(features: u64, cmdline: &str) -> Option<Self> {
        let kvm = match Kvm::new() {
            Ok(kvm) => kvm,
            Err(error) => {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "no /dev/kvm: {error}");
                println!("skipped: /dev/kvm cannot be opened ({error}); load the kvm module");
                return None;
            }
        };
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let vm = kvm.create_vm().unwrap();
        let region = kvm_userspace_memory_region {
            memory_size: RAM as u64,
            userspace_addr: memory.get_host_address(GuestAddress(0)).unwrap() as u64,
            ..kvm_userspace_memory_region::default()
        };
        // SAFETY: the mapping belongs to `memory`, which the machine keeps as long as the VM, and
        // which nothing else maps.
        unsafe { vm.set_user_memory_region(region).unwrap() };
        vm.set_tss_address(0xfffb_d000).unwrap();
        vm.create_irq_chip().unwrap();
        let irq = EventFd::new(0).unwrap();
        vm.register_irqfd(&irq, GSI).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).unwrap();
        vcpu.set_cpuid2(&cpuid).unwrap();

        let entry = load(&memory, vmoon_micro::IMAGE.expect("the guest is built on Linux"));
        let cmdline = format!(
            "virtio_mmio.device=4K@{BASE:#x}:{GSI} vmoon.poweroff={POWER_OFF:#x}:0 {cmdline}"
        );
        describe(&memory, &cmdline);
        enter(&vcpu, &memory, entry);

        let shared = Arc::new(Shared {
            registers: Mutex::new(Registers::new(features)),
            console: Mutex::default(),
            end: Mutex::default(),
            released: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        register_signal_handler(SIGRTMIN(), ignore).unwrap();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || run(vcpu, &theirs));
        Some(Self { memory, shared, irq, thread: Some(thread), _vm: vm })
    }

    /// Interrupts the guest on behalf of the device.
    pub(crate) fn interrupt(&self) {
        self.shared.registers.lock().unwrap().interrupt_status |= 1;
        self.irq.write(1).unwrap();
    }

    /// Waits until the guest has ended.
    pub(crate) fn end(&self) -> End {
        wait("the guest to end", || *self.shared.end.lock().unwrap())
    }

    /// What the guest printed.
    pub(crate) fn console(&self) -> String {
        String::from_utf8_lossy(&self.shared.console.lock().unwrap()).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() {
                thread.kill(SIGRTMIN()).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Polls until `probe` gives something; a generous deadline ends a test that would hang.
pub(crate) fn wait<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Loads the image's segments and returns its entry.
fn load(memory: &GuestMemoryMmap, image: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    let headers = word(32) as usize;
    let count = u16::from_le_bytes([image[56], image[57]]) as usize;
    for header in (0..count).map(|index| headers + 56 * index) {
        if image[header..header + 4] == [1, 0, 0, 0] {
            let (offset, address, size) =
                (word(header + 8) as usize, word(header + 24), word(header + 32) as usize);
            memory.write_slice(&image[offset..offset + size], GuestAddress(address)).unwrap();
        }
    }
    word(24)
}

/// Writes the zero page and the command line.
fn describe(memory: &GuestMemoryMmap, cmdline: &str) {
    memory.write_slice(cmdline.as_bytes(), GuestAddress(COMMAND_LINE)).unwrap();
    memory.write_obj(COMMAND_LINE as u32, GuestAddress(ZERO_PAGE + 0x228)).unwrap();
    memory.write_obj(2u8, GuestAddress(ZERO_PAGE + 0x1e8)).unwrap();
    let ranges = [(0, 0x9_fc00), (0x10_0000, RAM as u64 - 0x10_0000)];
    for (index, (base, size)) in ranges.into_iter().enumerate() {
        let entry = ZERO_PAGE + 0x2d0 + 20 * index as u64;
        memory.write_obj::<u64>(base, GuestAddress(entry)).unwrap();
        memory.write_obj::<u64>(size, GuestAddress(entry + 8)).unwrap();
        memory.write_obj(1u32, GuestAddress(entry + 16)).unwrap();
    }
}

/// Page tables, segments and registers of the 64-bit Linux boot protocol.
fn enter(vcpu: &VcpuFd, memory: &GuestMemoryMmap, entry: u64) {
    memory.write_obj(PAGE_TABLES + 0x1003, GuestAddress(PAGE_TABLES)).unwrap();
    for gib in 0..4u64 {
        let directory = PAGE_TABLES + 0x2000 + gib * 0x1000;
        memory.write_obj(directory + 3, GuestAddress(PAGE_TABLES + 0x1000 + gib * 8)).unwrap();
        for index in 0..512u64 {
            let page = (gib << 30) + (index << 21) + 0x83;
            memory.write_obj(page, GuestAddress(directory + index * 8)).unwrap();
        }
    }
    for (index, entry) in [0u64, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].iter().enumerate()
    {
        memory.write_obj(*entry, GuestAddress(GDT + 8 * index as u64)).unwrap();
    }
    let mut sregs = vcpu.get_sregs().unwrap();
    let data = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x18,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = kvm_segment { selector: 0x10, type_: 11, db: 0, l: 1, ..data };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, 31);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0011, PAGE_TABLES, 0x20, 0x500);
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&kvm_regs { rip: entry, rsi: ZERO_PAGE, rflags: 2, ..kvm_regs::default() })
        .unwrap();
}

fn run(mut vcpu: VcpuFd, shared: &Shared) {
    let mute = [MUTE_BALLOON, MUTE_ENTROPY];
    let mut mute = HashMap::from(mute.map(|(base, _)| (base, Registers::mute(base))));
    let end = loop {
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        match vcpu.run() {
            Ok(VcpuExit::IoOut(SERIAL, data)) => {
                shared.console.lock().unwrap().extend_from_slice(data);
            }
            Ok(VcpuExit::IoOut(POWER_OFF, _)) => break End::PowerOff,
            Ok(VcpuExit::IoOut(PANIC, _)) => break End::Panic,
            Ok(VcpuExit::MmioRead(address, data)) if data.len() == 4 => {
                let value = match mute.get(&(address & PAGE)) {
                    Some(device) => device.read(address & !PAGE),
                    None => shared.registers.lock().unwrap().read(address.wrapping_sub(BASE)),
                };
                data.copy_from_slice(&value.to_le_bytes());
            }
            Ok(VcpuExit::MmioWrite(address, data)) if data.len() == 4 => {
                let value = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
                if let Some(device) = mute.get_mut(&(address & PAGE)) {
                    shared.wait_for_release();
                    device.write(address & !PAGE, value);
                } else {
                    shared.registers.lock().unwrap().write(address.wrapping_sub(BASE), value);
                }
            }
            Ok(VcpuExit::IoOut(..) | VcpuExit::IoIn(..) | VcpuExit::Intr) => {}
            Ok(VcpuExit::Shutdown) => break End::TripleFault,
            Ok(exit) => {
                println!("unexpected exit {exit:?}");
                break End::Failed;
            }
            Err(error) if error.errno() == 4 || error.errno() == 11 => {}
            Err(error) => {
                println!("KVM_RUN: {error}");
                break End::Failed;
            }
        }
    };
    *shared.end.lock().unwrap() = Some(end);
}
