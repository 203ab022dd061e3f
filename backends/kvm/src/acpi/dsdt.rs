//! The differentiated system description table: the devices (ACPI 6.5 sections 5.2.11.1 and 6).

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Device, EISAName, Equal, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, ONE, OpRegion,
    OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store, ZERO,
};

use crate::boot::layout;
use crate::legacy::ports;

/// Status of a device that is present, enabled, shown and working (section 6.3.7).
const PRESENT: u8 = 0xf;
/// Notification that the power button was pressed (section 5.6.6, table 5.170).
const POWER_BUTTON_PRESSED: u8 = 0x80;

/// The table's body: everything after its header.
pub(super) fn body(virtio_devices: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for index in 0..virtio_devices {
        body.extend(in_system_bus(&virtio_mmio(index)));
    }
    for device in [serial_port(), clock(), panic_device(), power_button(), event_device()] {
        body.extend(in_system_bus(&device));
    }
    let off = [&ports::SLEEP_TYPE_OFF as &dyn Aml, &ZERO, &ZERO, &ZERO];
    Name::new("_S5_".into(), &Package::new(off.to_vec())).to_aml_bytes(&mut body);
    body
}

fn in_system_bus(device: &[u8]) -> Vec<u8> {
    Scope::raw("_SB_".into(), device.to_vec())
}

fn bytes(aml: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    aml.to_aml_bytes(&mut bytes);
    bytes
}

/// An edge-triggered, active-high interrupt of a device.
fn interrupt(gsi: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, gsi)
}

/// The ports from `first` on. The encoding has no place for more than 255 of them.
fn io(first: u16, count: u8) -> IO {
    IO::new(first, first, 1, count)
}

/// A virtio-mmio device, as Linux's driver matches it.
fn virtio_mmio(index: u32) -> Vec<u8> {
    // All of them lie below 4 GiB.
    let base = u32::try_from(layout::virtio_mmio_address(index).0).unwrap_or_default();
    let size = u32::try_from(layout::VIRTIO_MMIO_SIZE).unwrap_or_default();
    bytes(&Device::new(
        format!("V{index:03X}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &index),
            // The device's accesses to memory are coherent with the processors' caches.
            &Name::new("_CCA".into(), &ONE),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, base, size),
                    &interrupt(layout::virtio_mmio_gsi(index)),
                ]),
            ),
        ],
    ))
}

fn serial_port() -> Vec<u8> {
    bytes(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_DDN".into(), &"COM1"),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&interrupt(layout::SERIAL_GSI), &io(ports::SERIAL, 8)]),
            ),
        ],
    ))
}

/// The real-time clock. It has no alarm and therefore no interrupt.
fn clock() -> Vec<u8> {
    bytes(&Device::new(
        "RTC_".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io(ports::CMOS_INDEX, 2)])),
        ],
    ))
}

/// QEMU's `pvpanic`, whose Linux driver matches this name.
fn panic_device() -> Vec<u8> {
    bytes(&Device::new(
        "PEVT".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_STA".into(), &PRESENT),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io(ports::PANIC, 1)])),
        ],
    ))
}

/// The power button as a device of its own, as hardware-reduced platforms have it.
fn power_button() -> Vec<u8> {
    bytes(&Device::new(
        "PWRB".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C0C")),
            &Name::new("_UID".into(), &ZERO),
        ],
    ))
}

/// The generic event device (section 5.6.9): its interrupt makes the guest read the event status
/// register and tell the power button.
fn event_device() -> Vec<u8> {
    let length: u8 = 1;
    let power_button = Path::new("\\_SB_.PWRB");
    let status = Path::new("ESTS");
    bytes(&Device::new(
        "GED_".into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0013"),
            &Name::new("_UID".into(), &ZERO),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&interrupt(layout::EVENT_DEVICE_GSI)]),
            ),
            &OpRegion::new("EREG".into(), OpRegionSpace::SystemIO, &ports::EVENT_STATUS, &length),
            &Field::new(
                "EREG".into(),
                FieldAccessType::Byte,
                FieldLockRule::NoLock,
                FieldUpdateRule::WriteAsZeroes,
                vec![FieldEntry::Named(*b"ESTS", 8)],
            ),
            &Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    // Reading clears it: once only.
                    &Store::new(&Local(0), &status),
                    &And::new(&Local(1), &Local(0), &ports::EVENT_POWER_BUTTON),
                    &If::new(
                        &Equal::new(&Local(1), &ports::EVENT_POWER_BUTTON),
                        vec![&Notify::new(&power_button, &POWER_BUTTON_PRESSED)],
                    ),
                ],
            ),
        ],
    ))
}
