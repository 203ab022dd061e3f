//! Connections that are slow on purpose: what is said on them is held until it is due.
//!
//! Bytes under way stay in the connection's own bounded queues, where they take the sender's room
//! and the guest's credit as they always do; a [`Line`] beside each queue tells how many of them
//! have arrived.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use vmoon_core::faults::{VsockEffect, VsockRule};

use super::device::VsockDevice;
use super::line::Line;
use super::packet::Ports;
use super::pipe::{Pipe, PipeState};
use crate::alarm::Alarm;
use crate::faults::Active;
use crate::waker::HostWaker;

/// As good as never, for delays beyond what a clock can count.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// The connections on which something is under way.
#[derive(Debug)]
pub(super) struct Delays {
    alarm: Alarm,
    /// When the first of all arrives.
    next: Option<Instant>,
    /// By serial: a connection may be over for the guest while its last bytes are under way.
    slow: HashMap<u64, Weak<Pipe>>,
    /// The changes of the rules that connections obey.
    heeded: u64,
    /// Whether a connection was made slow since all were let go.
    used: bool,
}

impl Delays {
    pub(super) fn new(waker: HostWaker) -> Self {
        Self { alarm: Alarm::new(waker), next: None, slow: HashMap::new(), heeded: 0, used: false }
    }

    /// Something arrives at `due` on this connection.
    fn expect(&mut self, pipe: &Arc<Pipe>, due: Instant) {
        self.slow.insert(pipe.serial, Arc::downgrade(pipe));
        if self.next.is_none_or(|next| due < next) {
            self.next = Some(due);
            self.alarm.set(due);
        }
    }
}

/// The delay that a rule asks for by now of a connection between these ports.
fn delay(active: &Active<VsockRule>, ports: Ports) -> Option<Duration> {
    let VsockEffect::Delay(delay) = active.rule.effect else { return None };
    let met = active.seen >= active.rule.after && active.rule.concerns(ports.host, ports.guest);
    met.then_some(delay)
}

impl VsockDevice {
    /// The longest delay that the rules ask for, which is counted.
    fn delay(&self, ports: Ports) -> Option<Duration> {
        if !self.faults.any() {
            return None;
        }
        let mut rules = self.faults.lock();
        let concerned = rules.iter_mut().filter_map(|active| Some((delay(active, ports)?, active)));
        let (delay, active) = concerned.max_by_key(|(delay, _)| *delay)?;
        active.hits += 1;
        Some(delay)
    }

    /// Makes connections slow or quick again where the rules have changed.
    pub(super) fn heed_rules(&mut self) {
        let changes = self.faults.changes();
        if changes != self.delays.heeded {
            self.delays.heeded = changes;
            self.obey_rules();
        }
    }

    /// Makes connections slow or quick again, by the rules as they are.
    pub(super) fn obey_rules(&mut self) {
        if !self.faults.any() {
            self.let_go();
            return;
        }
        let rules = self.faults.active();
        let is_slow = |ports| rules.iter().any(|active| delay(active, ports).is_some());
        // What is slow no more arrives at once, on connections that are over too.
        let over: Vec<_> = self.delays.slow.values().filter_map(Weak::upgrade).collect();
        for pipe in over.iter().filter(|pipe| !is_slow(pipe.lock().ports)) {
            self.release(pipe);
        }
        let pipes = self.table.connections.values().map(|connection| Arc::clone(&connection.pipe));
        for pipe in pipes.collect::<Vec<_>>() {
            let (ports, was_slow) = {
                let state = pipe.lock();
                (state.ports, state.lines.is_some())
            };
            match (is_slow(ports), was_slow) {
                (true, false) => {
                    self.slow_down(&pipe);
                    self.hold(&pipe);
                }
                (false, true) => self.release(&pipe),
                _ => {}
            }
        }
    }

