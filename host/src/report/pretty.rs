//! The report for people.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use vmoon_lua::test::Event;
use vmoon_lua::test::event::{Outcome, Subtest, TestResult};

use super::Reporter;
use super::failure::{self, COLOURED, PLAIN, Palette, title};
use super::live::Live;
use crate::test::{Cut, Tally};

pub(super) struct Pretty {
    out: Box<dyn Write + Send>,
    palette: &'static Palette,
    live: Live,
    /// Whether files run side by side: then each is told of as a whole.
    side_by_side: bool,
    files: HashMap<usize, File>,
    failed: Vec<TestResult>,
    flaky: Vec<TestResult>,
}

/// What is told of the file that a worker runs.
#[derive(Debug, Default)]
struct File {
    named: bool,
    blocks: Vec<String>,
    held: Vec<u8>,
}

impl Pretty {
    /// On standard output.
    pub(super) fn new(color: bool, side_by_side: bool) -> Self {
        Self {
            out: Box::new(io::stdout()),
            palette: if color { &COLOURED } else { &PLAIN },
            live: Live::new(),
            side_by_side,
            files: HashMap::new(),
            failed: Vec::new(),
            flaky: Vec::new(),
        }
    }

    /// In a file.
    pub(super) fn plain(out: Box<dyn Write + Send>) -> Self {
        Self { out, palette: &PLAIN, ..Self::new(false, true) }
    }

    fn flush(&mut self, worker: usize) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&worker) else { return Ok(()) };
        let held = std::mem::take(&mut file.held);
        let out = &mut self.out;
        self.live.above(|| {
            out.write_all(&held)?;
            out.flush()
        })
    }

    /// Shows what failed at once: somebody is about to look into it, and needs the terminal.
    fn failing(&mut self, result: &TestResult) -> io::Result<()> {
        self.live.end();
        let Palette { bad, reset, .. } = self.palette;
        writeln!(self.out, "\n{bad}✗ {}{reset}", title(&result.test))?;
        failure::write(&mut self.out, result, self.palette)?;
        self.out.flush()
    }

    fn finished(&mut self, result: &TestResult) -> io::Result<()> {
        let palette = self.palette;
        let file = self.files.entry(result.worker).or_default();
        file.write(result, palette)?;
        match result.outcome {
            Outcome::Failed => self.failed.push(result.clone()),
            Outcome::Flaky => self.flaky.push(result.clone()),
            Outcome::Passed | Outcome::Skipped(_) => {}
        }
        if self.side_by_side { Ok(()) } else { self.flush(result.worker) }
    }
}

impl File {
    /// Writes the line of a test, below the names of its file and its blocks.
    fn write(&mut self, result: &TestResult, palette: &Palette) -> io::Result<()> {
        let Palette { bold, reset, .. } = palette;
        if !self.named {
            self.named = true;
            writeln!(self.held, "{bold}{}{reset}", result.test.file)?;
        }
        let (blocks, name) = match result.test.path.split_last() {
            Some((name, blocks)) => (blocks, name.as_str()),
            None => (&[][..], "the file itself"),
        };
        let known = self.blocks.iter().zip(blocks).take_while(|(one, other)| one == other).count();
        for (depth, block) in blocks.iter().enumerate().skip(known) {
            writeln!(self.held, "{:1$}{block}", "", 2 * (depth + 1))?;
        }
        self.blocks = blocks.to_vec();
        let depth = blocks.len() + 1;
        line(&mut self.held, depth, name, &result.outcome, result.duration, palette)?;
        subtests(&mut self.held, depth + 1, &result.subtests, palette)
    }
}

fn subtests(
    out: &mut impl Write,
    depth: usize,
    parts: &[Subtest],
    palette: &Palette,
) -> io::Result<()> {
    for part in parts {
        line(out, depth, &part.name, &part.outcome, part.duration, palette)?;
        subtests(out, depth + 1, &part.subtests, palette)?;
    }
    Ok(())
}

