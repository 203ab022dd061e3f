//! Sends accesses to ports to their devices.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::cmos::Cmos;
use super::ports;
use super::power::{Events, PowerRequest, power_request};
use super::serial::{ConsoleSink, SerialPort};
use super::state::LegacyState;

/// What a write to a port means for the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortOutcome {
    /// Nothing: the guest goes on.
    Continue,
    /// The guest switches itself off.
    PowerOff,
    /// The guest resets itself.
    Reset,
    /// The guest's kernel panicked; the text says how it told.
    GuestPanic(String),
}

/// Eventfds that KVM turns into interrupts (`KVM_IRQFD`).
#[derive(Debug)]
pub(crate) struct LegacyInterrupts {
    /// Raises [`layout::SERIAL_GSI`](crate::boot::layout::SERIAL_GSI).
    pub serial: EventFd,
    /// Raises [`layout::EVENT_DEVICE_GSI`](crate::boot::layout::EVENT_DEVICE_GSI).
    pub events: EventFd,
}

/// `pvpanic`: the guest panicked.
const PANICKED: u8 = 1;
/// `pvpanic`: the guest panicked and has loaded a kernel to examine itself.
const CRASH_LOADED: u8 = 1 << 1;

/// All port devices of a machine. Called from vCPU threads and from the machine's own thread.
#[derive(Debug)]
pub(crate) struct PortBus {
    serial: Mutex<SerialPort>,
    cmos: Mutex<Cmos>,
    events: Events,
    event_line: EventFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PortBus {
    /// Devices in their reset state. `console` takes what the guest prints, on vCPU threads.
    pub(crate) fn new(interrupts: LegacyInterrupts, console: ConsoleSink) -> Self {
        Self {
            serial: Mutex::new(SerialPort::new(interrupts.serial, console)),
            cmos: Mutex::default(),
            events: Events::default(),
            event_line: interrupts.events,
        }
    }

    /// The guest reads from `port`. Several bytes are a string instruction (`rep insb`), and each
    /// is read from the same port.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let Some((first, _)) = data.split_first_mut() else { return };
        match port {
            ports::SERIAL..=ports::SERIAL_LAST => {
                lock(&self.serial).read(serial_register(port), data);
            }
            ports::CMOS_DATA => *first = lock(&self.cmos).read(),
            ports::EVENT_STATUS => *first = self.events.take(),
            ports::PANIC => *first = PANICKED | CRASH_LOADED,
            // Neither buffer of the keyboard controller is full: the guest need not wait.
            ports::KEYBOARD_COMMAND | ports::SLEEP_STATUS | ports::SLEEP_CONTROL => *first = 0,
            _ => {}
        }
    }

    /// The guest writes to `port`. Several bytes are a string instruction (`rep outsb`), and each
    /// is written to the same port.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> PortOutcome {
        let Some(first) = data.first().copied() else { return PortOutcome::Continue };
        match power_request(port, first) {
            Some(PowerRequest::Off) => return PortOutcome::PowerOff,
            Some(PowerRequest::Reset) => return PortOutcome::Reset,
            None => {}
        }
        match port {
            ports::SERIAL..=ports::SERIAL_LAST => {
                lock(&self.serial).write(serial_register(port), data);
            }
            ports::CMOS_INDEX => lock(&self.cmos).select(first),
            ports::CMOS_DATA => lock(&self.cmos).write(first),
            ports::PANIC if first & PANICKED != 0 => {
                return PortOutcome::GuestPanic("the guest's kernel panicked".to_owned());
            }
            ports::PANIC if first & CRASH_LOADED != 0 => {
                tracing::warn!("the guest's kernel panicked and now runs its crash kernel");
            }
            _ => {}
        }
        PortOutcome::Continue
    }

    /// Types into the serial port; returns how many bytes there was room for.
    pub(crate) fn type_input(&self, bytes: &[u8]) -> usize {
        lock(&self.serial).type_input(bytes)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// When the interrupt cannot be raised.
    pub(crate) fn press_power_button(&self) -> io::Result<()> {
        self.events.press_power_button();
        self.event_line.write(1)
    }

    /// The state of all devices; no vCPU runs meanwhile.
    pub(crate) fn save(&self) -> LegacyState {
        LegacyState {
            serial: lock(&self.serial).save(),
            cmos: lock(&self.cmos).save(),
            pending_events: self.events.save(),
        }
    }

    /// Goes back to `state` and raises again the interrupts that it leaves pending: call it after
    /// the interrupt controllers have been restored, while no vCPU runs.
    pub(crate) fn restore(&self, state: &LegacyState) {
        lock(&self.serial).restore(&state.serial);
        lock(&self.cmos).restore(&state.cmos);
        self.events.restore(state.pending_events);
        if state.pending_events != 0 {
            // A full counter means that the interrupt is pending anyway.
            let _ = self.event_line.write(1);
        }
    }
}