    /// A connection begins: where it is slow, its first packet is under way.
    pub(super) fn begin(&mut self, pipe: &Arc<Pipe>) {
        let ports = pipe.lock().ports;
        let Some(delay) = self.delay(ports) else { return };
        let due = due(delay);
        self.slow_down(pipe);
        pipe.update(|state| {
            if let Some(lines) = &mut state.lines {
                lines.0.send(0, due);
            }
        });
        self.delays.expect(pipe, due);
    }

    /// Something may have been said on a connection: where it is slow, it is under way.
    pub(super) fn hold(&mut self, pipe: &Arc<Pipe>) {
        if !self.faults.any() {
            return;
        }
        let ports = {
            let state = pipe.lock();
            if !state.has_news() {
                return;
            }
            state.ports
        };
        let due = due(self.delay(ports).unwrap_or_default());
        pipe.update(|state| state.hold(due));
        self.delays.expect(pipe, due);
    }

    /// Lets arrive what is due.
    pub(super) fn let_arrive(&mut self) {
        let now = Instant::now();
        if self.delays.next.is_none_or(|next| now < next) {
            return;
        }
        let mut next: Option<Instant> = None;
        self.delays.slow.retain(|&serial, pipe| {
            let Some(pipe) = pipe.upgrade() else { return false };
            let due = pipe.update(|state| state.advance(now));
            self.table.enqueue(serial);
            next = next.into_iter().chain(due).min();
            due.is_some()
        });
        self.delays.next = next;
        if let Some(next) = next {
            self.delays.alarm.set(next);
        }
    }

    /// Lets everything arrive at once.
    pub(super) fn let_go(&mut self) {
        if !std::mem::take(&mut self.delays.used) {
            return;
        }
        for connection in self.table.connections.values() {
            connection.pipe.update(|state| state.lines = None);
        }
        for (serial, pipe) in std::mem::take(&mut self.delays.slow) {
            if let Some(pipe) = pipe.upgrade() {
                pipe.update(|state| state.lines = None);
            }
            self.table.enqueue(serial);
        }
        self.delays.next = None;
    }

    /// From now on what is said takes a while. What the host has of the guest's bytes has arrived;
    /// what the guest has yet to be sent has not.
    fn slow_down(&mut self, pipe: &Pipe) {
        self.delays.used = true;
        pipe.update(|state| {
            let from_guest = Line::with(state.from_guest.len(), state.guest_closed);
            state.lines = Some(Box::new((Line::default(), from_guest)));
        });
    }

    fn release(&mut self, pipe: &Arc<Pipe>) {
        pipe.update(|state| state.lines = None);
        self.delays.slow.remove(&pipe.serial);
        self.table.enqueue(pipe.serial);
    }
}

/// When what is said now arrives.
fn due(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or(now + LONGEST)
}

impl PipeState {
    /// Whether the lines of a slow connection have yet to hear of something.
    fn has_news(&self) -> bool {
        self.lines.as_ref().is_some_and(|lines| {
            let (to_guest, from_guest) = &**lines;
            to_guest.unheard(self.to_guest.len()) > 0
                || from_guest.unheard(self.from_guest.len()) > 0
                || self.host_closed && !to_guest.has_ended()
                || self.guest_closed && !from_guest.has_ended()
        })
    }

    /// All that the lines have not heard of arrives at `due`.
    fn hold(&mut self, due: Instant) {
        let Some(lines) = &mut self.lines else { return };
        for (line, length, closed) in [
            (&mut lines.0, self.to_guest.len(), self.host_closed),
            (&mut lines.1, self.from_guest.len(), self.guest_closed),
        ] {
            let unheard = line.unheard(length);
            if unheard > 0 {
                line.send(unheard, due);
            }
            if closed && !line.has_ended() {
                line.end(due);
            }
        }
    }

    /// Lets arrive what is due; when the next does.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        let lines = self.lines.as_mut()?;
        lines.0.advance(now);
        lines.1.advance(now);
        lines.0.due().into_iter().chain(lines.1.due()).min()
    }
}
