//! Streams between the host and the guest.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mlua::{Lua, LuaString, UserData, UserDataRegistry, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use vmoon_core::vm::Status;
use vmoon_core::vsock::{ConnectionId, VsockStream};
use vmoon_core::{Code, Error, State, Vm};

use crate::arguments::Arguments;
use crate::class::{self, Class, Handle, Results, iterator};
use crate::fault::{Fault, Outcome};
use crate::slot::Slot;

/// How much `read` returns at most unless it is told otherwise.
const CHUNK: usize = 64 * 1024;

/// How much `read` returns at most.
const MOST: usize = 1024 * 1024;

/// The longest line. A peer that sends no newline must not fill the host's memory.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// How long a stream that was closed may take to end: the guest has to read what was written.
const LINGER: Duration = Duration::from_secs(5);

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Stream(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    vm: Weak<Vm>,
    id: ConnectionId,
    reader: Slot<Reader>,
    writer: Slot<WriteHalf<VsockStream>>,
}

impl Inner {
    /// Ends both halves without waiting, and without taking back what was written: the guest
    /// reads all of it and then the end, as with a socket.
    fn close(&self) {
        let (reader, writer) = (self.reader.take(), self.writer.take());
        // Outside of the runtime nothing is left that could carry data: dropping resets.
        if let (Some(writer), Ok(runtime)) = (writer, tokio::runtime::Handle::try_current()) {
            let reader = reader.map(|reader| reader.half);
            runtime.spawn(tokio::time::timeout(LINGER, part(reader, writer)));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends the end after what was written, and waits for the guest's.
async fn part(reader: Option<ReadHalf<VsockStream>>, mut writer: WriteHalf<VsockStream>) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let Some(mut reader) = reader else { return };
    let mut unwanted = vec![0; 4096];
    while matches!(reader.read(&mut unwanted).await, Ok(1..)) {}
}

impl Stream {
    pub(crate) fn new(vm: &Arc<Vm>, stream: VsockStream) -> Self {
        let id = stream.id();
        let (reader, writer) = tokio::io::split(stream);
        let reader = Reader { half: reader, buffer: Vec::new(), start: 0 };
        Self(Rc::new(Inner {
            vm: Arc::downgrade(vm),
            id,
            reader: Slot::new(reader),
            writer: Slot::new(writer),
        }))
    }

    async fn read(&self, lua: &Lua, most: usize) -> Outcome<Value> {
        let read = self.0.reader.with(async |reader| {
            if reader.pending().is_empty() && reader.fill(most.min(CHUNK)).await? == 0 {
                return Ok(None);
            }
            let count = reader.pending().len().min(most);
            let text = lua.create_string(&reader.pending()[..count]).map_err(Fault::from);
            reader.start += count;
            text.map(Some)
        });
        self.given(self.while_machine_lives(read).await?)
    }

    async fn read_line(&self, lua: &Lua) -> Outcome<Value> {
        let read = self.0.reader.with(async |reader| {
            let mut seen = 0;
            loop {
                let pending = reader.pending();
                if let Some(at) = pending[seen..].iter().position(|byte| *byte == b'\n') {
                    let text = lua.create_string(&pending[..seen + at]).map_err(Fault::from);
                    reader.start += seen + at + 1;
                    return text.map(Some);
                }
                seen = pending.len();
                if seen > LONGEST_LINE {
                    return Err(Error::new(Code::VmSpec, "the line is longer than 16 MiB")
                        .with_hint("stream:read(n) reads data that has no lines")
                        .into());
                }
                if reader.fill(CHUNK).await? == 0 {
                    let text = lua.create_string(reader.pending()).map_err(Fault::from);
                    reader.start += seen;
                    return if seen == 0 { Ok(None) } else { text.map(Some) };
                }
            }
        });
        self.given(self.while_machine_lives(read).await?)
    }

    async fn write(&self, data: &LuaString) -> Outcome<()> {
        let bytes = data.as_bytes();
        let written = self.0.writer.with(async |writer| {
            writer.write_all(&bytes).await?;
            writer.flush().await
        });
        match self.while_machine_lives(written).await? {
            Some(result) => Ok(result.map_err(failure)?),
            None => Err(self.closed().into()),
        }
    }

    /// Awaits an operation, but not for longer than the machine can take part in it. The
    /// connection itself stays: a restore may bring its other end back.
    async fn while_machine_lives<R>(&self, operation: impl Future<Output = R>) -> Outcome<R> {
        let ended = async {
            // Reached only by operations that wait.
            let Some(mut status) = self.0.vm.upgrade().map(|vm| vm.watch()) else {
                return std::future::pending().await;
            };
            let end = |now: &Status| matches!(now.state, State::Stopped | State::Crashed);
            match status.wait_for(end).await {
                Ok(status) => status.clone(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = operation => Ok(result),
            status = ended => Err(self.ended(&status).into()),
        }
    }

    fn ended(&self, status: &Status) -> Error {
        let reason = status.reason.as_deref().unwrap_or("no reason is known");
        Error::new(Code::VsockReset, format!("the machine is {}: {reason}", status.state))
            .with_hint("vm:restore(snapshot) brings it back, with the connections that were idle")
            .with_detail("port", self.0.id.guest.0)
            .with_detail("state", status.state.as_str())
    }

    fn given(&self, read: Option<Outcome<Option<LuaString>>>) -> Outcome<Value> {
        match read {
            Some(Ok(Some(text))) => Ok(Value::String(text)),
            Some(Ok(None)) => Ok(Value::Nil),
            Some(Err(fault)) => Err(fault),
            None => Err(self.closed().into()),
        }
    }

    fn closed(&self) -> Error {
        Error::new(Code::VsockReset, "the stream was closed on this side")
            .with_detail("port", self.0.id.guest.0)
    }
}

/// Limits an operation to `timeout` if there is one; `what` completes "within 5s".
pub(crate) async fn limited<R>(
    timeout: Option<Duration>,
    what: &str,
    operation: impl Future<Output = Outcome<R>>,
) -> Outcome<R> {
    let Some(timeout) = timeout else { return operation.await };
    match tokio::time::timeout(timeout, operation).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(Code::VsockTimeout, format!("{what} within {timeout:?}"))
            .with_detail("timeout", timeout.as_secs_f64())
            .into()),
    }
}

fn timeout(arguments: &Arguments, index: usize) -> Outcome<Option<Duration>> {
    arguments.options(index, &["timeout"])?.duration("timeout")
}

impl UserData for Stream {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Stream {
    const NAME: &'static str = "stream";

    fn machine(&self) -> Option<Arc<Vm>> {
        self.0.vm.upgrade()
    }

    fn title(&self) -> String {
        format!("stream (host port {}, guest port {})", self.0.id.host, self.0.id.guest)
    }

    fn close(&self) {
        self.0.close();
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.field("port", |_, this| Ok(this.0.id.guest.0))?;
        class.waiting("stream:read", Results::One, async |lua: Lua, this: Self, arguments| {
            // read(), read(n), read(n, opts) and read(opts).
            let options = usize::from(!matches!(arguments.value(0), Value::Table(_)));
            let most =
                if options == 0 { CHUNK } else { arguments.count(0, Some(CHUNK))?.min(MOST) };
            let timeout = timeout(&arguments, options)?;
            if most == 0 {
                return Ok(Value::String(lua.create_string("")?));
            }
            limited(timeout, "nothing came", this.read(&lua, most)).await
        })?;
        class.waiting(
            "stream:read_line",
            Results::One,
            async |lua: Lua, this: Self, arguments| {
                let timeout = timeout(&arguments, 0)?;
                limited(timeout, "no line came", this.read_line(&lua)).await
            },
        )?;
        class.method("stream:lines", Results::All, |lua, this, _| {
            iterator(lua, this, "read_line", false)
        })?;
        class.waiting("stream:write", Results::None, async |_, this: Self, arguments| {
            let data = arguments.string(0, "a string")?;
            let timeout = timeout(&arguments, 1)?;
            limited(timeout, "the guest did not take the data", this.write(&data)).await
        })?;
        class.waiting("stream:shutdown", Results::None, async |_, this: Self, _| {
            match this.0.writer.with(async |writer| writer.shutdown().await).await {
                Some(result) => Ok(result.map_err(failure)?),
                None => Err(this.closed().into()),
            }
        })?;
        class.method("stream:close", Results::None, |_, this, _| {
            this.close();
            Ok(())
        })
    }
}

/// The reading half, with what was received and not yet given to the script.
#[derive(Debug)]
struct Reader {
    half: ReadHalf<VsockStream>,
    buffer: Vec<u8>,
    start: usize,
}

impl Reader {
    fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Receives at most `most` bytes more; 0 at the end. Cancel-safe.
    async fn fill(&mut self, most: usize) -> Outcome<usize> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > CHUNK {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.reserve(most);
        Ok(self.half.read_buf(&mut self.buffer).await.map_err(failure)?)
    }
}

/// The error of an operation on a connection.
pub(crate) fn failure(error: io::Error) -> Error {
    Error::new(Code::VsockReset, "the connection was reset")
        .with_hint("the peer vanished, the machine ended, or a restore cut the connection")
        .with_source(error)
}
