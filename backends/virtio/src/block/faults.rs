//! Requests that meet a fault.

use std::time::Instant;

use vmoon_core::faults::{BlockEffect, BlockOperation, BlockRule, FaultId};

use super::image::SECTOR;
use crate::alarm::Alarm;
use crate::faults::FaultRules;
use crate::waker::HostWaker;

/// What a request asks for, as far as a rule looks at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) operation: BlockOperation,
    pub(super) sector: u64,
    /// In bytes.
    pub(super) length: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is served.
    Serve,
    /// It fails.
    Fail,
    /// It stays in its queue until the device is woken.
    Wait,
}

/// The faults of a disk.
#[derive(Debug)]
pub(super) struct BlockFaults {
    pub(super) rules: FaultRules<BlockRule>,
    alarm: Alarm,
    /// The delay that the first request in the queue is in.
    delayed: Option<(FaultId, Instant)>,
}

impl BlockFaults {
    pub(super) fn new(waker: HostWaker) -> Self {
        let rules = FaultRules::new(waker.clone());
        Self { rules, alarm: Alarm::new(waker), delayed: None }
    }

    /// Whether requests must be shown to [`BlockFaults::judge`].
    pub(super) fn any(&self) -> bool {
        self.rules.any() || self.delayed.is_some()
    }

    /// Whether a request waits in the queue.
    pub(super) const fn is_waiting(&self) -> bool {
        self.delayed.is_some()
    }

    /// The device starts over, or goes back to a snapshot.
    pub(super) fn forget_delay(&mut self) {
        self.delayed = None;
    }

    /// Decides about the first request in the queue.
    pub(super) fn judge(&mut self, request: Request) -> Fate {
        let mut rules = self.rules.lock();
        if let Some((id, until)) = self.delayed {
            let stands = rules.iter().any(|active| active.id == id);
            if stands && Instant::now() < until {
                return Fate::Wait;
            }
            self.delayed = None;
            return Fate::Serve;
        }
        for active in rules.iter_mut().filter(|active| concerns(&active.rule, request)) {
            active.seen += 1;
            let met = active.seen > active.rule.after
                && active.rule.times.is_none_or(|times| active.hits < times);
            if !met {
                continue;
            }
            active.hits += 1;
            match active.rule.effect {
                BlockEffect::Error => return Fate::Fail,
                BlockEffect::Delay(delay) => {
                    let Some(until) = Instant::now().checked_add(delay) else { continue };
                    self.delayed = Some((active.id, until));
                    self.alarm.set(until);
                    return Fate::Wait;
                }
            }
        }
        Fate::Serve
    }
}

fn concerns(rule: &BlockRule, request: Request) -> bool {
    if rule.operation.is_some_and(|operation| operation != request.operation) {
        return false;
    }
    let Some((first, last)) = rule.sectors else { return true };
    let sectors = request.length.div_ceil(SECTOR);
    request.operation != BlockOperation::Flush
        && sectors > 0
        && request.sector <= last
        && request.sector.saturating_add(sectors - 1) >= first
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rule(effect: BlockEffect) -> BlockRule {
        BlockRule { operation: None, sectors: None, after: 0, times: None, effect }
    }

    fn write(sector: u64, sectors: u64) -> Request {
        Request { operation: BlockOperation::Write, sector, length: sectors * SECTOR }
    }

    #[test]
    fn rules_look_at_operation_and_sectors() {
        let some = BlockRule {
            operation: Some(BlockOperation::Write),
            sectors: Some((10, 19)),
            ..rule(BlockEffect::Error)
        };
        assert!(concerns(&some, write(19, 1)) && concerns(&some, write(0, 11)));
        assert!(!concerns(&some, write(0, 10)) && !concerns(&some, write(20, 1)));
        let read = Request { operation: BlockOperation::Read, ..write(10, 1) };
        assert!(!concerns(&some, read));
        let flush = Request { operation: BlockOperation::Flush, sector: 10, length: 0 };
        assert!(!concerns(&BlockRule { operation: None, ..some }, flush));
        assert!(concerns(&rule(BlockEffect::Error), flush));
    }

    #[test]
    fn requests_are_counted_before_they_fail() {
        let mut faults = BlockFaults::new(HostWaker::new(|| ()));
        let counted = BlockRule { after: 1, times: Some(2), ..rule(BlockEffect::Error) };
        faults.rules.insert(FaultId::new(), counted);
        let fates: Vec<_> = (0..5).map(|_| faults.judge(write(0, 1))).collect();
        assert_eq!(fates, [Fate::Serve, Fate::Fail, Fate::Fail, Fate::Serve, Fate::Serve]);
        assert_eq!((faults.rules.active()[0].seen, faults.rules.active()[0].hits), (5, 2));
    }

    #[test]
    fn a_delay_wakes_the_device_and_ends_with_its_rule() {
        let (sender, woken) = std::sync::mpsc::channel();
        let waker = HostWaker::new(move || {
            let _ = sender.send(());
        });
        let mut faults = BlockFaults::new(waker.clone());
        let id = FaultId::new();
        faults.rules.insert(id, rule(BlockEffect::Delay(Duration::from_millis(20))));
        woken.recv().unwrap();
        waker.rearm();
        assert_eq!(faults.judge(write(0, 1)), Fate::Wait);
        woken.recv_timeout(Duration::from_secs(20)).expect("the alarm rings");
        assert_eq!(faults.judge(write(0, 1)), Fate::Serve);
        faults.rules.restore(&[]);
        faults.rules.insert(id, rule(BlockEffect::Delay(Duration::from_hours(1))));
        assert_eq!(faults.judge(write(0, 1)), Fate::Wait);
        faults.rules.remove(id);
        assert_eq!(faults.judge(write(0, 1)), Fate::Serve);
        assert!(!faults.any());
    }
}
