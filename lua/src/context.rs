//! What every binding can reach: the host of machines, and the prelude's functions.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Function, Lua, Table, Value};
use vmoon_core::SnapshotId;
use vmoon_core::vm::Host;

use crate::report::Sources;
use crate::stop::Stop;
use crate::test;
use crate::trace::Note;

/// How many errors' origins are kept beside those that are noted on tables.
const MOST_ORIGINS: usize = 16;

/// The state of one runtime, kept as application data of its Lua.
pub(crate) struct Context {
    /// Makes machines.
    pub(crate) host: Arc<Host>,
    /// The backend for machines that do not name one.
    pub(crate) backend: Option<String>,
    /// The classes of which there have been objects, by their names.
    pub(crate) classes: RefCell<BTreeMap<&'static str, crate::class::Members>>,
    /// The prelude's functions that make classes, once they are needed.
    pub(crate) class: OnceCell<Table>,
    /// Lua's own `xpcall`, which scripts cannot replace.
    pub(crate) xpcall: Function,
    /// Lua's own `string.find`.
    pub(crate) find: Function,
    /// The message handler of tasks.
    pub(crate) handler: Function,
    /// What ends the script early.
    pub(crate) stop: Rc<Stop>,
    /// The machines that Lua knows, by id, so that each has one handle; weak values.
    pub(crate) machines: Table,
    /// How many handles of machines were closed and are not collected.
    pub(crate) remains: Rc<Cell<usize>>,
    /// The origins of the newest errors that are not tables.
    pub(crate) origins: RefCell<Vec<(Value, Note)>>,
    /// The errors of tasks that nobody has joined.
    pub(crate) unseen: RefCell<Vec<Rc<crate::task::State>>>,
    /// The snapshots that were closed and whose deletion has not ended.
    pub(crate) closing: RefCell<HashSet<SnapshotId>>,
    /// Whether new tasks can be started: false once the script has ended.
    pub(crate) live: Cell<bool>,
    /// The name of the script's chunk, as Lua marks it.
    pub(crate) chunk: String,
    /// The text of the scripts that errors point into.
    pub(crate) sources: RefCell<Sources>,
    /// How the script's tests are run.
    pub(crate) tests: Option<test::Settings>,
    /// What runs the tests, once the script has loaded `vmoon.test`.
    pub(crate) test_runner: RefCell<Option<Function>>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Context {
    /// The context of this Lua.
    pub(crate) fn of(lua: &Lua) -> Rc<Self> {
        lua.app_data_ref::<Rc<Self>>().expect("the runtime sets it before any binding runs").clone()
    }

    /// One of the prelude's functions that make classes.
    pub(crate) fn maker(&self, lua: &Lua, name: &str) -> mlua::Result<Function> {
        if let Some(class) = self.class.get() {
            return class.raw_get(name);
        }
        let class = crate::prelude::class(lua)?;
        self.class.get_or_init(|| class).raw_get(name)
    }

    /// Forgets the values of the script, so that nothing outlives its Lua.
    pub(crate) fn clear(&self) {
        self.origins.borrow_mut().clear();
        self.unseen.borrow_mut().clear();
        self.classes.borrow_mut().clear();
        self.test_runner.borrow_mut().take();
    }

    /// Whether the snapshot was closed.
    pub(crate) fn is_closing(&self, snapshot: SnapshotId) -> bool {
        self.closing.borrow().contains(&snapshot)
    }

    /// Keeps where an error that is not a table comes from.
    pub(crate) fn keep_origin(&self, value: &Value, note: Note) {
        let mut origins = self.origins.borrow_mut();
        if origins.iter().any(|(known, _)| known == value) {
            return;
        }
        if origins.len() == MOST_ORIGINS {
            origins.remove(0);
        }
        origins.push((value.clone(), note));
    }

    /// Where an error that is not a table comes from.
    pub(crate) fn origin(&self, value: &Value) -> Option<Note> {
        let origins = self.origins.borrow();
        origins.iter().find(|(known, _)| known == value).map(|(_, note)| note.clone())
    }
}
