//! Functions that the program around the runtime gives to scripts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use mlua::Lua;
use vmoon_core::Error;

use crate::class::{self, Results};
use crate::fault::Fault;
use crate::session::Session;

type Outcome = Result<(), Error>;

type Pending<T> = Pin<Box<dyn Future<Output = T>>>;

enum Body {
    Immediate(Box<dyn Fn()>),
    Conversation(Rc<dyn Fn(Session) -> Pending<()>>),
    Waiting(Box<dyn Fn() -> Pending<Outcome>>),
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
        let call = move || -> Pending<Outcome> {
            let body = body.clone();
            Box::pin(async move { body().await })
        };
        self.0.push((name, Body::Waiting(Box::new(call))));
    }

    pub(super) fn add_conversation(
        &mut self,
        name: &'static str,
        talk: impl AsyncFn(Session) + 'static,
    ) {
        let talk = Rc::new(talk);
        let call = move |session| -> Pending<()> {
            let talk = talk.clone();
            Box::pin(async move { talk(session).await })
        };
        self.0.push((name, Body::Conversation(Rc::new(call))));
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
                Body::Conversation(talk) => {
                    class::waiting(lua, &globals, name, Results::None, move |lua, arguments| {
                        let talk = talk.clone();
                        async move {
                            let values = arguments.table(0, "a table of values by name")?;
                            talk(Session::open(&lua, Some(&values))?).await;
                            Ok(())
                        }
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
