//! What QEMU tells without being asked.

use vmoon_core::State;

use super::actor::Actor;
use crate::plan::Kind;
use crate::process::qmp::{Event, Said};

impl Actor {
    pub(super) fn hear(&mut self, said: Said) {
        // Nobody waits for an answer here.
        let Said::Event(event) = said else { return };
        tracing::trace!(name = event.name, data = %event.data, "QEMU's event");
        match event.name.as_str() {
            "GUEST_PANICKED" => self.end(State::Crashed, "the guest panicked"),
            "SHUTDOWN" => self.shut_down(&event),
            "BALLOON_CHANGE" => self.balloon_changed(),
            "BLOCK_IO_ERROR" => tracing::warn!(data = %event.data, "a disk failed"),
            _ => {}
        }
    }

    fn shut_down(&mut self, event: &Event) {
        match event.data["reason"].as_str().unwrap_or_default() {
            "guest-shutdown" => self.end(State::Stopped, "the guest powered off"),
            // Linux is told to reset by a triple fault, which it does at once when it panics; QEMU
            // does not tell the one from the other.
            "guest-reset" if self.plan.guest == Kind::Linux => {
                self.end(State::Crashed, "triple fault: the guest panicked or reset itself");
            }
            "guest-reset" => self.end(State::Stopped, "the guest asked for a reset"),
            "guest-panic" => self.end(State::Crashed, "the guest panicked"),
            _ => {}
        }
    }

    /// The guest has ended; what it does after its end does not count.
    fn end(&mut self, state: State, reason: &str) {
        if !matches!(self.state(), State::Stopped | State::Crashed) {
            self.set_state(state, Some(reason.to_owned()));
        }
    }
}
