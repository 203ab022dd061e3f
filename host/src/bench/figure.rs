//! Samples, percentiles, figures.

use std::time::Duration;

/// Times of one thing that was done many times.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Samples {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds a time if there is one.
    pub(super) fn extend(&mut self, time: Option<Duration>) {
        self.0.extend(time);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The median.
    pub(super) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that one sample in a hundred exceeds.
    pub(super) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    /// The smallest sample that at least `percent` of a hundred do not exceed (nearest rank).
    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Figure {
    /// The name in the JSON object.
    pub(super) name: &'static str,
    /// What was timed, and what the ratio is to.
    pub(super) about: &'static str,
    pub(super) times: Samples,
    /// The same work without vmoon, where there is such a thing.
    pub(super) floor: Option<Samples>,
    /// What people compare the figure with where it has no floor.
    pub(super) beside: Option<Duration>,
    /// The median number of pages that were dirty, where that matters.
    pub(super) dirty_pages: Option<u64>,
}

impl Figure {
    pub(super) fn new(name: &'static str, about: &'static str, times: Samples) -> Self {
        Self { name, about, times, floor: None, beside: None, dirty_pages: None }
    }

    pub(super) fn with_floor(self, floor: Samples) -> Self {
        Self { floor: (floor.count() > 0).then_some(floor), ..self }
    }

    pub(super) fn beside(self, beside: Duration) -> Self {
        Self { beside: Some(beside), ..self }
    }

    pub(super) fn dirty(self, pages: u64) -> Self {
        Self { dirty_pages: Some(pages), ..self }
    }

    /// The median as a multiple of the floor's, or of what stands beside.
    pub(super) fn ratio(&self) -> Option<f64> {
        let other = self.floor.as_ref().map(Samples::p50).or(self.beside)?;
        (!other.is_zero()).then(|| self.times.p50().div_duration_f64(other))
    }
}

/// The middle of some counts.
pub(super) fn median(mut counts: Vec<u64>) -> u64 {
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.p50(), Duration::ZERO);
        for value in (1..=200).rev() {
            samples.push(Duration::from_micros(value));
        }
        assert_eq!(samples.p50(), Duration::from_micros(100));
        assert_eq!(samples.p99(), Duration::from_micros(198));
        let mut one = Samples::default();
        one.push(Duration::from_secs(1));
        assert_eq!((one.p50(), one.p99()), (Duration::from_secs(1), Duration::from_secs(1)));
    }

    #[test]
    fn a_ratio_is_to_the_floor_before_anything_else() {
        let samples = |micros| {
            let mut samples = Samples::default();
            samples.push(Duration::from_micros(micros));
            samples
        };
        let figure = Figure::new("restore", "", samples(300)).beside(Duration::from_micros(100));
        assert_eq!(figure.ratio(), Some(3.0));
        assert_eq!(figure.with_floor(samples(200)).ratio(), Some(1.5));
        assert_eq!(
            Figure::new("boot", "", samples(1)).with_floor(Samples::default()).ratio(),
            None
        );
    }
}
