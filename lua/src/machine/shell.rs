//! `vm:shell()`: the user's terminal on a program of the guest.

use mlua::{Lua, Value};
use vmoon_core::vm::{ExecRequest, ExecResult, Output, Process};
use vmoon_core::{Code, Error};

use super::Machine;
use super::exec::{apply, command, result_table};
use crate::arguments::Arguments;
use crate::class::{Class, Results};
use crate::fault::Outcome;
use crate::terminal::{self, Terminal};

/// The shell that people like best.
const SHELL: &str = "command -v bash >/dev/null && exec bash -l; exec sh -l";

/// Ctrl-], which leaves a program that does not end.
const LEAVE: u8 = 0x1d;

const OPTIONS: &[&str] = &["env", "cwd", "user"];

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:shell", Results::One, async |lua: Lua, this: Machine, arguments| {
        let mut request = request(&arguments)?;
        let terminal = Terminal::take()?;
        request.terminal = Some(terminal.size());
        let process = this.vm().spawn(request).await?;
        let ended = attach(&terminal, process).await;
        drop(terminal);
        Ok(match ended? {
            Some(result) => Value::Table(result_table(&lua, &result)?),
            None => Value::Nil,
        })
    })
}

fn request(arguments: &Arguments) -> Outcome<ExecRequest> {
    let mut request = match arguments.value(0) {
        Value::Nil => ExecRequest::shell(SHELL),
        _ => command(arguments)?,
    };
    apply(&mut request, &arguments.options(1, OPTIONS)?)?;
    request.keep_stdin_open = true;
    let named = request.environment.iter().any(|(name, _)| name == b"TERM");
    if !named && let Some(name) = std::env::var_os("TERM") {
        request.environment.push((b"TERM".to_vec(), name.into_encoded_bytes()));
    }
    Ok(request)
}

/// Carries keys, output and sizes until the program ends; none when the user leaves it, which
/// ends it too.
async fn attach(terminal: &Terminal, mut process: Process) -> Outcome<Option<ExecResult>> {
    let input = process.input();
    let mut resizes = terminal::resizes()?;
    loop {
        tokio::select! {
            biased;
            output = process.next() => match output? {
                Output::Stdout(bytes) | Output::Stderr(bytes) => {
                    terminal::show(&bytes).map_err(lost)?;
                }
                Output::Exit(result) => return Ok(Some(result)),
            },
            typed = terminal.typed() => {
                let typed = typed.map_err(lost)?;
                if typed.is_empty() || typed.contains(&LEAVE) {
                    return Ok(None);
                }
                // A program that does not read must still be heard, and may end.
                tokio::select! {
                    written = input.write(&typed) => written?,
                    ended = until_end(&mut process) => return ended.map(Some),
                }
            }
            _ = resizes.recv() => input.resize(terminal.size()).await?,
        }
    }
}

async fn until_end(process: &mut Process) -> Outcome<ExecResult> {
    loop {
        match process.next().await? {
            Output::Stdout(bytes) | Output::Stderr(bytes) => {
                terminal::show(&bytes).map_err(lost)?;
            }
            Output::Exit(result) => return Ok(result),
        }
    }
}

fn lost(error: std::io::Error) -> Error {
    Error::new(Code::FileIo, "the terminal was lost").with_source(error)
}
