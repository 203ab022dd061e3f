//! Wakes a device after a while: faults that delay need a clock, which devices do not have.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::waker::HostWaker;

/// Wakes a device's owner at a moment. Costs nothing until it is set for the first time, which
/// starts a thread that ends with the alarm.
#[derive(Debug)]
pub(crate) struct Alarm {
    clock: Arc<Clock>,
    waker: HostWaker,
    started: bool,
}

#[derive(Debug, Default)]
struct Clock {
    setting: Mutex<Setting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Setting {
    due: Option<Instant>,
    ended: bool,
}

impl Alarm {
    pub(crate) fn new(waker: HostWaker) -> Self {
        Self { clock: Arc::default(), waker, started: false }
    }

    /// Wakes at `due`, and no more at a moment that was set before.
    pub(crate) fn set(&mut self, due: Instant) {
        self.clock.setting.lock().unwrap_or_else(PoisonError::into_inner).due = Some(due);
        self.clock.changed.notify_one();
        if !self.started {
            let (clock, waker) = (Arc::clone(&self.clock), self.waker.clone());
            let thread = std::thread::Builder::new().name("alarm".to_owned());
            match thread.stack_size(64 << 10).spawn(move || clock.run(&waker)) {
                Ok(_) => self.started = true,
                Err(error) => {
                    // Early is better than never.
                    tracing::warn!(%error, "a delay is cut short");
                    self.waker.wake();
                }
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clock.setting.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.clock.changed.notify_one();
    }
}

impl Clock {
    fn run(&self, waker: &HostWaker) {
        let mut setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        while !setting.ended {
            let now = Instant::now();
            setting = match setting.due {
                None => self.changed.wait(setting).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due <= now => {
                    setting.due = None;
                    waker.wake();
                    setting
                }
                Some(due) => {
                    let waited = self.changed.wait_timeout(setting, due - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_moment_counts() {
        let (sender, woken) = std::sync::mpsc::channel();
        let waker = HostWaker::new(move || {
            let _ = sender.send(Instant::now());
        });
        let mut alarm = Alarm::new(waker.clone());
        let mut step = Duration::from_millis(10);
        let due = loop {
            let begun = Instant::now();
            alarm.set(begun + 2 * step);
            alarm.set(begun + Duration::from_hours(1));
            alarm.set(begun + 3 * step);
            // Where this took long, the first has rung already.
            if begun.elapsed() < step {
                break begun + 3 * step;
            }
            step *= 2;
        };
        let _ = woken.try_recv();
        waker.rearm();
        assert!(woken.recv_timeout(Duration::from_mins(1)).expect("it rings") >= due);
    }
}
