//! Ways in which the guest ends itself, and the power button by which it is asked to.

use std::sync::atomic::{AtomicU8, Ordering};

use super::ports::{
    EVENT_POWER_BUTTON, KEYBOARD_COMMAND, KEYBOARD_RESET, RESET, RESET_CONTROL,
    RESET_CONTROL_RESET, RESET_VALUE, SLEEP_CONTROL, SLEEP_ENABLE, SLEEP_OFF,
};

/// What a write to one of the power registers asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PowerRequest {
    Off,
    Reset,
}

/// What the guest asks for by writing `value` to `port`, if anything.
pub(super) fn power_request(port: u16, value: u8) -> Option<PowerRequest> {
    match port {
        // The bits outside the sleep type and its enable are ignored (ACPI 6.5, table 4.22).
        SLEEP_CONTROL if value & (SLEEP_ENABLE | 0x1c) == SLEEP_OFF => Some(PowerRequest::Off),
        RESET if value == RESET_VALUE => Some(PowerRequest::Reset),
        RESET_CONTROL if value & RESET_CONTROL_RESET != 0 => Some(PowerRequest::Reset),
        KEYBOARD_COMMAND if value == KEYBOARD_RESET => Some(PowerRequest::Reset),
        _ => None,
    }
}

/// The events that the generic event device has for the guest.
#[derive(Debug, Default)]
pub(super) struct Events {
    pending: AtomicU8,
}

impl Events {
    /// Records a press of the power button. The caller raises the interrupt.
    pub(super) fn press_power_button(&self) {
        self.pending.fetch_or(EVENT_POWER_BUTTON, Ordering::AcqRel);
    }

    /// What the guest reads; it is told of each event once.
    pub(super) fn take(&self) -> u8 {
        self.pending.swap(0, Ordering::AcqRel)
    }

    pub(super) fn save(&self) -> u8 {
        self.pending.load(Ordering::Acquire)
    }

    pub(super) fn restore(&self, pending: u8) {
        self.pending.store(pending, Ordering::Release);
    }
}
