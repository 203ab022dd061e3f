//! What was measured.

use std::fmt;
use std::time::Duration;

/// One thing, done by hand and by vmoon.
#[derive(Debug)]
pub(super) struct Row {
    name: &'static str,
    times: [Vec<Duration>; 2],
}

impl Row {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, times: [Vec::new(), Vec::new()] }
    }

    pub(super) fn push(&mut self, by_hand: Duration, vmoon: Duration) {
        self.times[0].push(by_hand);
        self.times[1].push(vmoon);
    }

    /// The medians.
    fn medians(&self) -> [Duration; 2] {
        self.times.clone().map(|mut times| {
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        })
    }
}

/// All that was measured with one guest.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = &self.title;
        writeln!(f, "{title:<42} {:>10} {:>10} {:>6} {:>4}", "by hand", "vmoon", "ratio", "n")?;
        for row in &self.rows {
            let [by_hand, vmoon] = row.medians().map(|time| time.as_secs_f64() * 1e3);
            let (ratio, count) = (vmoon / by_hand, row.times[0].len());
            let name = row.name;
            writeln!(f, "{name:<42} {by_hand:>7.1} ms {vmoon:>7.1} ms {ratio:>6.2} {count:>4}")?;
        }
        Ok(())
    }
}
