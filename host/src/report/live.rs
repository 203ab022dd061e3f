//! The line at the bottom of a terminal: what runs, and the figures so far.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use vmoon_lua::test::Event;

use super::failure::title;
use crate::test::Tally;

const TEMPLATE: &str = "{spinner} {msg}";

/// Draws nothing where there is no terminal.
#[derive(Debug)]
pub(super) struct Live {
    bar: Option<ProgressBar>,
    running: BTreeMap<usize, String>,
}

impl Live {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal()
            && std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template(TEMPLATE)
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, running: BTreeMap::new() }
    }

    pub(super) fn hear(&mut self, event: &Event, tally: &Tally) {
        let Some(bar) = &self.bar else { return };
        match event {
            Event::FileStarted { file, worker, .. } => {
                self.running.insert(*worker, file.clone());
            }
            Event::TestStarted { test, worker, .. } => {
                self.running.insert(*worker, title(test));
            }
            Event::FileFinished { worker, .. } => {
                self.running.remove(worker);
            }
            _ => return,
        }
        let running: Vec<&str> = self.running.values().map(String::as_str).collect();
        bar.set_message(format!("{}  {}", tally.line(), running.join(" · ")));
    }

    /// Writes above the line.
    pub(super) fn above<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
