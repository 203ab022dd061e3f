//! Which reports there are in a run, and where they go.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use vmoon_lua::test::Event;

use super::Reporter;
use super::github::Github;
use super::html::Html;
use super::json::Json;
use super::junit::Junit;
use super::list::List;
use super::pretty::Pretty;
use super::tap::Tap;
use super::trace::Trace;
use crate::color::Color;
use crate::test::{Flags, Format, Tally};

/// The reports of a run.
pub(crate) struct Reporters(Vec<Box<dyn Reporter + Send>>);

impl fmt::Debug for Reporters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reporters").field(&self.0.len()).finish()
    }
}

impl Reporters {
    pub(crate) fn hear(&mut self, event: &Event, tally: &Tally) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|reporter| reporter.hear(event, tally))
    }

    pub(crate) fn end(&mut self, tally: &Tally) -> io::Result<()> {
        self.0.iter_mut().try_for_each(|reporter| reporter.end(tally))
    }
}

/// The tests of one script, for people.
pub(crate) fn for_people(color: bool) -> Reporters {
    Reporters(vec![Box::new(Pretty::new(color, false))])
}

/// The names of tests that would be run.
pub(crate) fn listing() -> Reporters {
    Reporters(vec![Box::new(List)])
}

/// What the command line asks for. Files are made now: a run whose report cannot be written is
/// not worth beginning.
pub(crate) fn of(arguments: &Flags, color: Color) -> anyhow::Result<Reporters> {
    let side_by_side = arguments.jobs.get() > 1;
    let pretty = || Box::new(Pretty::new(color.on_stdout(), side_by_side));
    let mut all: Vec<Box<dyn Reporter + Send>> = Vec::new();
    let out: Box<dyn Write + Send> = match &arguments.output {
        // Pretty and annotations are what people and GitHub read from standard output.
        Some(path) => {
            all.push(pretty());
            Box::new(file(path)?)
        }
        None => Box::new(io::stdout()),
    };
    match arguments.format {
        Format::Pretty if arguments.output.is_none() => all.push(pretty()),
        Format::Pretty => all.push(Box::new(Pretty::plain(out))),
        Format::Tap => all.push(Box::new(Tap::new(out))),
        Format::Junit => all.push(Box::new(Junit::new(out, arguments.output.is_none()))),
        Format::Json => all.push(Box::new(Json::new(out, arguments.output.is_none()))),
        Format::Github => {
            // The figures come last.
            all.insert(0, Box::new(Github::new(out)));
            if arguments.output.is_none() {
                all.push(pretty());
            }
        }
    }
    // Before what people read, whose figures come last.
    if let Some(path) = &arguments.html {
        all.insert(0, Box::new(Html::new(Box::new(file(path)?))));
    }
    if let Some(path) = &arguments.trace {
        all.insert(0, Box::new(Trace::new(Box::new(file(path)?))));
    }
    Ok(Reporters(all))
}

fn file(path: &Path) -> anyhow::Result<BufWriter<std::fs::File>> {
    let file = std::fs::File::create(path)
        .with_context(|| format!("the report {} cannot be written", path.display()))?;
    Ok(BufWriter::new(file))
}
