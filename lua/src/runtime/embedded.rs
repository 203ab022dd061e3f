//! Functions that the program around the runtime gives to scripts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use mlua::Lua;
use vmoon_core::Error;

use crate::class::{self, Results};
use crate::fault::Fault;

type Outcome = Result<(), Error>;

enum Body {
    Immediate(Box<dyn Fn()>),
    Waiting(Box<dyn Fn() -> Pin<Box<dyn Future<Output = Outcome>>>>),
}

/// The functions, by name.
#[derive(Default)]
pub(super) struct Embedded(Vec<(&'static str, Body)>);

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Embedded {
    pub(super) fn add_immediate(&mut self, name: &'static str, body: impl Fn() + 'static) {
        self.0.push((name, Body::Immediate(Box::new(body))));
    }

    pub(super) fn add(&mut self, name: &'static str, body: impl AsyncFn() -> Outcome + 'static) {
        let body = Rc::new(body);
        let call = move || -> Pin<Box<dyn Future<Output = Outcome>>> {
            let body = body.clone();
            Box::pin(async move { body().await })
        };
        self.0.push((name, Body::Waiting(Box::new(call))));
    }

    /// Makes them globals.
    pub(super) fn define(self, lua: &Lua) -> mlua::Result<()> {
        let globals = lua.globals();
        for (name, body) in self.0 {
            match body {
                Body::Immediate(body) => {
                    class::function(lua, &globals, name, Results::None, move |_, _| {
                        body();
                        Ok(())
                    })?;
                }
                Body::Waiting(body) => {
                    class::waiting(lua, &globals, name, Results::None, move |_, _| {
                        let call = body();
                        async move { call.await.map_err(Fault::from) }
                    })?;
                }
            }
        }
        Ok(())
    }
}