fn line(
    out: &mut impl Write,
    depth: usize,
    name: &str,
    outcome: &Outcome,
    duration: Duration,
    palette: &Palette,
) -> io::Result<()> {
    let Palette { bad, good, odd, dim, reset, .. } = palette;
    let indent = 2 * depth;
    let time = time(duration);
    match outcome {
        Outcome::Passed => {
            writeln!(out, "{:indent$}{good}✓{reset} {name} {dim}({time}){reset}", "")
        }
        Outcome::Flaky => {
            writeln!(
                out,
                "{:indent$}{odd}✓{reset} {name} {odd}flaky{reset} {dim}({time}){reset}",
                ""
            )
        }
        Outcome::Failed => {
            writeln!(out, "{:indent$}{bad}✗ {name}{reset} {dim}({time}){reset}", "")
        }
        Outcome::Skipped(reason) => {
            writeln!(out, "{:indent$}{odd}-{reset} {name} {dim}(skipped: {reason}){reset}", "")
        }
    }
}

/// A duration for people.
pub(super) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

impl Reporter for Pretty {
    fn hear(&mut self, event: &Event, tally: &Tally) -> io::Result<()> {
        self.live.hear(event, tally);
        match event {
            Event::FileStarted { worker, .. } => {
                self.files.insert(*worker, File::default());
                Ok(())
            }
            Event::Failing(result) => self.failing(result),
            Event::TestFinished(result) => self.finished(result),
            Event::FileFinished { worker, .. } => self.flush(*worker),
            Event::Planned { .. }
            | Event::Listed(_)
            | Event::TestStarted { .. }
            | Event::Span(_) => Ok(()),
        }
    }

    fn end(&mut self, tally: &Tally) -> io::Result<()> {
        let workers: Vec<usize> = self.files.keys().copied().collect();
        for worker in workers {
            self.flush(worker)?;
        }
        self.live.end();
        let mut text = Vec::new();
        for (number, result) in self.failed.iter().chain(&self.flaky).enumerate() {
            details(&mut text, number + 1, result, self.palette)?;
        }
        summary(&mut text, tally, self.palette)?;
        self.out.write_all(&text)?;
        self.out.flush()
    }
}

/// All that is known of a test that failed.
fn details(
    out: &mut Vec<u8>,
    number: usize,
    result: &TestResult,
    palette: &Palette,
) -> io::Result<()> {
    let Palette { bad, odd, bold, dim, reset, .. } = palette;
    let test = &result.test;
    let colour = if result.outcome == Outcome::Flaky { odd } else { bad };
    let flaky =
        if result.outcome == Outcome::Flaky { " (flaky: it passed in the end)" } else { "" };
    writeln!(out, "\n{bold}{colour}{number}) {}{reset}{flaky}", title(test))?;
    if test.line > 0 {
        writeln!(out, "{dim}{}:{}{reset}", test.file, test.line)?;
    }
    failure::write(out, result, palette)?;
    if let Some(folder) = &result.artifacts {
        writeln!(out, "  {dim}kept in{reset}  {}", folder.display())?;
    }
    writeln!(out, "  {dim}run it{reset}   {}", again(result))
}

/// The command that runs this test alone.
pub(super) fn again(result: &TestResult) -> String {
    let full = result.test.full();
    if full.is_empty() {
        return format!("vmoon test {}", shell(&result.test.file));
    }
    format!("vmoon test {} --filter {}", shell(&result.test.file), shell(&full))
}

/// A word as a shell reads it.
fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn summary(out: &mut Vec<u8>, tally: &Tally, palette: &Palette) -> io::Result<()> {
    let Palette { bad, good, odd, dim, reset, .. } = palette;
    writeln!(out)?;
    let why = match tally.cut {
        None => None,
        Some(Cut::Failure) => Some("stopped after the first failure"),
        Some(Cut::Deadline) => Some("stopped at the deadline (--timeout)"),
        Some(Cut::Interrupted) => Some("interrupted"),
        Some(Cut::Terminated) => Some("terminated"),
    };
    if let Some(why) = why {
        writeln!(out, "{odd}{why}; {} selected tests did not end{reset}", tally.unfinished)?;
    }
    if tally.flaky > 0 {
        writeln!(out, "{odd}{} of the passed are flaky{reset}", tally.flaky)?;
    }
    if let Some(seed) = tally.seed {
        writeln!(out, "{dim}shuffled with --seed {seed}{reset}")?;
    }
    let files = if tally.files == 1 { "file" } else { "files" };
    writeln!(out, "{dim}{} {files} in {}{reset}", tally.files, time(tally.duration))?;
    let colour = if tally.failed > 0 { bad } else { good };
    writeln!(out, "{colour}{}{reset}", tally.line())
}
