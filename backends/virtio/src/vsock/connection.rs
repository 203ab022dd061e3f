//! The device's side of one connection.

use std::sync::Arc;

use tokio::sync::oneshot;
use vmoon_core::error::Result;
use vmoon_core::vsock::VsockStream;

use super::packet::{Header, Operation, Ports, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::pipe::{Pipe, PipeState};

/// How far a connection has got.
#[derive(Debug)]
pub(super) enum Phase {
    /// The host wants it; the guest has not answered.
    Requesting {
        /// Who waits for it.
        reply: oneshot::Sender<Result<VsockStream>>,
        /// Whether the guest has been asked.
        sent: bool,
    },
    /// Bytes may flow.
    Established {
        /// Whether the guest has yet to be told.
        respond: bool,
    },
    /// The guest is to be told that it is over; then it is forgotten.
    Cut,
}

/// A connection that the guest knows of, or is to know of.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub(super) struct Connection {
    pub(super) pipe: Arc<Pipe>,
    pub(super) ports: Ports,
    pub(super) phase: Phase,
    /// Bytes sent to the guest, modulo 2^32.
    pub(super) sent: u32,
    /// The guest's buffer for the connection, in bytes.
    pub(super) guest_buffer: u32,
    /// Bytes that the guest says its application has taken, modulo 2^32.
    pub(super) guest_forwarded: u32,
    /// The flags of the last `SHUTDOWN` sent.
    pub(super) shutdown_sent: u32,
    /// Whether the guest asked how much room there is.
    pub(super) credit_wanted: bool,
    /// Whether the guest is to be asked how much room it has.
    pub(super) ask_credit: bool,
    /// Whether it has been asked and has sent nothing since.
    pub(super) asked_credit: bool,
    /// Whether the connection stands in the queue of those with something to send.
    pub(super) queued: bool,
}

impl Connection {
    pub(super) const fn new(pipe: Arc<Pipe>, ports: Ports, phase: Phase) -> Self {
        Self {
            pipe,
            ports,
            phase,
            sent: 0,
            guest_buffer: 0,
            guest_forwarded: 0,
            shutdown_sent: 0,
            credit_wanted: false,
            ask_credit: false,
            asked_credit: false,
            queued: false,
        }
    }

    /// How many bytes the guest has room for (virtio 1.3 section 5.10.6.3).
    pub(super) const fn credit(&self) -> u32 {
        let unconfirmed = self.sent.wrapping_sub(self.guest_forwarded);
        self.guest_buffer.saturating_sub(unconfirmed)
    }

    /// Every packet of the guest says how much room it has.
    pub(super) fn hear_credit(&mut self, header: &Header) {
        self.guest_buffer = header.buffer;
        self.guest_forwarded = header.forwarded;
        self.asked_credit = false;
    }

    /// The flags of the `SHUTDOWN` that the host's stream calls for.
    fn shutdown_wanted(state: &PipeState) -> u32 {
        match (state.host_closed, state.host_gone) {
            (false, _) => 0,
            (true, false) => SHUTDOWN_SEND,
            (true, true) => SHUTDOWN_SEND | SHUTDOWN_RECEIVE,
        }
    }

    /// What to send next, if anything.
    pub(super) fn next(&mut self) -> Option<Operation> {
        match self.phase {
            Phase::Cut => return Some(Operation::Reset),
            Phase::Requesting { sent: true, .. } => return None,
            Phase::Requesting { .. } => return self.is_due().then_some(Operation::Request),
            Phase::Established { respond: true } => {
                return self.is_due().then_some(Operation::Response);
            }
            Phase::Established { respond: false } => {}
        }
        let state = self.pipe.lock();
        if state.sendable() > 0 {
            if self.credit() > 0 {
                return Some(Operation::Data);
            }
            // A guest that keeps quiet about its room is asked once.
            self.ask_credit |= !self.asked_credit;
        } else if state.is_sent() && Self::shutdown_wanted(&state) & !self.shutdown_sent != 0 {
            return Some(Operation::Shutdown);
        }
        if self.credit_wanted || state.credit_due() {
            return Some(Operation::CreditUpdate);
        }
        self.ask_credit.then_some(Operation::CreditRequest)
    }

    /// Whether the packet that begins the connection may go.
    fn is_due(&self) -> bool {
        self.pipe.lock().lines.as_ref().is_none_or(|lines| !lines.0.is_busy())
    }

    /// What goes with a packet that is being sent: its flags, and how much the host has taken.
    /// Records it as sent.
    pub(super) fn record(&mut self, operation: Operation) -> (u32, u32) {
        let mut state = self.pipe.lock();
        let mut flags = 0;
        match operation {
            Operation::Request => {
                if let Phase::Requesting { sent, .. } = &mut self.phase {
                    *sent = true;
                }
            }
            Operation::Response => self.phase = Phase::Established { respond: false },
            Operation::Shutdown => {
                flags = Self::shutdown_wanted(&state);
                self.shutdown_sent = flags;
            }
            Operation::CreditRequest => {
                self.ask_credit = false;
                self.asked_credit = true;
            }
            Operation::Reset | Operation::Data | Operation::CreditUpdate => {}
        }
        // Every packet says how much room there is.
        self.credit_wanted = false;
        state.advertised = state.forwarded();
        (flags, state.advertised)
    }

    /// Whether nothing is under way in either direction, so that a snapshot can keep it.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.pipe.lock();
        matches!(self.phase, Phase::Established { respond: false })
            && state.to_guest.is_empty()
            && state.from_guest.is_empty()
            && !state.host_closed
            && !state.host_gone
            && !state.guest_closed
            && !state.guest_deaf
            && !state.reset
    }
}
