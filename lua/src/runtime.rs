//! Starts Lua, runs a script, says how it ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua, MultiValue, Value};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use vmoon_core::vm::Host;

use crate::context::Context;
use crate::report::{Report, Sources};
use crate::session::Session;
use crate::stop::{Cause, Signals, Stop};
use crate::test;
use crate::trace::first_line;

mod embedded;
pub(crate) mod raised;
mod script;
pub(crate) mod setup;

pub use script::Script;

use embedded::Embedded;
use raised::Raised;

/// How scripts are run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Makes the machines.
    pub host: Arc<Host>,
    /// The backend for machines that do not name one.
    pub backend: Option<String>,
    /// How long a script may run.
    pub timeout: Option<Duration>,
    /// What signal handlers set, where signals are to end the script; the runtime then listens
    /// to the same signals, to wake.
    pub signals: Option<Signals>,
    /// How the tests that the script describes are run once it has ended; none runs none.
    pub tests: Option<test::Settings>,
}

/// How a script ended.
#[derive(Debug)]
pub enum Ending {
    /// It came to its end.
    Done,
    /// It called `os.exit` with this status.
    Exited(i32),
    /// It raised an error, or its tasks did; what happened, in order.
    Raised(Vec<Report>),
    /// It ran longer than [`Config::timeout`].
    TimedOut(Box<Report>),
    /// SIGINT arrived.
    Interrupted,
    /// SIGTERM arrived.
    Terminated,
}

/// Runs scripts, each in a Lua of its own.
#[derive(Debug)]
pub struct Runtime {
    config: Config,
    tokio: tokio::runtime::Runtime,
    embedded: Embedded,
}

impl Runtime {
    /// Prepares to run scripts on this thread.
    ///
    /// # Errors
    /// When the operating system has no descriptors left.
    pub fn new(config: Config) -> std::io::Result<Self> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { config, tokio, embedded: Embedded::default() })
    }

    /// Gives scripts one more global function: of the program around the runtime, which can so
    /// take part in what a script does. It runs on the script's thread and may wait.
    pub fn define(
        &mut self,
        name: &'static str,
        body: impl AsyncFn() -> vmoon_core::Result<()> + 'static,
    ) {
        self.embedded.add(name, body);
    }

    /// The same for a function that does not wait, and so costs next to nothing.
    pub fn define_immediate(&mut self, name: &'static str, body: impl Fn() + 'static) {
        self.embedded.add_immediate(name, body);
    }

    /// The same for a function that holds a conversation with the script's Lua and returns when
    /// that is over. The table that the script gives it holds the values that the conversation
    /// begins with, by name.
    pub fn define_conversation(
        &mut self,
        name: &'static str,
        talk: impl AsyncFn(Session) + 'static,
    ) {
        self.embedded.add_conversation(name, talk);
    }

    /// Runs a script to its end, whatever that is. Everything that the script held is closed
    /// when this returns.
    ///
    /// # Errors
    /// When Lua itself cannot be started.
    pub fn run(self, script: &Script) -> std::io::Result<Ending> {
        // An error of Lua's is bound to this thread; its text is not.
        self.run_script(script).map_err(|error| std::io::Error::other(first_line(&error)))
    }

    fn run_script(self, script: &Script) -> mlua::Result<Ending> {
        let mut started = Started::new(self, script)?;
        let lua = started.lua.clone();
        let ending = match script.load(&lua) {
            Err(error) => {
                let context = Context::of(&lua);
                let report = Report::syntax(&error, script, &mut context.sources.borrow_mut());
                Ok(Ending::Raised(vec![report]))
            }
            Ok(main) => {
                let raised = started.raised.clone();
                started.drive(call(&lua, main, script.arguments(), &raised))
            }
        };
        drop(lua);
        started.end();
        ending
    }

    /// Starts Lua as for `script`, which is not run, and lets `talk` hold a conversation with
    /// it. Everything is closed when this returns.
    ///
    /// # Errors
    /// When Lua itself cannot be started.
    pub fn converse(
        self,
        script: &Script,
        talk: impl AsyncFnOnce(Session),
    ) -> std::io::Result<Ending> {
        self.hold_conversation(script, talk)
            .map_err(|error| std::io::Error::other(first_line(&error)))
    }

    fn hold_conversation(
        self,
        script: &Script,
        talk: impl AsyncFnOnce(Session),
    ) -> mlua::Result<Ending> {
        let mut started = Started::new(self, script)?;
        let lua = started.lua.clone();
        let ending = started.drive(async move {
            talk(Session::open(&lua, None)?).await;
            Ok(Result::Returned(MultiValue::new()))
        });
        started.end();
        ending
    }
}

/// A Lua with all that it needs, until it has ended.
struct Started {
    config: Config,
    tokio: tokio::runtime::Runtime,
    lua: Lua,
    stop: Rc<Stop>,
    raised: Rc<Raised>,
}

