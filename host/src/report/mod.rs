//! What is told of tests: each report hears the same events.
//!
//! | module | holds |
//! | --- | --- |
//! | `reporters` | which reports there are in a run, and where they go |
//! | `pretty` | for people |
//! | `live` | the line at the bottom of a terminal |
//! | `failure` | a failure in words, with the difference of what was expected and observed |
//! | `list` | `--list` |
//! | `tap` | TAP 14 |
//! | `junit` | JUnit's XML |
//! | `json` | JSON lines |
//! | `github` | annotations, and a summary |
//! | `html` | a page for browsers |
//! | `trace` | Chrome trace events |

mod failure;
mod github;
mod html;
mod json;
mod junit;
mod list;
mod live;
mod pretty;
mod reporters;
mod tap;
mod trace;

use std::io;

use vmoon_lua::test::Event;

pub(crate) use reporters::{Reporters, for_people, listing, of};

use crate::test::Tally;

/// Makes a report of what happens.
pub(crate) trait Reporter {
    /// Hears of one event; `tally` counts it already.
    fn hear(&mut self, event: &Event, tally: &Tally) -> io::Result<()>;

    /// Hears that the run is over.
    fn end(&mut self, tally: &Tally) -> io::Result<()>;
}
