//! Commands that run while the script goes on.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mlua::{Lua, UserData, UserDataRegistry, Value};
use vmoon_core::vm::{self, ProcessInput, TerminalSize};
use vmoon_core::{Code, Error, Vm};

use crate::arguments::Arguments;
use crate::class::{self, Class, Handle, Results, iterator_with};
use crate::fault::{Fault, Outcome};
use crate::machine::result_table;
use crate::slot::Slot;

mod output;
mod signal;

use output::{Reader, Source, Wanted};

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

impl Process {
    pub(crate) fn new(vm: &Arc<Vm>, process: vm::Process, command: String) -> Self {
        let input = process.input();
        let output = Slot::new(Reader::new(process));
        Self(Rc::new(Inner { vm: Arc::downgrade(vm), command, input, output }))
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
        class.waiting("proc:read", Results::Two, async |lua: Lua, this: Self, arguments| {
            let wanted = wanted(&arguments)?;
            this.output(&lua, async |reader| reader.chunk(wanted).await).await
        })?;
        class.waiting(
            "proc:read_line",
            Results::Two,
            async |lua: Lua, this: Self, arguments| {
                let wanted = wanted(&arguments)?;
                this.output(&lua, async |reader| reader.line(wanted).await).await
            },
        )?;
        class.method("proc:lines", Results::All, |lua, this, arguments| {
            wanted(&arguments)?;
            iterator_with(lua, this, "read_line", false, arguments.value(0))
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
            let signal = signal::number(arguments.value(0)).ok_or_else(|| {
                arguments.wrong(0, "a signal: a name such as \"TERM\", or a number")
            })?;
            Ok(this.0.input.signal(signal).await?)
        })?;
        class.waiting("proc:resize", Results::None, async |_, this: Self, arguments| {
            this.check_open()?;
            let number = |index| {
                let count = arguments.count(index, None)?;
                let number = u16::try_from(count);
                number.map_err(|_| Fault::from(arguments.wrong(index, "a number up to 65535")))
            };
            let size = TerminalSize { rows: number(0)?, columns: number(1)? };
            Ok(this.0.input.resize(size).await?)
        })?;
        class.method("proc:close", Results::None, |_, this, _| {
            this.close();
            Ok(())
        })
    }
}

/// Which of the two streams is read: standard output, unless `stream` or `both` says otherwise.
fn wanted(arguments: &Arguments) -> Outcome<Wanted> {
    // `for chunk in proc.read, proc do` passes on what the step before gave.
    if matches!(arguments.value(0), Value::String(_)) {
        return Ok(Wanted::Only(Source::Stdout));
    }
    let options = arguments.options(0, &["stream", "both"])?;
    if options.flag("both")?.unwrap_or_default() {
        return Ok(Wanted::Both);
    }
    match options.text("stream")?.as_deref() {
        None | Some("stdout") => Ok(Wanted::Only(Source::Stdout)),
        Some("stderr") => Ok(Wanted::Only(Source::Stderr)),
        Some(_) => {
            let value = options.value("stream")?;
            Err(options.wrong("stream", "\"stdout\" or \"stderr\"", &value).into())
        }
    }
}
