//! A bar on standard error for works on files that take long, where that is a terminal.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vmoon_core::saved::progress::Listener;
use vmoon_core::saved::{Step, Work};

/// How long a work may take without a word.
const PATIENCE: Duration = Duration::from_secs(1);

const TEMPLATE: &str = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {eta} left";

/// What draws the bar; none where nobody would see it.
pub(crate) fn listener() -> Option<Listener> {
    let shown = std::io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb");
    shown.then(|| {
        let drawn = Mutex::new(Drawn::default());
        let listener: Listener = Arc::new(move |step| {
            drawn.lock().unwrap_or_else(PoisonError::into_inner).hear(step);
        });
        listener
    })
}

/// The bar of the work that spoke last.
#[derive(Default)]
struct Drawn {
    begun: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Drawn {
    fn hear(&mut self, step: Step) {
        if step.ended {
            self.begun = None;
            if let Some(bar) = self.bar.take() {
                bar.finish_and_clear();
            }
            return;
        }
        if self.begun.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| bar(step.work));
        bar.set_length(step.total.max(step.done));
        bar.set_position(step.done);
    }
}

fn bar(work: Work) -> ProgressBar {
    let what = match work {
        Work::Saving => "saving",
        Work::Loading => "loading",
        Work::Verifying => "verifying",
        Work::Committing => "committing",
        Work::CopyingIn => "copying in",
        Work::CopyingOut => "copying out",
    };
    let style = ProgressStyle::with_template(TEMPLATE);
    // The template is constant: it is right or wrong for everybody.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_right() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn a_short_work_draws_nothing_and_a_long_one_a_bar() {
        let mut drawn = Drawn::default();
        let step = Step { work: Work::Saving, done: 1, total: 2, ended: false };
        drawn.hear(step);
        assert!(drawn.bar.is_none());
        drawn.begun = Instant::now().checked_sub(PATIENCE);
        drawn.hear(step);
        assert_eq!(drawn.bar.as_ref().map(ProgressBar::position), Some(1));
        drawn.hear(Step { ended: true, ..step });
        assert!(drawn.bar.is_none() && drawn.begun.is_none());
    }
}
