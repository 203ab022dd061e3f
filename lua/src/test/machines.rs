//! Functions for fixtures.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{
    AnyUserData, Function, Lua, MetaMethod, MultiValue, Table, UserData, UserDataMethods, Value,
};
use tokio::sync::Semaphore;
use vmoon_core::vm::Place;

use super::content;
use super::event::{Event, Span, SpanKind};
use super::fixtures::Fixtures;
use super::state::State;
use crate::arguments::Arguments;
use crate::class::{Results, function, waiting};
use crate::context::Context;
use crate::fault::Outcome;
use crate::machine::Machine;
use crate::options::Options;
use crate::snapshot::Snapshot;
use crate::spec;

const NAME: &str = "vmoon.test.fixture";

pub(super) fn define(lua: &Lua, native: &Table, state: &Rc<State>) -> mlua::Result<()> {
    let of = state.clone();
    function(lua, native, "vmoon.test.now", Results::One, move |_, _| Ok(of.now().as_secs_f64()))?;
    let of = state.clone();
    function(lua, native, "vmoon.test.span", Results::None, move |_, arguments| {
        span(&of, &arguments)
    })?;
    function(lua, native, NAME, Results::All, |lua, arguments| fixture(lua, &arguments))?;
    function(lua, native, "vmoon.test.content", Results::One, |lua, arguments| {
        let table = arguments.table(0, "a spec")?;
        let (backend, spec) = spec::parse_options(&Options::new(NAME, table, spec::KEYS)?)?;
        let backend = backend.or_else(|| Context::of(lua).backend.clone());
        let setup = match arguments.value(1) {
            Value::Function(setup) => Some(setup),
            _ => None,
        };
        Ok(content::hash(lua, backend.as_deref(), &spec, setup)?)
    })?;
    let of = state.clone();
    waiting(
        lua,
        native,
        "vmoon.test.claim",
        Results::One,
        move |lua: Lua, arguments: Arguments| {
            let fixtures = of.settings.fixtures.clone();
            async move {
                let Some(key) = key(&arguments)? else { return Ok(None) };
                let host = Context::of(&lua).host.clone();
                Ok(fixtures.claim(&key, &host).await.map(Snapshot))
            }
        },
    )?;
    waiting(
        lua,
        native,
        "vmoon.test.reserve",
        Results::One,
        async |lua: Lua, arguments: Arguments| {
            let table = arguments.table(0, "a spec")?;
            let (_, spec) = spec::parse_options(&Options::new(NAME, table, spec::KEYS)?)?;
            let host = Context::of(&lua).host.clone();
            Ok(Reserved(host.reserve(spec.memory).await))
        },
    )?;
    let of = state.clone();
    function(lua, native, "vmoon.test.claimed", Results::One, move |_, arguments| {
        Ok(Claim { key: key(&arguments)?, fixtures: of.settings.fixtures.clone() })
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.publish", Results::None, move |_, arguments| {
        let Some(key) = key(&arguments)? else { return Ok(()) };
        let Value::UserData(data) = arguments.value(1) else { return Ok(()) };
        let snapshot = data.borrow::<Snapshot>()?.0.clone();
        if snapshot.can_fork() {
            of.settings.fixtures.publish(&key, snapshot);
        }
        Ok(())
    })?;
    function(lua, native, "vmoon.test.can_snapshot", Results::One, |_, arguments| {
        Ok(machine(&arguments)?.vm().backend().capabilities().snapshot.is_yes())
    })?;
    function(lua, native, "vmoon.test.is_closed", Results::One, |_, arguments| {
        Ok(machine(&arguments)?.vm().is_closed())
    })?;
    let of = state.clone();
    function(lua, native, "vmoon.test.used", Results::None, move |_, arguments| {
        of.used(machine(&arguments)?.vm());
        Ok(())
    })?;
    function(lua, native, "vmoon.test.turn", Results::One, |_, _| {
        Ok(Turn(Rc::new(Semaphore::new(1))))
    })?;
    waiting(lua, native, "vmoon.test.enter", Results::None, async |_, arguments: Arguments| {
        let turn = turn(&arguments)?;
        if let Ok(permit) = turn.acquire().await {
            permit.forget();
        }
        Ok(())
    })?;
    function(lua, native, "vmoon.test.leave", Results::None, |_, arguments| {
        turn(&arguments)?.add_permits(1);
        Ok(())
    })
}

