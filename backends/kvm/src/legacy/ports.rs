//! Port numbers, and the values that the guest writes to end itself.

/// First of the serial port's eight registers (COM1).
pub(crate) const SERIAL: u16 = 0x3f8;
/// Last of the serial port's registers.
pub(crate) const SERIAL_LAST: u16 = SERIAL + 7;
/// Index register of the real-time clock.
pub(crate) const CMOS_INDEX: u16 = 0x70;
/// Data register of the real-time clock.
pub(crate) const CMOS_DATA: u16 = 0x71;
/// Status and command register of the keyboard controller, of which only the reset line exists.
pub(crate) const KEYBOARD_COMMAND: u16 = 0x64;
/// Keyboard controller command that pulses the reset line.
pub(crate) const KEYBOARD_RESET: u8 = 0xfe;
/// Reset control register of PC chipsets.
pub(crate) const RESET_CONTROL: u16 = 0xcf9;
/// Bit of [`RESET_CONTROL`] that resets the processor.
pub(crate) const RESET_CONTROL_RESET: u8 = 1 << 2;
/// The panic device (QEMU's pvpanic).
pub(crate) const PANIC: u16 = 0x505;
/// Sleep control register (ACPI 6.5 section 4.8.3.7).
pub(crate) const SLEEP_CONTROL: u16 = 0x600;
/// Sleep status register (ACPI 6.5 section 4.8.3.7).
pub(crate) const SLEEP_STATUS: u16 = 0x601;
/// Reset register (ACPI 6.5 section 4.8.3.6).
pub(crate) const RESET: u16 = 0x602;
/// Value that resets the machine through [`RESET`].
pub(crate) const RESET_VALUE: u8 = 1;
/// Tells the guest which events the generic event device reports; reading clears them.
pub(crate) const EVENT_STATUS: u16 = 0x604;
/// Bit of [`EVENT_STATUS`]: the power button was pressed.
pub(crate) const EVENT_POWER_BUTTON: u8 = 1;

/// Sleep type of the off state, named in the DSDT's `\_S5`.
pub(crate) const SLEEP_TYPE_OFF: u8 = 5;
/// Sleep enable bit of the sleep control register.
pub(crate) const SLEEP_ENABLE: u8 = 1 << 5;
/// Position of the sleep type in the sleep control register.
pub(crate) const SLEEP_TYPE_SHIFT: u8 = 2;
/// The value that switches the machine off through [`SLEEP_CONTROL`].
pub(crate) const SLEEP_OFF: u8 = SLEEP_ENABLE | (SLEEP_TYPE_OFF << SLEEP_TYPE_SHIFT);

/// Command line parameters that tell a guest without ACPI how to end itself:
/// `vmoon.poweroff=PORT:VALUE vmoon.reset=PORT:VALUE`.
pub(crate) fn power_parameters() -> String {
    format!(
        "vmoon.poweroff={SLEEP_CONTROL:#x}:{SLEEP_OFF:#x} vmoon.reset={RESET:#x}:{RESET_VALUE:#x}"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn parameters_are_hexadecimal() {
        assert_eq!(super::power_parameters(), "vmoon.poweroff=0x600:0x34 vmoon.reset=0x602:0x1");
    }
}
