//! The tables with a fixed form, and their way into guest memory.

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::{Bytes, GuestAddress, GuestMemory};
use vmoon_core::{Code, Error, Result};

use super::dsdt;
use crate::boot::layout;
use crate::legacy::ports;

const OEM: [u8; 6] = *b"VMOON ";
const OEM_TABLE: [u8; 8] = *b"VMOONTBL";
const OEM_REVISION: u32 = 1;
/// Length of the header that all tables but the RSDP begin with (ACPI 6.5 section 5.2.6).
const HEADER_SIZE: u32 = 36;
/// `IAPC_BOOT_ARCH`: there is no VGA to probe (section 5.2.9.3).
const VGA_NOT_PRESENT: u16 = 1 << 2;
/// Tables begin at multiples of this.
const ALIGNMENT: u64 = 16;

/// What the tables describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AcpiDescription {
    /// Number of vCPUs; their local APIC ids count from 0.
    pub cpus: u32,
    /// Number of virtio-mmio devices, placed as [`layout`] says.
    pub virtio_devices: u32,
}

/// Writes all tables at [`layout::ACPI_TABLES`] and returns the address of the first, the RSDP.
///
/// # Errors
/// `vm.spec` when there are more vCPUs or devices than the platform has room for.
pub(crate) fn write_tables<M: GuestMemory>(
    memory: &M,
    description: AcpiDescription,
) -> Result<GuestAddress> {
    if description.cpus == 0 || description.cpus > layout::MAX_CPUS {
        return Err(Error::new(
            Code::VmSpec,
            format!("{} vCPUs are not between 1 and {}", description.cpus, layout::MAX_CPUS),
        ));
    }
    if description.virtio_devices > layout::VIRTIO_MMIO_MAX_DEVICES {
        return Err(Error::new(
            Code::VmSpec,
            format!(
                "a machine has at most {} devices; this one needs {}",
                layout::VIRTIO_MMIO_MAX_DEVICES,
                description.virtio_devices
            ),
        )
        .with_hint("give it fewer disks"));
    }
    let bytes = build(layout::ACPI_TABLES, description);
    if bytes.len() as u64 > layout::ACPI_TABLES_SIZE {
        return Err(Error::new(Code::VmSpec, "the ACPI tables do not fit into their place"));
    }
    memory.write_slice(&bytes, layout::ACPI_TABLES).map_err(|error| {
        Error::new(Code::VmSpec, "the machine's memory has no room for ACPI tables")
            .with_source(error)
    })?;
    Ok(layout::ACPI_TABLES)
}

/// All tables, one after the other, as they are at `base`.
fn build(base: GuestAddress, description: AcpiDescription) -> Vec<u8> {
    // The RSDP's place is first but its content is known last.
    let mut tables = Tables { base: base.0, bytes: vec![0; Rsdp::len()] };
    let dsdt = tables.add(&dsdt(description.virtio_devices));
    let fadt = tables.add(&fadt(dsdt));
    let madt = tables.add(&madt(description.cpus));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = tables.add(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    for (place, byte) in tables.bytes.iter_mut().zip(rsdp) {
        *place = byte;
    }
    tables.bytes
}

struct Tables {
    base: u64,
    bytes: Vec<u8>,
}

impl Tables {
    /// Appends a table and returns its address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        while !(self.bytes.len() as u64).is_multiple_of(ALIGNMENT) {
            self.bytes.push(0);
        }
        let address = self.base + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

fn dsdt(virtio_devices: u32) -> Sdt {
    // Revision 2: integers have 64 bits.
    let mut table = Sdt::new(*b"DSDT", HEADER_SIZE, 2, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&dsdt::body(virtio_devices));
    table
}

/// An 8-bit register in the port space.
fn port(address: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, address.into())
}

/// The fixed description table of a hardware-reduced platform (section 5.2.9). Without
/// `PCAT_COMPAT` in the MADT and with these flags Linux leaves the PIT, the 8259 and the keyboard
/// controller alone; its clock is kvmclock, its timer the local APIC's.
fn fadt(dsdt: u64) -> acpi_tables::fadt::FADT {
    let mut table = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .flag(Flags::HwReducedAcpi);
    table.iapc_boot_arch = VGA_NOT_PRESENT.into();
    table.reset_reg = port(ports::RESET);
    table.reset_value = ports::RESET_VALUE;
    table.sleep_control_reg = port(ports::SLEEP_CONTROL);
    table.sleep_status_reg = port(ports::SLEEP_STATUS);
    table.hypervisor_vendor_identity = u64::from_le_bytes(*b"VMOON\0\0\0").into();
    table.finalize()
}

