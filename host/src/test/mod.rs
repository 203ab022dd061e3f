//! `vmoon test`.
//!
//! | module | holds |
//! | --- | --- |
//! | `flags` | the flags |
//! | `command` | the command: from its flags to its exit status |
//! | `discover` | finds the files |
//! | `workers` | runs files side by side |
//! | `ending` | what the end of a file says about its tests |
//! | `tally` | counts, and the exit status |
//! | `alone` | the tests of a script that `vmoon run` runs |

mod alone;
mod command;
mod discover;
mod ending;
mod flags;
mod tally;
mod workers;

pub(crate) use alone::Alone;
pub(crate) use command::run;
pub(crate) use flags::{Flags, Format};
pub(crate) use tally::{Cut, Tally};