fn serial_register(port: u16) -> u8 {
    u8::try_from(port - ports::SERIAL).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    struct Rig {
        bus: PortBus,
        serial: EventFd,
        events: EventFd,
        printed: Arc<Mutex<Vec<u8>>>,
    }

    fn rig() -> Rig {
        let serial = EventFd::new(EFD_NONBLOCK).unwrap();
        let events = EventFd::new(EFD_NONBLOCK).unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let sink = printed.clone();
        let interrupts = LegacyInterrupts {
            serial: serial.try_clone().unwrap(),
            events: events.try_clone().unwrap(),
        };
        let console = Box::new(move |bytes: &[u8]| lock(&sink).extend_from_slice(bytes));
        Rig { bus: PortBus::new(interrupts, console), serial, events, printed }
    }

    fn read(bus: &PortBus, port: u16) -> u8 {
        let mut data = [0];
        bus.read(port, &mut data);
        data[0]
    }

    const INTERRUPT_ENABLE: u16 = ports::SERIAL + 1;
    const INTERRUPT_IDENTIFICATION: u16 = ports::SERIAL + 2;
    const LINE_STATUS: u16 = ports::SERIAL + 5;

    #[test]
    fn output_reaches_the_sink_also_by_string_instructions() {
        let rig = rig();
        rig.bus.write(ports::SERIAL, b"h");
        rig.bus.write(ports::SERIAL, b"ello\n");
        assert_eq!(*lock(&rig.printed), b"hello\n");
        assert_eq!(read(&rig.bus, LINE_STATUS) & 0x60, 0x60);
    }

    #[test]
    fn input_waits_in_bounded_memory_and_interrupts() {
        let rig = rig();
        rig.bus.write(INTERRUPT_ENABLE, &[1]);
        let input: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let first = rig.bus.type_input(&input);
        let taken = first + rig.bus.type_input(&input[first..]);
        assert_eq!(taken, (64 << 10) + 64);
        assert_eq!(rig.bus.type_input(&input), 0);
        rig.serial.read().unwrap();
        for expected in &input[..taken] {
            assert_eq!(read(&rig.bus, LINE_STATUS) & 1, 1);
            assert_eq!(read(&rig.bus, ports::SERIAL), *expected);
        }
        assert_eq!(read(&rig.bus, LINE_STATUS) & 1, 0);
    }

    #[test]
    fn a_restored_port_raises_the_transmitter_interrupt_again() {
        let rig = rig();
        rig.bus.write(INTERRUPT_ENABLE, &[2]);
        rig.bus.write(ports::SERIAL, b"x");
        // The guest has taken the interrupt and is about to send more.
        assert_eq!(read(&rig.bus, INTERRUPT_IDENTIFICATION) & 0xf, 2);
        let state = rig.bus.save();
        rig.bus.write(INTERRUPT_ENABLE, &[0]);
        rig.serial.read().unwrap();
        rig.bus.restore(&state);
        rig.serial.read().unwrap();
        assert_eq!(read(&rig.bus, INTERRUPT_IDENTIFICATION) & 0xf, 2);
        assert_eq!(read(&rig.bus, INTERRUPT_ENABLE), 2);
    }

    #[test]
    fn untaken_input_belongs_to_the_snapshot() {
        let rig = rig();
        rig.bus.write(INTERRUPT_ENABLE, &[1]);
        rig.bus.type_input(&[b'a'; 100]);
        let state = rig.bus.save();
        let drained: Vec<u8> = (0..100).map(|_| read(&rig.bus, ports::SERIAL)).collect();
        assert_eq!(drained, [b'a'; 100]);
        // One for each time that the port's own queue was filled.
        assert_eq!(rig.serial.read().unwrap(), 2);
        rig.bus.restore(&state);
        rig.serial.read().unwrap();
        assert_eq!(rig.bus.save().serial.waiting.len(), 36);
        assert_eq!((0..100).filter(|_| read(&rig.bus, ports::SERIAL) == b'a').count(), 100);
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<LegacyState>(&json).unwrap(), state);
    }

    #[test]
    fn guests_end_themselves_in_the_usual_ways() {
        let bus = rig().bus;
        for (port, value, outcome) in [
            (ports::SLEEP_CONTROL, ports::SLEEP_OFF, PortOutcome::PowerOff),
            (ports::SLEEP_CONTROL, 0x14, PortOutcome::Continue),
            (ports::SLEEP_CONTROL, 0x24, PortOutcome::Continue),
            (ports::RESET, ports::RESET_VALUE, PortOutcome::Reset),
            (ports::RESET_CONTROL, 0x02, PortOutcome::Continue),
            (ports::RESET_CONTROL, 0x06, PortOutcome::Reset),
            (ports::KEYBOARD_COMMAND, 0xfe, PortOutcome::Reset),
            (ports::KEYBOARD_COMMAND, 0xd1, PortOutcome::Continue),
            (ports::PANIC, 2, PortOutcome::Continue),
        ] {
            assert_eq!(bus.write(port, &[value]), outcome, "{port:#x} {value:#x}");
        }
        assert!(matches!(bus.write(ports::PANIC, &[1]), PortOutcome::GuestPanic(_)));
    }

    #[test]
    fn the_power_button_is_told_once_and_survives_a_restore() {
        let rig = rig();
        rig.bus.press_power_button().unwrap();
        rig.events.read().unwrap();
        let state = rig.bus.save();
        assert_eq!(read(&rig.bus, ports::EVENT_STATUS), ports::EVENT_POWER_BUTTON);
        assert_eq!(read(&rig.bus, ports::EVENT_STATUS), 0);
        rig.bus.restore(&state);
        rig.events.read().unwrap();
        assert_eq!(read(&rig.bus, ports::EVENT_STATUS), ports::EVENT_POWER_BUTTON);
    }

    #[test]
    fn an_empty_bus_reads_as_ones() {
        let bus = rig().bus;
        let mut data = [0; 4];
        bus.read(0xcfc, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(bus.write(0x80, &[1]), PortOutcome::Continue);
    }

    proptest! {
        #[test]
        fn no_access_panics(accesses in prop::collection::vec(
            (any::<bool>(), prop_oneof![0x60u16..0x80, 0x3f0u16..0x400, 0x500u16..0x610, any::<u16>()],
             prop::collection::vec(any::<u8>(), 0..9)), 0..200)) {
            let bus = rig().bus;
            for (is_read, port, mut data) in accesses {
                if is_read {
                    bus.read(port, &mut data);
                } else {
                    bus.write(port, &data);
                }
                let state = bus.save();
                bus.restore(&state);
                prop_assert!(state.serial.waiting.len() <= 64 << 10);
            }
        }
    }
}
