//! One direction of a connection that is slow on purpose.

use std::collections::VecDeque;
use std::time::Instant;

/// How many arrivals are told apart. Where more are under way, the newest are as late as the last.
const MAX_ARRIVALS: usize = 4096;

/// What of a queue of bytes has arrived, and when the rest will.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Bytes at the queue's front that have arrived.
    arrived: usize,
    /// Bytes behind them.
    held: usize,
    /// The bytes that arrive together, none where it is an end that does, in the order of time.
    arrivals: VecDeque<(Instant, usize)>,
    /// Whether the end is, or was, under way.
    ended: bool,
}

impl Line {
    /// A line on which these bytes have arrived, and perhaps an end behind them.
    pub(super) fn with(arrived: usize, ended: bool) -> Self {
        Self { arrived, ended, ..Self::default() }
    }

    /// Bytes that have arrived.
    pub(super) const fn arrived(&self) -> usize {
        self.arrived
    }

    /// Whether anything is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.arrivals.is_empty()
    }

    /// Whether the end has arrived.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended && !self.is_busy()
    }

    /// Whether the end is on its way, or has arrived.
    pub(super) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// When the first that is under way arrives.
    pub(super) fn due(&self) -> Option<Instant> {
        self.arrivals.front().map(|&(due, _)| due)
    }

    /// How many bytes of a queue of this length the line has not heard of.
    pub(super) const fn unheard(&self, length: usize) -> usize {
        length.saturating_sub(self.arrived + self.held)
    }

    /// Bytes were put into the queue, to arrive at `due`; not before those ahead of them.
    pub(super) fn send(&mut self, bytes: usize, due: Instant) {
        self.held += bytes;
        let full = self.arrivals.len() >= MAX_ARRIVALS;
        match self.arrivals.back_mut() {
            Some((last, count)) if full || *last >= due => {
                *last = due.max(*last);
                *count += bytes;
            }
            _ => self.arrivals.push_back((due, bytes)),
        }
    }

    /// The sender has closed.
    pub(super) fn end(&mut self, due: Instant) {
        self.ended = true;
        self.send(0, due);
    }

    /// Lets arrive what is due.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(&(due, bytes)) = self.arrivals.front()
            && due <= now
        {
            self.arrivals.pop_front();
            self.held -= bytes;
            self.arrived += bytes;
        }
    }

    /// Bytes that had arrived were taken out of the queue.
    pub(super) fn take(&mut self, bytes: usize) {
        self.arrived -= bytes;
    }

    /// The queue was emptied: nothing is under way any more, not even an end.
    pub(super) fn clear(&mut self) {
        *self = Self { ended: self.ended, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in comes out, in order, and never before its time.
        #[test]
        fn is_late_and_in_order(steps in prop::collection::vec((0..4_u8, 0..300_u64), 0..200)) {
            let begun = Instant::now();
            let (mut line, mut now) = (Line::with(5, false), begun);
            // Each byte's time, in the order of the queue.
            let mut queue: VecDeque<Instant> = [begun; 5].into();
            for (step, amount) in steps {
                match step {
                    0 => {
                        let due = now + Duration::from_millis(amount);
                        prop_assert_eq!(line.unheard(queue.len() + 7), 7);
                        line.send(7, due);
                        queue.extend([due; 7]);
                    }
                    1 => {
                        now += Duration::from_millis(amount / 10);
                        line.advance(now);
                        // Nothing overtakes: the first that is late holds up all behind it.
                        let due = queue.iter().take_while(|due| **due <= now).count();
                        prop_assert_eq!(line.arrived(), due);
                        prop_assert_eq!(line.is_busy(), due < queue.len());
                    }
                    2 => {
                        let taken = line.arrived().min(usize::try_from(amount).unwrap());
                        line.take(taken);
                        queue.drain(..taken);
                    }
                    _ => prop_assert_eq!(line.unheard(queue.len()), 0),
                }
            }
            line.advance(now + Duration::from_secs(1));
            prop_assert_eq!((line.arrived(), line.is_busy()), (queue.len(), false));
        }
    }

    #[test]
    fn many_arrivals_share_the_last() {
        let mut line = Line::default();
        let begun = Instant::now();
        for n in 0..2 * MAX_ARRIVALS as u64 {
            line.send(1, begun + Duration::from_micros(n));
        }
        assert_eq!(line.arrivals.len(), MAX_ARRIVALS);
        line.end(begun);
        assert!(line.has_ended() && !line.is_at_end());
        line.advance(begun + Duration::from_secs(1));
        assert_eq!((line.arrived(), line.is_at_end()), (2 * MAX_ARRIVALS, true));
    }
}
