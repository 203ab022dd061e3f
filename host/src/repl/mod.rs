//! `vmoon repl`: a conversation with Lua and with machines.
//!
//! Lua stays on the main thread, where tasks and machines' consoles go on between two inputs. The
//! line editor blocks, so it has a thread of its own; it asks Lua for completions by message.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | `command` | what the command line asks for |
//! | `talk` | the conversation at a terminal; also for other commands that want one |
//! | `failing` | the conversation about a test that failed |
//! | `piped` | the conversation with a pipe |
//! | `reader` | the thread of the line editor |
//! | `helper`, `lexer` | what the line editor needs to know of Lua: completion, colours, whole chunks |
//! | `files` | completion of paths |
//! | `history` | where inputs are kept |
//! | `consoles` | what guests print, above the prompt |

mod command;
mod consoles;
mod failing;
mod files;
mod helper;
mod history;
mod lexer;
mod piped;
mod reader;
mod talk;

pub(crate) use command::run;
pub(crate) use failing::about_failure;
