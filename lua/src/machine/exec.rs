//! The methods that run commands in the guest.

use std::time::Duration;

use mlua::{Lua, Table, Value};
use vmoon_core::spec::Guest;
use vmoon_core::vm::{ExecRequest, ExecResult, TerminalSize};
use vmoon_core::{Code, Error};
use vmoon_protocol::message::Command;

use super::Machine;
use crate::arguments::{Arguments, wrong};
use crate::class::{Class, Results};
use crate::fault::Outcome;
use crate::options::Options;
use crate::process::Process;
use crate::terminal::USUAL_SIZE;

/// The options of a command.
const OPTIONS: &[&str] = &["stdin", "env", "cwd", "timeout", "user"];

/// Those of a command that is spawned.
const SPAWN_OPTIONS: &[&str] = &["stdin", "env", "cwd", "timeout", "user", "pty"];

/// How much of a failed command's output an error carries, in bytes and in lines.
const TAIL: (usize, usize) = (2048, 12);

/// What a shell answers, and the built-in guest too, when there is no such command.
const COMMAND_NOT_FOUND: i32 = 127;

/// The hint for who takes the built-in guest for Linux.
const MICRO_COMMANDS: &str = "the built-in guest has a few commands of its own (echo, put, get, \
                              dirty, checksum, …) and no shell; guest = \"linux\" has one";

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:exec", Results::One, async |lua: Lua, this: Machine, arguments| {
        let request = request(&arguments)?;
        let result = this.vm().exec(request).await?;
        Ok(result_table(&lua, &result)?)
    })?;
    class.waiting("vm:spawn", Results::One, async |_, this: Machine, arguments| {
        let request = spawn_request(&arguments)?;
        let described = request.describe();
        let process = this.vm().spawn(request).await?;
        Ok(Process::new(this.vm(), process, described))
    })?;
    class.waiting("vm:succeed", Results::One, async |lua: Lua, this: Machine, arguments| {
        each(&lua, &this, arguments, true).await
    })?;
    class.waiting("vm:fail", Results::One, async |lua: Lua, this: Machine, arguments| {
        each(&lua, &this, arguments, false).await
    })
}

/// Runs the commands one after the other; the standard output of all of them.
async fn each(
    lua: &Lua,
    this: &Machine,
    arguments: Arguments,
    succeeds: bool,
) -> Outcome<mlua::LuaString> {
    let function = arguments.function();
    let mut commands: Vec<Value> = arguments.rest(0).into_iter().collect();
    let options = match commands.last() {
        Some(Value::Table(table)) if table.raw_len() == 0 => {
            let options = Options::new(function, table.clone(), OPTIONS)?;
            commands.pop();
            options
        }
        _ => Options::none(function),
    };
    if commands.is_empty() {
        commands.push(Value::Nil);
    }
    let mut stdout = Vec::new();
    for (index, command) in commands.into_iter().enumerate() {
        let mut request =
            ExecRequest { command: parse(function, index, &command)?, ..ExecRequest::default() };
        apply(&mut request, &options)?;
        let described = request.describe();
        let result = this.vm().exec(request).await?;
        if result.ok() != succeeds {
            let error = unexpected(&described, &result, succeeds);
            let micro = matches!(this.vm().spec().guest, Guest::Micro);
            return Err(if micro && result.code == COMMAND_NOT_FOUND {
                error.with_hint(MICRO_COMMANDS).into()
            } else {
                error.into()
            });
        }
        stdout.extend_from_slice(&result.stdout);
    }
    Ok(lua.create_string(stdout)?)
}

/// The error of a command that ended as it should not.
fn unexpected(command: &str, result: &ExecResult, succeeds: bool) -> Error {
    let tail = tail(result);
    let how = match result.signal {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("exited with code {}", result.code),
    };
    let mut message = format!("{command:?} {how}");
    if !succeeds {
        message.push_str(", but was to fail");
    }
    if let Some(line) = tail.lines().rfind(|line| !line.trim().is_empty()) {
        message.push_str(": ");
        message.push_str(line.trim());
    }
    let error = Error::new(Code::ExecStatus, message)
        .with_detail("command", command)
        .with_detail("status", result.code)
        .with_detail("output", tail);
    match result.signal {
        Some(signal) => error.with_detail("signal", signal),
        None => error,
    }
}

/// The end of what a command printed: of its standard error, or where that is empty of its
/// standard output.
pub(super) fn tail(result: &ExecResult) -> String {
    let bytes = if result.stderr.is_empty() { &result.stdout } else { &result.stderr };
    let bytes = &bytes[bytes.len().saturating_sub(TAIL.0)..];
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL.1)..].join("\n")
}

/// The request of `(cmd, opts)`.
pub(super) fn request(arguments: &Arguments) -> Outcome<ExecRequest> {
    let mut request = command(arguments)?;
    apply(&mut request, &arguments.options(1, OPTIONS)?)?;
    Ok(request)
}