impl Started {
    fn new(runtime: Runtime, script: &Script) -> mlua::Result<Self> {
        let Runtime { config, tokio, embedded } = runtime;
        let signals = config.signals.clone().unwrap_or_default();
        let stop = Rc::new(Stop::new(signals, config.timeout));
        let lua = Lua::new();
        setup::prepare(&lua, &config, stop.clone(), script)?;
        embedded.define(&lua)?;
        Ok(Self { config, tokio, lua, stop, raised: Rc::default() })
    }

    /// Awaits what runs in Lua, or what ends it early.
    fn drive(&mut self, work: impl Future<Output = mlua::Result<Result>>) -> mlua::Result<Ending> {
        self.stop.hook(&self.lua)?;
        let local = LocalSet::new();
        let watch = self.config.signals.is_some();
        let result = self.tokio.block_on(local.run_until(supervise(work, &self.stop, watch)))?;
        let context = Context::of(&self.lua);
        // Cancels the tasks that are left; their `<close>`s may not start new ones.
        context.live.set(false);
        drop(local);
        Ok(conclude(&self.lua, &context, result, &self.raised, &self.config))
    }

    fn end(self) {
        setup::flush(&self.lua);
        self.raised.clear();
        Context::of(&self.lua).clear();
        drop(self.lua);
        self.config.host.close_all();
        self.tokio.shutdown_background();
    }
}

/// How the main function ended.
pub(crate) enum Result {
    /// What it returned.
    Returned(MultiValue),
    /// The error that left it last.
    Failed(Value),
    Stopped(Cause),
}

/// Calls the script's main function as a coroutine, under a handler that notes where errors come
/// from.
pub(crate) async fn call(
    lua: &Lua,
    main: Function,
    arguments: &[Vec<u8>],
    raised: &Rc<Raised>,
) -> mlua::Result<Result> {
    let mut values = MultiValue::new();
    values.push_back(Value::Function(main));
    values.push_back(Value::Function(raised.handler(lua)?));
    for argument in arguments {
        values.push_back(Value::String(lua.create_string(argument)?));
    }
    let context = Context::of(lua);
    let result = protected(&context, values).await?;
    if let (Result::Returned(_), Some(runner)) = (&result, test::runner(&context)) {
        let runner = [Value::Function(runner), Value::Function(raised.handler(lua)?)];
        return protected(&context, runner.into_iter().collect()).await;
    }
    Ok(result)
}

async fn protected(context: &Context, values: MultiValue) -> mlua::Result<Result> {
    let mut results = context.xpcall.call_async::<MultiValue>(values).await?;
    Ok(match results.pop_front() {
        Some(Value::Boolean(true)) => Result::Returned(results),
        _ => Result::Failed(results.pop_front().unwrap_or(Value::Nil)),
    })
}

/// Awaits the script, or what ends it early. The script is cancelled, and its `<close>`s have
/// run, when this returns.
async fn supervise(
    call: impl Future<Output = mlua::Result<Result>>,
    stop: &Stop,
    watch_signals: bool,
) -> mlua::Result<Result> {
    let mut signals = if watch_signals { Some(Arrivals::listen()?) } else { None };
    let signal = async || match &mut signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    };
    tokio::select! {
        biased;
        result = call => match (result?, stop.cause()) {
            // The interruption of a busy script arrives as an error.
            (Result::Failed(_), Some(cause)) => Ok(Result::Stopped(cause)),
            (result, _) => Ok(result),
        },
        cause = stop.wait(signal) => Ok(Result::Stopped(cause)),
    }
}

/// The arrivals of the signals that end scripts.
struct Arrivals([Signal; 3]);

impl Arrivals {
    /// Listens from now on.
    fn listen() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn conclude(
    lua: &Lua,
    context: &Context,
    result: Result,
    raised: &Raised,
    config: &Config,
) -> Ending {
    let sources = &mut *context.sources.borrow_mut();
    match result {
        Result::Stopped(Cause::Interrupted) => Ending::Interrupted,
        Result::Stopped(Cause::Terminated) => Ending::Terminated,
        Result::Stopped(Cause::Exit(code)) => Ending::Exited(code),
        Result::Stopped(Cause::Deadline) => {
            let limit = config.timeout.unwrap_or_default();
            Ending::TimedOut(Box::new(Report::timeout(limit, context.stop.note(), sources)))
        }
        Result::Failed(value) => {
            let mut reports = raised.reports(lua, context, &value, sources);
            reports.extend(unseen(lua, context, Some(&value), sources));
            Ending::Raised(reports)
        }
        Result::Returned(_) => {
            let reports = unseen(lua, context, None, sources);
            if reports.is_empty() { Ending::Done } else { Ending::Raised(reports) }
        }
    }
}

/// The errors of tasks that nobody joined.
pub(crate) fn unseen(
    lua: &Lua,
    context: &Context,
    known: Option<&Value>,
    sources: &mut Sources,
) -> Vec<Report> {
    let tasks = context.unseen.borrow();
    let errors = tasks.iter().filter_map(|task| task.unseen_error());
    errors
        .filter(|error| Some(error) != known)
        .map(|error| {
            let note = raised::note_of(lua, context, &error);
            let mut report = Report::new(lua, &error, note.unwrap_or_default(), sources);
            report.notes.push("raised in a task that nobody joined".to_owned());
            report
        })
        .collect()
}
