//! `--list`: the tests that would be run, one a line, as busted lists them.

use std::io::{self, Write};

use vmoon_lua::test::Event;
use vmoon_lua::test::event::Outcome;

use super::{Reporter, failure};
use crate::test::Tally;

#[derive(Debug)]
pub(super) struct List;

impl Reporter for List {
    fn hear(&mut self, event: &Event, _: &Tally) -> io::Result<()> {
        match event {
            Event::Listed(test) => {
                writeln!(io::stdout(), "{}:{}: {}", test.file, test.line, test.full())
            }
            // A file that cannot be read.
            Event::TestFinished(result) if result.outcome == Outcome::Failed => {
                let mut text = Vec::new();
                failure::write(&mut text, result, &failure::PLAIN)?;
                io::stderr().write_all(&text)
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, _: &Tally) -> io::Result<()> {
        io::stdout().flush()
    }
}