/// The request of a command without its options.
pub(super) fn command(arguments: &Arguments) -> Outcome<ExecRequest> {
    let command = parse(arguments.function(), 0, arguments.value(0))?;
    Ok(ExecRequest { command, ..ExecRequest::default() })
}

/// Like [`request`]; standard input stays open unless it is given whole, or is `false`.
fn spawn_request(arguments: &Arguments) -> Outcome<ExecRequest> {
    let mut request = command(arguments)?;
    let options = arguments.options(1, SPAWN_OPTIONS)?;
    request.terminal = terminal(&options)?;
    let closed = options.value("stdin")? == Value::Boolean(false);
    apply(&mut request, &options)?;
    request.keep_stdin_open = request.stdin.is_none() && !closed;
    Ok(request)
}

/// The terminal of a command: `true` for one of the usual size, or `{ rows, cols }`.
fn terminal(options: &Options) -> Outcome<Option<TerminalSize>> {
    const WANTED: &str = "true, or a table { rows = 24, cols = 80 }";
    let value = options.value("pty")?;
    match &value {
        Value::Nil | Value::Boolean(false) => Ok(None),
        Value::Boolean(true) => Ok(Some(USUAL_SIZE)),
        Value::Table(table) => {
            let size = Options::new(options.function(), table.clone(), &["rows", "cols"])?;
            let number = |key: &str, usual: u16| -> Outcome<u16> {
                let count = size.count(key)?.unwrap_or(usual.into());
                Ok(u16::try_from(count).map_err(|_| options.wrong("pty", WANTED, &value))?)
            };
            let (rows, columns) =
                (number("rows", USUAL_SIZE.rows)?, number("cols", USUAL_SIZE.columns)?);
            Ok(Some(TerminalSize { rows, columns }))
        }
        _ => Err(options.wrong("pty", WANTED, &value).into()),
    }
}

fn parse(function: &'static str, index: usize, value: &Value) -> Outcome<Command> {
    const WANTED: &str = "a command: text for the guest's shell, or a table of arguments";
    let refuse = || wrong(&format!("argument {} of {function}", index + 1), WANTED, value);
    match value {
        Value::String(text) => Ok(Command::Shell(text.as_bytes().to_vec())),
        Value::Table(table) => {
            let arguments: Vec<Vec<u8>> = table
                .sequence_values::<Value>()
                .map(|argument| match argument {
                    Ok(Value::String(text)) => Ok(text.as_bytes().to_vec()),
                    Ok(Value::Integer(number)) => Ok(number.to_string().into_bytes()),
                    Ok(Value::Number(number)) => Ok(number.to_string().into_bytes()),
                    _ => Err(refuse()),
                })
                .collect::<Result<_, _>>()?;
            if arguments.is_empty() {
                Err(refuse().into())
            } else {
                Ok(Command::Arguments(arguments))
            }
        }
        _ => Err(refuse().into()),
    }
}

pub(super) fn apply(request: &mut ExecRequest, options: &Options) -> Outcome<()> {
    request.stdin = match options.value("stdin")? {
        Value::Nil | Value::Boolean(false) => None,
        _ => options.string("stdin")?.map(|text| text.as_bytes().to_vec()),
    };
    request.directory = options.string("cwd")?.map(|text| text.as_bytes().to_vec());
    request.timeout = options.duration("timeout")?;
    request.user = match options.value("user")? {
        Value::Integer(number) => Some(number.to_string()),
        _ => options.text("user")?,
    };
    if let Some(variables) = options.table("env", "a table of names and values")? {
        for pair in variables.pairs::<Value, Value>() {
            let (name, value) = pair?;
            let (Value::String(name), Some(value)) = (&name, variable(&value)) else {
                return Err(options
                    .wrong(
                        "env",
                        "a table from names to strings or numbers",
                        &Value::Table(variables),
                    )
                    .into());
            };
            request.environment.push((name.as_bytes().to_vec(), value));
        }
    }
    Ok(())
}

fn variable(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

/// `{ code, signal, stdout, stderr, ok, duration }`.
pub(crate) fn result_table(lua: &Lua, result: &ExecResult) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, 6)?;
    table.raw_set("code", result.code)?;
    table.raw_set("signal", result.signal)?;
    table.raw_set("stdout", lua.create_string(&result.stdout)?)?;
    table.raw_set("stderr", lua.create_string(&result.stderr)?)?;
    table.raw_set("ok", result.ok())?;
    table.raw_set("duration", result.duration.as_secs_f64())?;
    Ok(table)
}

/// Time left of `timeout` since `start`, none when it is over.
pub(super) fn left(start: std::time::Instant, timeout: Duration) -> Option<Duration> {
    timeout.checked_sub(start.elapsed()).filter(|left| !left.is_zero())
}
