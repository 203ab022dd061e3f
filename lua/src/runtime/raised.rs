//! What message handlers note of the errors that pass them.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Function, Lua, Value};

use crate::context::Context;
use crate::report::{Report, Sources};
use crate::trace::{self, Note};

/// The errors that left the script's main function, in the order in which they were raised: the
/// first, and those of `<close>`s on the way out.
#[derive(Debug, Default)]
pub(crate) struct Raised(RefCell<Vec<Value>>);

/// More errors in `<close>`s than anybody reads.
const MOST: usize = 8;

impl Raised {
    /// The message handler of the main function. It passes the error on as it is: `<close>`
    /// metamethods receive what the handler returns.
    pub(crate) fn handler(self: &Rc<Self>, lua: &Lua) -> mlua::Result<Function> {
        let raised = self.clone();
        lua.create_function(move |lua, value: Value| {
            note(lua, &value)?;
            let mut raised = raised.0.borrow_mut();
            if raised.len() < MOST && raised.last() != Some(&value) {
                raised.push(value.clone());
            }
            Ok(value)
        })
    }

    /// What is to be told of a script that ended with `last`.
    pub(crate) fn reports(
        &self,
        lua: &Lua,
        context: &Context,
        last: &Value,
        sources: &mut Sources,
    ) -> Vec<Report> {
        let mut values = self.0.borrow().clone();
        if values.last() != Some(last) {
            values.push(last.clone());
        }
        let mut reports: Vec<Report> = values
            .iter()
            .map(|value| {
                let note = note_of(lua, context, value).unwrap_or_default();
                Report::new(lua, value, note, sources)
            })
            .collect();
        for report in reports.iter_mut().skip(1) {
            report
                .notes
                .push("raised by a `<close>` while the error above ended the script".into());
        }
        reports
    }

    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// The message handler of tasks.
pub(super) fn task_handler(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, value: Value| {
        note(lua, &value)?;
        Ok(value)
    })
}

/// Keeps where the error was raised, unless that is known.
fn note(lua: &Lua, value: &Value) -> mlua::Result<()> {
    let note = Note::here(lua, None);
    if let Value::Table(table) = value {
        return trace::remember(lua, table, note);
    }
    Context::of(lua).keep_origin(value, note);
    Ok(())
}

/// Where the error was raised.
pub(crate) fn note_of(lua: &Lua, context: &Context, value: &Value) -> Option<Note> {
    match value {
        Value::Table(table) => trace::recall(lua, table),
        _ => context.origin(value),
    }
}
