//! What is known of the file whose tests run.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua, Value};
use vmoon_core::{MachineId, Vm};

use super::event::TestName;
use super::settings::Settings;
use crate::context::Context;

/// The state of one file.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// The tests that are selected, by number.
    pub(super) tests: RefCell<Vec<Arc<TestName>>>,
    /// How many tests are not selected.
    pub(super) deselected: Cell<usize>,
    /// What was printed since it was last taken.
    pub(super) output: Rc<RefCell<Vec<u8>>>,
    /// The machines that fixtures gave in this life.
    used: RefCell<Vec<Arc<Vm>>>,
    /// The machines of fixtures, of any life.
    fixtures: RefCell<HashSet<MachineId>>,
    /// The machines that were at hand when an error was last raised.
    pub(super) at_hand: RefCell<Vec<Arc<Vm>>>,
    /// What the report of the next failure says beside the error.
    pub(super) note: RefCell<Option<String>>,
    /// What was kept of the failure of the test that runs.
    pub(super) artifacts: RefCell<Option<PathBuf>>,
    /// The message handler of hooks and tests.
    pub(super) handler: RefCell<Option<Function>>,
}

impl State {
    pub(super) fn new(lua: &Lua) -> Self {
        let context = Context::of(lua);
        let settings = context.tests.clone().unwrap_or_else(|| Settings::new("", Arc::new(|_| {})));
        Self {
            settings,
            tests: RefCell::default(),
            deselected: Cell::new(0),
            output: Rc::default(),
            used: RefCell::default(),
            fixtures: RefCell::default(),
            at_hand: RefCell::default(),
            note: RefCell::default(),
            artifacts: RefCell::default(),
            handler: RefCell::default(),
        }
    }

    /// Time since the run began.
    pub(super) fn now(&self) -> Duration {
        self.settings.epoch.elapsed()
    }

    /// Notes that a fixture gave this machine.
    pub(super) fn used(&self, vm: &Arc<Vm>) {
        let mut used = self.used.borrow_mut();
        if !used.iter().any(|known| known.id() == vm.id()) {
            used.push(vm.clone());
            self.fixtures.borrow_mut().insert(vm.id());
        }
    }

    pub(super) fn begin_life(&self) {
        self.used.borrow_mut().clear();
        self.at_hand.borrow_mut().clear();
        self.note.borrow_mut().take();
    }

    /// Notes which machines are at hand: those that the test's fixtures gave, and those that it
    /// made itself. They may be closed by the time that somebody asks.
    pub(super) fn look_around(&self, lua: &Lua) {
        let used = self.used.borrow();
        let fixtures = self.fixtures.borrow();
        let others = Context::of(lua).host.list();
        let others = others.into_iter().filter(|vm| !fixtures.contains(&vm.id()));
        *self.at_hand.borrow_mut() = used.iter().cloned().chain(others).collect();
    }

    /// The message handler of hooks and tests: notes where errors come from, and who is there.
    pub(super) fn handler(self: &Rc<Self>, lua: &Lua) -> mlua::Result<Function> {
        if let Some(handler) = &*self.handler.borrow() {
            return Ok(handler.clone());
        }
        let (state, inner) = (self.clone(), Context::of(lua).handler.clone());
        let handler = lua.create_function(move |lua, value: Value| {
            state.look_around(lua);
            inner.call::<Value>(value)
        })?;
        *self.handler.borrow_mut() = Some(handler.clone());
        Ok(handler)
    }
}