/// Splits the options of a fixture: the spec, `setup`, and the options of each restore.
fn fixture(lua: &Lua, arguments: &Arguments) -> Outcome<(Table, Option<Function>, Option<Table>)> {
    let given = match arguments.value(0) {
        Value::Nil => lua.create_table()?,
        _ => arguments.table(0, "a table of options")?,
    };
    let options = Options::new(NAME, given.clone(), spec::FIXTURE_KEYS)?;
    // Mistakes are told where the fixture is described, not where it is first used.
    spec::parse_options(&options)?;
    let setup = match options.value("setup")? {
        Value::Nil => None,
        Value::Function(setup) => Some(setup),
        other => return Err(options.wrong("setup", "a function", &other).into()),
    };
    let restoring = lua.create_table()?;
    let deterministic = options.flag("deterministic")?.unwrap_or(false);
    restoring.raw_set("deterministic", deterministic)?;
    let spec = lua.create_table()?;
    for pair in given.pairs::<String, Value>() {
        let (name, value) = pair?;
        if spec::KEYS.contains(&name.as_str()) {
            spec.raw_set(name, value)?;
        }
    }
    Ok((spec, setup, deterministic.then_some(restoring)))
}

fn key(arguments: &Arguments) -> Outcome<Option<String>> {
    match arguments.value(0) {
        Value::Nil => Ok(None),
        _ => Ok(Some(arguments.text(0, "a key")?)),
    }
}

fn machine(arguments: &Arguments) -> Outcome<Machine> {
    match arguments.value(0) {
        Value::UserData(data) => Ok(data.borrow::<Machine>()?.clone()),
        _ => Err(arguments.wrong(0, "a machine").into()),
    }
}

/// Tells of `(kind, name, started)`, which ends now.
fn span(state: &State, arguments: &Arguments) -> Outcome<()> {
    let word = arguments.text(0, "a kind")?;
    let Some(kind) = SpanKind::ALL.into_iter().find(|kind| kind.as_str() == word) else {
        return Err(arguments.wrong(0, "a kind of span").into());
    };
    let started: Duration = arguments.duration(2)?;
    state.settings.tell(Event::Span(Span {
        kind,
        name: arguments.text(1, "a name")?,
        file: state.settings.file.clone(),
        worker: state.settings.worker,
        started,
        duration: state.now().saturating_sub(started),
    }));
    Ok(())
}

/// Lets others try when the holder fails to make the fixture.
#[derive(Debug)]
struct Claim {
    key: Option<String>,
    fixtures: Arc<Fixtures>,
}

impl Claim {
    fn end(&self) {
        if let Some(key) = &self.key {
            self.fixtures.abandon(key);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end();
    }
}

impl UserData for Claim {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Close, |_, this, _: MultiValue| {
            this.end();
            Ok(())
        });
    }
}

/// Room for the machine of a fixture, until it is there and has its own.
#[derive(Debug)]
struct Reserved(Option<Place>);

impl UserData for Reserved {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method_mut(MetaMethod::Close, |_, this, _: MultiValue| {
            this.0.take();
            Ok(())
        });
    }
}

/// Lets one task at a time make a fixture ready.
#[derive(Clone, Debug)]
struct Turn(Rc<Semaphore>);

impl UserData for Turn {}

fn turn(arguments: &Arguments) -> Outcome<Rc<Semaphore>> {
    let data: AnyUserData = match arguments.value(0) {
        Value::UserData(data) => data.clone(),
        _ => return Err(arguments.wrong(0, "a turn").into()),
    };
    Ok(data.borrow::<Turn>()?.0.clone())
}
