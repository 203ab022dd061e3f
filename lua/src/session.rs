//! A conversation with Lua: one chunk after the other, in a Lua that lives on in between. What
//! somebody types and what they are shown is the business of the program around it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mlua::{Function, Lua, MultiValue, Table, Value};
use tokio::signal::unix::{SignalKind, signal};
use vmoon_core::vm::Host;

use crate::context::Context;
use crate::report::{Report, Sources};
use crate::runtime::{self, Script, raised::Raised, setup};

pub mod complete;
mod help;
mod inspect;
pub mod syntax;

/// A conversation. Chunks share the globals of their Lua; a local ends with its chunk.
#[derive(Clone, Debug)]
pub struct Session(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    lua: Lua,
    sources: RefCell<Sources>,
    /// How many chunks there have been.
    chunks: Cell<u32>,
    /// The globals that the conversation covers, as they were.
    covered: Vec<(Value, Value)>,
    /// Whether an outer conversation dealt with interruptions before.
    held: bool,
}

/// How a chunk ended.
#[derive(Debug)]
pub enum Evaluation {
    /// It returned these values, as people read them.
    Values(Vec<String>),
    /// It raised, or tasks did in the meantime; what happened, in order.
    Raised(Vec<Report>),
    /// SIGINT arrived; the chunk was cancelled and its `<close>`s have run.
    Interrupted,
}

impl Session {
    /// Begins a conversation, with these values as globals. They are taken away at its end.
    pub(crate) fn open(lua: &Lua, values: Option<&Table>) -> mlua::Result<Self> {
        let context = Context::of(lua);
        let globals = lua.globals();
        // The module is filled when something is asked of it; completion only looks.
        globals.raw_get::<Table>("vmoon")?.get::<Value>("list")?;
        let mut covered = Vec::new();
        let mut cover = |name: Value, value: Value| -> mlua::Result<()> {
            covered.push((name.clone(), globals.raw_get(&name)?));
            globals.raw_set(name, value)
        };
        cover(
            Value::String(lua.create_string("help")?),
            Value::Function(
                lua.create_function(|lua, arguments: MultiValue| help::help(lua, &arguments))?,
            ),
        )?;
        for pair in values.into_iter().flat_map(Table::pairs::<Value, Value>) {
            let (name, value) = pair?;
            cover(name, value)?;
        }
        let inner = Inner {
            lua: lua.clone(),
            sources: RefCell::new(Sources::new(&Script::code("", Vec::new()))),
            chunks: Cell::new(0),
            covered,
            held: context.stop.hold_interruptions(true),
        };
        Ok(Self(Rc::new(inner)))
    }

    /// Makes the machines of this conversation.
    pub fn host(&self) -> Arc<Host> {
        Context::of(&self.0.lua).host.clone()
    }

    /// What interrupts the chunk that runs: for a front end that reads Ctrl-C as a key.
    pub fn interruption(&self) -> Arc<AtomicBool> {
        Context::of(&self.0.lua).stop.signals().interrupted.clone()
    }

    /// Runs a chunk: an expression, whose values are the result, or statements.
    pub async fn evaluate(&self, text: &str) -> Evaluation {
        self.0.chunks.set(self.0.chunks.get() + 1);
        let chunk = format!("=(input {})", self.0.chunks.get());
        self.0.sources.borrow_mut().add(&chunk, text);
        match syntax::load(&self.0.lua, text, &chunk) {
            Ok(main) => self.call(main, &[]).await,
            Err(error) => self.malformed(&error, &chunk),
        }
    }

    /// Runs a script, whose globals stay.
    pub async fn run(&self, script: &Script) -> Evaluation {
        self.0.sources.borrow_mut().add(script.chunk(), &String::from_utf8_lossy(script.text()));
        match script.load(&self.0.lua) {
            Ok(main) => self.call(main, script.arguments()).await,
            Err(error) => self.malformed(&error, script.chunk()),
        }
    }

    /// The errors of tasks that nobody joined, each told once.
    pub fn unseen(&self) -> Vec<Report> {
        let lua = &self.0.lua;
        let context = Context::of(lua);
        let reports = runtime::unseen(lua, &context, None, &mut self.0.sources.borrow_mut());
        for task in context.unseen.borrow_mut().drain(..) {
            task.tell();
        }
        reports
    }

    fn malformed(&self, error: &mlua::Error, chunk: &str) -> Evaluation {
        let mut sources = self.0.sources.borrow_mut();
        Evaluation::Raised(vec![Report::syntax_of(error, chunk, &mut sources)])
    }

    async fn call(&self, main: Function, arguments: &[Vec<u8>]) -> Evaluation {
        match self.try_call(main, arguments).await {
            Ok(evaluation) => evaluation,
            Err(error) => Evaluation::Raised(vec![Report {
                message: crate::trace::first_line(&error),
                ..Report::default()
            }]),
        }
    }

    async fn try_call(&self, main: Function, arguments: &[Vec<u8>]) -> mlua::Result<Evaluation> {
        let lua = &self.0.lua;
        let context = Context::of(lua);
        let raised = Rc::new(Raised::default());
        let mut interrupts = signal(SignalKind::interrupt())?;
        context.stop.rearm(lua)?;
        let result = tokio::select! {
            biased;
            result = runtime::call(lua, main, arguments, &raised) => Some(result?),
            _ = interrupts.recv() => None,
        };
        // The interruption of a busy chunk arrives as an error.
        let interrupted = context.stop.is_interrupted();
        if interrupted {
            context.stop.rearm(lua)?;
        }
        setup::flush(lua);
        let evaluation = match result {
            None | Some(runtime::Result::Stopped(_)) => Evaluation::Interrupted,
            Some(runtime::Result::Failed(_)) if interrupted => Evaluation::Interrupted,
            Some(runtime::Result::Returned(values)) => Evaluation::Values(show(lua, &values)),
            Some(runtime::Result::Failed(value)) => {
                let mut sources = self.0.sources.borrow_mut();
                Evaluation::Raised(raised.reports(lua, &context, &value, &mut sources))
            }
        };
        raised.clear();
        Ok(evaluation)
    }
}

fn show(lua: &Lua, values: &MultiValue) -> Vec<String> {
    values.iter().map(|value| inspect::inspect(lua, value)).collect()
}

impl Drop for Inner {
    fn drop(&mut self) {
        let context = Context::of(&self.lua);
        context.stop.hold_interruptions(self.held);
        let globals = self.lua.globals();
        for (name, value) in self.covered.drain(..).rev() {
            if let Err(error) = globals.raw_set(name, value) {
                tracing::debug!(%error, "a global is not what it was before the conversation");
            }
        }
    }
}
