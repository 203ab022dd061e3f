//! The module `vmoon.test`: the part of it that is Rust.
//!
//! The words, the expectations and the order in which things run are Lua, in `stdlib/test`. What
//! happens is told to a [`Sink`] as [`Event`]s; who listens makes reports of them.
//!
//! | module | holds |
//! | --- | --- |
//! | [`event`] | what happens in a run of tests |
//! | [`settings`] | how tests are run, and which |
//! | [`fixtures`] | the fixtures that the files of a run share |
//! | `content` | what a fixture is made of, as one hash |
//! | `module` | loads the Lua sources |
//! | `state` | what is known of the file that runs |
//! | `describing` | functions for the words that describe tests, and for expectations |
//! | `running` | functions for the order of things |
//! | `attempt` | calls a hook or a test, and keeps what failed |
//! | `bundle` | what is kept of a test that failed |
//! | `finish` | how a test ended, from Lua's table to an event |
//! | `machines` | functions for fixtures |
//! | `talking` | a conversation about a test that failed |
//! | `output` | what tests print |

mod attempt;
mod bundle;
mod content;
mod describing;
pub mod event;
mod finish;
pub mod fixtures;
mod machines;
mod module;
mod output;
mod running;
pub mod settings;
mod state;
mod talking;

pub use event::Event;
pub(crate) use module::{make, runner};
pub use settings::{Settings, Sink};
pub use talking::CONVERSATION;
