//! Commands that run while the script goes on.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mlua::{Lua, UserData, UserDataRegistry, Value};
use vmoon_core::vm::{self, ExecResult, Output, ProcessInput};
use vmoon_core::{Code, Error, Vm};

use crate::class::{self, Class, Handle, Results, iterator};
use crate::fault::Outcome;
use crate::machine::result_table;
use crate::slot::Slot;

/// A running command.
#[derive(Clone, Debug)]
pub(crate) struct Process(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    vm: Weak<Vm>,
    command: String,
    input: ProcessInput,
    output: Slot<Reader>,
}

/// Which of a command's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Stdout,
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The output with what was received and not yet given to the script.
#[derive(Debug)]
struct Reader {
    process: vm::Process,
    /// Lines without an end, by stream.
    partial: [Vec<u8>; 2],
    lines: VecDeque<(Vec<u8>, Source)>,
    exit: Option<ExecResult>,
}

impl Reader {
    /// The next output; none when the command has ended. Cancel-safe.
    async fn receive(&mut self) -> Outcome<Option<(Vec<u8>, Source)>> {
        if self.exit.is_some() {
            return Ok(None);
        }
        Ok(match self.process.next().await? {
            Output::Stdout(bytes) => Some((bytes, Source::Stdout)),
            Output::Stderr(bytes) => Some((bytes, Source::Stderr)),
            Output::Exit(result) => {
                self.exit = Some(result);
                None
            }
        })
    }

    /// What [`Reader::line`] has received and not given, as it came.
    fn leftover(&mut self) -> Option<(Vec<u8>, Source)> {
        if let Some((mut line, source)) = self.lines.pop_front() {
            line.push(b'\n');
            return Some((line, source));
        }
        [Source::Stdout, Source::Stderr].into_iter().find_map(|source| {
            let partial = std::mem::take(&mut self.partial[source as usize]);
            (!partial.is_empty()).then_some((partial, source))
        })
    }

    async fn chunk(&mut self) -> Outcome<Option<(Vec<u8>, Source)>> {
        match self.leftover() {
            Some(leftover) => Ok(Some(leftover)),
            None => self.receive().await,
        }
    }

    async fn line(&mut self) -> Outcome<Option<(Vec<u8>, Source)>> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            let Some((bytes, source)) = self.receive().await? else {
                return Ok(self.leftover());
            };
            let partial = &mut self.partial[source as usize];
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                partial.extend_from_slice(piece);
                if partial.last() == Some(&b'\n') {
                    partial.pop();
                    self.lines.push_back((std::mem::take(partial), source));
                }
            }
        }
    }

    /// How the command ended, with the output that nobody read.
    async fn wait(&mut self) -> Outcome<ExecResult> {
        let mut result = ExecResult::default();
        while let Some((bytes, source)) = self.chunk().await? {
            match source {
                Source::Stdout => result.stdout.extend_from_slice(&bytes),
                Source::Stderr => result.stderr.extend_from_slice(&bytes),
            }
        }
        let exit = self.exit.clone().unwrap_or_default();
        Ok(ExecResult { stdout: result.stdout, stderr: result.stderr, ..exit })
    }
}

impl Process {
    pub(crate) fn new(vm: &Arc<Vm>, process: vm::Process, command: String) -> Self {
        let input = process.input();
        let reader = Reader {
            process,
            partial: [Vec::new(), Vec::new()],
            lines: VecDeque::new(),
            exit: None,
        };
        Self(Rc::new(Inner { vm: Arc::downgrade(vm), command, input, output: Slot::new(reader) }))
    }

    /// Reads output with `read`; nil at its end.
    async fn output(
        &self,
        lua: &Lua,
        read: impl AsyncFnOnce(&mut Reader) -> Outcome<Option<(Vec<u8>, Source)>>,
    ) -> Outcome<(Value, Value)> {
        match self.0.output.with(read).await {
            None => Err(self.closed().into()),
            Some(Err(fault)) => Err(fault),
            Some(Ok(None)) => Ok((Value::Nil, Value::Nil)),
            Some(Ok(Some((bytes, source)))) => Ok((
                Value::String(lua.create_string(bytes)?),
                Value::String(lua.create_string(source.name())?),
            )),
        }
    }