/// The interrupt controllers (section 5.2.12): a local APIC for every vCPU, and KVM's I/O APIC,
/// whose inputs are the GSIs. ISA interrupts need no overrides: each device names its own mode.
fn madt(cpus: u32) -> MADT {
    let local = LocalInterruptController::Address(layout::LOCAL_APIC);
    let mut table = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    for index in 0..cpus {
        // The caller has checked that there are fewer than 255.
        let id = u8::try_from(index).unwrap_or(u8::MAX);
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(0, layout::IO_APIC, 0));
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vm_memory::GuestMemoryMmap;

    use super::*;

    fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
        bytes[offset..offset + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// Walks the tables from the RSDP as a guest does and returns each with its signature.
    fn walk(bytes: &[u8], base: u64) -> Vec<(String, Vec<u8>)> {
        let table = |address: u64| {
            assert_eq!(address % ALIGNMENT, 0);
            let start = usize::try_from(address - base).unwrap();
            let length = usize::try_from(number(bytes, start + 4, 4)).unwrap();
            let table = bytes[start..start + length].to_vec();
            assert_eq!(sum(&table), 0, "checksum");
            (String::from_utf8(table[..4].to_vec()).unwrap(), table)
        };
        assert!(bytes.starts_with(b"RSD PTR "));
        assert_eq!((sum(&bytes[..20]), sum(&bytes[..36])), (0, 0));
        let xsdt = table(number(bytes, 24, 8));
        let mut tables = vec![xsdt.clone()];
        for entry in xsdt.1[36..].as_chunks::<8>().0 {
            tables.push(table(u64::from_le_bytes(*entry)));
        }
        let fadt = tables.iter().find(|(name, _)| name == "FACP").unwrap();
        tables.push(table(number(&fadt.1, 140, 8)));
        tables
    }

    proptest! {
        #[test]
        fn checksums_and_pointers_are_right(
            cpus in 1..=layout::MAX_CPUS,
            virtio_devices in 0..=layout::VIRTIO_MMIO_MAX_DEVICES,
        ) {
            let base = layout::ACPI_TABLES;
            let memory =
                GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
            let description = AcpiDescription { cpus, virtio_devices };
            prop_assert_eq!(write_tables(&memory, description).unwrap(), base);
            let mut bytes = vec![0; usize::try_from(layout::ACPI_TABLES_SIZE).unwrap()];
            memory.read_slice(&mut bytes, base).unwrap();
            let tables = walk(&bytes, base.0);
            let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
            prop_assert_eq!(names, ["XSDT", "FACP", "APIC", "DSDT"]);
            let devices = tables[3].1.windows(8).filter(|window| window == b"LNRO0005").count();
            prop_assert_eq!(devices, virtio_devices as usize);
            prop_assert_eq!(tables[2].1.len(), 44 + 8 * cpus as usize + 12);
        }
    }

    #[test]
    fn the_fixed_table_says_hardware_reduced_and_names_the_power_registers() {
        let description = AcpiDescription { cpus: 1, virtio_devices: 0 };
        let bytes = build(layout::ACPI_TABLES, description);
        let tables = walk(&bytes, layout::ACPI_TABLES.0);
        let fadt = &tables[1].1;
        assert_ne!(number(fadt, 112, 4) & (1 << 20), 0);
        assert_eq!(number(fadt, 116 + 4, 8), u64::from(ports::RESET));
        assert_eq!(number(fadt, 244 + 4, 8), u64::from(ports::SLEEP_CONTROL));
        assert_eq!(number(fadt, 256 + 4, 8), u64::from(ports::SLEEP_STATUS));
    }

    #[test]
    fn too_many_devices_are_refused() {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        for description in [
            AcpiDescription { cpus: 0, virtio_devices: 0 },
            AcpiDescription { cpus: 255, virtio_devices: 0 },
            AcpiDescription { cpus: 1, virtio_devices: 15 },
        ] {
            let error = write_tables(&memory, description).unwrap_err();
            assert_eq!(error.code(), Code::VmSpec);
        }
    }
}
