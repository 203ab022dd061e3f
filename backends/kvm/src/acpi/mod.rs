//! ACPI tables: what a guest learns of processors, interrupts, devices and power (ACPI 6.5).
//!
//! The platform is hardware-reduced (section 3.11.1): no ACPI timer, no fixed power registers, no
//! legacy interrupt controller. What is left of a PC is named in the DSDT, device by device.

mod dsdt;
mod tables;

pub(crate) use tables::{AcpiDescription, write_tables};