    fn check_open(&self) -> Outcome<()> {
        if self.0.output.is_open() { Ok(()) } else { Err(self.closed().into()) }
    }

    fn late(&self, timeout: Duration) -> Error {
        let message = format!("{:?} did not end within {timeout:?}", self.0.command);
        Error::new(Code::ExecTimeout, message).with_hint("it runs on; proc:kill() ends it")
    }

    fn closed(&self) -> Error {
        Error::new(Code::VsockReset, format!("the process {:?} was closed", self.0.command))
            .with_hint("proc:wait() before proc:close() tells how it ended")
    }
}

impl UserData for Process {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Process {
    const NAME: &'static str = "proc";

    fn machine(&self) -> Option<Arc<Vm>> {
        self.0.vm.upgrade()
    }

    fn title(&self) -> String {
        format!("proc ({})", self.0.command)
    }

    /// Dropping the connection makes the guest kill the command.
    fn close(&self) {
        self.0.output.close();
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.waiting("proc:read", Results::Two, async |lua: Lua, this: Self, _| {
            this.output(&lua, async |reader| reader.chunk().await).await
        })?;
        class.waiting("proc:read_line", Results::Two, async |lua: Lua, this: Self, _| {
            this.output(&lua, async |reader| reader.line().await).await
        })?;
        class.method("proc:lines", Results::All, |lua, this, _| {
            iterator(lua, this, "read_line", false)
        })?;
        class.waiting("proc:write", Results::None, async |_, this: Self, arguments| {
            this.check_open()?;
            let data = arguments.string(0, "a string")?;
            let bytes = data.as_bytes();
            Ok(this.0.input.write(&bytes).await?)
        })?;
        class.waiting("proc:close_stdin", Results::None, async |_, this: Self, _| {
            this.check_open()?;
            Ok(this.0.input.close().await?)
        })?;
        class.waiting("proc:wait", Results::One, async |lua: Lua, this: Self, arguments| {
            let timeout = arguments.options(0, &["timeout"])?.duration("timeout")?;
            let waiting = this.0.output.with(async |reader| reader.wait().await);
            let limit = timeout.unwrap_or(Duration::MAX);
            let ended = tokio::time::timeout(limit, waiting)
                .await
                .map_err(|_| this.late(timeout.unwrap_or_default()))?;
            Ok(result_table(&lua, &ended.ok_or_else(|| this.closed())??)?)
        })?;
        class.waiting("proc:kill", Results::None, async |_, this: Self, arguments| {
            this.check_open()?;
            let signal = signal(arguments.value(0)).ok_or_else(|| {
                arguments.wrong(0, "a signal: a name such as \"TERM\", or a number")
            })?;
            Ok(this.0.input.signal(signal).await?)
        })?;
        class.method("proc:close", Results::None, |_, this, _| {
            this.close();
            Ok(())
        })
    }
}

/// A Linux signal (signal(7), x86-64) by name, with or without `SIG`, or by number.
fn signal(value: &Value) -> Option<i32> {
    const NAMES: [(&str, i32); 16] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
    ];
    match value {
        Value::Nil => Some(9),
        Value::String(text) => {
            let text = text.to_str().ok()?.to_ascii_uppercase();
            let name = text.strip_prefix("SIG").unwrap_or(&text);
            NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
        }
        other => crate::arguments::whole(other)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| (1..=64).contains(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        let lua = Lua::new();
        let named = |name: &str| signal(&Value::String(lua.create_string(name).unwrap()));
        assert_eq!(named("TERM"), Some(15));
        assert_eq!(named("sigint"), Some(2));
        assert_eq!(named("SIGNAL"), None);
        assert_eq!(signal(&Value::Integer(12)), Some(12));
        assert_eq!(signal(&Value::Integer(0)), None);
        assert_eq!(signal(&Value::Nil), Some(9));
    }
}
