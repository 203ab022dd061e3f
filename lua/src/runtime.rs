//! Starts Lua, runs a script, says how it ended.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua, MultiValue, Value};
use tokio::task::LocalSet;
use vmoon_core::vm::Host;

use crate::context::Context;
use crate::report::{Report, Sources};
use crate::stop::{Cause, Signals, Stop};
use crate::trace::first_line;

mod embedded;
mod raised;
mod script;
mod setup;

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
        let Self { config, tokio, embedded } = self;
        let signals = config.signals.clone().unwrap_or_default();
        let stop = Rc::new(Stop::new(signals, config.timeout));
        let lua = Lua::new();
        setup::prepare(&lua, &config, stop.clone(), script)?;
        embedded.define(&lua)?;
        let raised = Rc::new(Raised::default());
        let mut sources = Sources::new(script);
        let ending = match script.load(&lua) {
            Err(error) => Ending::Raised(vec![Report::syntax(&error, script, &mut sources)]),
            Ok(main) => {
                stop.hook(&lua)?;
                let local = LocalSet::new();
                let call = call(&lua, main, script, &raised);
                let watch = config.signals.is_some();
                let result = tokio.block_on(local.run_until(supervise(call, &stop, watch)))?;
                let context = Context::of(&lua);
                // Cancels the tasks that are left; their `<close>`s may not start new ones.
                context.live.set(false);
                drop(local);
                conclude(&lua, &context, result, &raised, &config, &mut sources)
            }
        };
        setup::flush(&lua);
        raised.clear();
        Context::of(&lua).clear();
        drop(lua);
        config.host.close_all();
        tokio.shutdown_background();
        Ok(ending)
    }
}

/// How the main function ended.
enum Result {
    Returned,
    /// The error that left it last.
    Failed(Value),
    Stopped(Cause),
}

/// Calls the script's main function as a coroutine, under a handler that notes where errors come
/// from.
async fn call(
    lua: &Lua,
    main: Function,
    script: &Script,
    raised: &Rc<Raised>,
) -> mlua::Result<Result> {
    let mut values = MultiValue::new();
    values.push_back(Value::Function(main));
    values.push_back(Value::Function(raised.handler(lua)?));
    for argument in script.arguments() {
        values.push_back(Value::String(lua.create_string(argument)?));
    }
    let mut results = Context::of(lua).xpcall.call_async::<MultiValue>(values).await?;
    Ok(match results.pop_front() {
        Some(Value::Boolean(true)) => Result::Returned,
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
    let signal = if watch_signals { Some(signals()?) } else { None };
    let signal = async {
        match signal {
            Some(signal) => signal.await,
            None => std::future::pending().await,
        }
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

/// Completes when a signal that ends scripts arrives. Listens from the call on.
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn conclude(
    lua: &Lua,
    context: &Context,
    result: Result,
    raised: &Raised,
    config: &Config,
    sources: &mut Sources,
) -> Ending {
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
        Result::Returned => {
            let reports = unseen(lua, context, None, sources);
            if reports.is_empty() { Ending::Done } else { Ending::Raised(reports) }
        }
    }
}

/// The errors of tasks that nobody joined.
fn unseen(
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
