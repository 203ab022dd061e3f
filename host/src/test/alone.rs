//! The tests of a script that `vmoon run` runs: they run once the script has ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vmoon_lua::test::settings::Settings;

use super::Tally;
use crate::report::{self, Reporters};

/// Hears of the tests of one script.
#[derive(Debug, Default)]
pub(crate) struct Alone(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tally: Tally,
    reporters: Option<Reporters>,
}

impl Alone {
    /// The settings with which the script's tests are run, and who hears of them.
    pub(crate) fn new(file: &str, color: bool) -> (Settings, Arc<Self>) {
        let alone = Arc::new(Self::default());
        let hearing = alone.clone();
        let sink = Arc::new(move |event| {
            let state = &mut *hearing.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.tally.hear(&event);
            let reporters = state.reporters.get_or_insert_with(|| report::for_people(color));
            // A closed standard output leaves nobody to tell.
            let _ = reporters.hear(&event, &state.tally);
        });
        (Settings::new(file, sink), alone)
    }

    /// Tells the end; the exit status of the tests, if there were any.
    pub(crate) fn end(&self, epoch: Instant) -> Option<i32> {
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reporters = state.reporters.take()?;
        state.tally.duration = epoch.elapsed();
        state.tally.files = 1;
        if state.tally.ended() == 0 {
            return None;
        }
        let _ = reporters.end(&state.tally);
        Some(state.tally.status())
    }
}
