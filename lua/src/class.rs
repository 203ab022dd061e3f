//! Classes and modules: Rust functions that Lua calls, in the form that the prelude expects.

use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use mlua::{
    Function, IntoLua, IntoLuaMulti, Lua, MetaMethod, MultiValue, Table, UserData, UserDataFields,
    UserDataMethods, UserDataRegistry, Value,
};
use vmoon_core::{Code, Error, Vm};

use crate::arguments::Arguments;
use crate::context::Context;
use crate::convert::nearest;
use crate::fault::{Outcome, Reply};

/// How many results a wrapper passes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Results {
    /// None.
    None,
    /// One, perhaps nil.
    One,
    /// Two, perhaps nil.
    Two,
    /// As many as there are.
    All,
}

impl Results {
    fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::Two => 2,
            Self::All => -1,
        }
    }
}

/// What a script holds: a cheap handle that shares what it stands for.
pub(crate) trait Handle: UserData + Clone + 'static {
    /// How messages call it: `vm`, `stream`.
    const NAME: &'static str;

    /// The machine that its errors are about.
    fn machine(&self) -> Option<Arc<Vm>> {
        None
    }

    /// What `print` shows.
    fn title(&self) -> String {
        Self::NAME.to_owned()
    }

    /// Ends it, for `<close>`: synchronous, idempotent, bounded.
    fn close(&self) {}

    /// Adds methods and fields.
    fn define(class: &mut Class<Self>) -> mlua::Result<()>;
}

/// Registers a handle's class with Lua: the body of [`UserData::register`].
pub(crate) fn register<T: Handle>(registry: &mut UserDataRegistry<T>) {
    register_except_close(registry);
    registry.add_meta_method(MetaMethod::Close, |_, this, _: MultiValue| {
        this.close();
        Ok(())
    });
}

/// The same for a class that adds `__close` itself.
pub(crate) fn register_except_close<T: Handle>(registry: &mut UserDataRegistry<T>) {
    registry.add_meta_field("__name", T::NAME);
    registry.add_meta_field_with(MetaMethod::Index, |lua| {
        let mut class = Class::<T>::new(lua)?;
        T::define(&mut class)?;
        class.index()
    });
    registry.add_meta_field_with(MetaMethod::NewIndex, |lua| {
        let readonly = lua.create_function(|lua, key: Value| {
            let name = key.to_string()?;
            let error = Error::new(Code::VmSpec, format!("'{name}' of {} cannot be set", T::NAME))
                .with_hint("its fields only tell; methods change what can be changed")
                .with_detail("key", name);
            Ok(Reply::<()>::new(lua, Err(error.into()), None))
        })?;
        Context::of(lua).maker(lua, "newindex")?.call::<Value>(readonly)
    });
    registry.add_meta_method(MetaMethod::ToString, |_, this, _: MultiValue| Ok(this.title()));
}

/// What the objects of a class have, for those who ask about it.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    /// The methods, by name.
    pub(crate) methods: Table,
    /// What computes the fields, by name.
    pub(crate) getters: Table,
}

/// A class in the making.
#[derive(Debug)]
pub(crate) struct Class<T> {
    lua: Lua,
    methods: Table,
    getters: Table,
    names: Vec<&'static str>,
    of: PhantomData<T>,
}

impl<T: Handle> Class<T> {
    fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Self {
            lua: lua.clone(),
            methods: lua.create_table()?,
            getters: lua.create_table()?,
            names: Vec::new(),
            of: PhantomData,
        })
    }

    /// A method that does not wait. `name` is as users write it: `vm:close`.
    pub(crate) fn method<R, F>(
        &mut self,
        name: &'static str,
        results: Results,
        body: F,
    ) -> mlua::Result<()>
    where
        R: IntoLuaMulti,
        F: Fn(&Lua, T, Arguments) -> Outcome<R> + 'static,
    {
        let function = self.lua.create_function(move |lua, mut values: MultiValue| {
            let this = match receiver::<T>(name, &mut values) {
                Ok(this) => this,
                Err(fault) => return Ok(Reply::new(lua, Err(fault), None)),
            };
            let machine = this.machine();
            let outcome = body(lua, this, Arguments::new(name, values));
            Ok(Reply::new(lua, outcome, machine.as_ref()))
        })?;
        self.add(name, results, &function)
    }

    /// A method that waits.
    pub(crate) fn waiting<R, F, Fut>(
        &mut self,
        name: &'static str,
        results: Results,
        body: F,
    ) -> mlua::Result<()>
    where
        R: IntoLuaMulti,
        F: Fn(Lua, T, Arguments) -> Fut + 'static,
        Fut: Future<Output = Outcome<R>> + 'static,
    {
        let body = Rc::new(body);
        let function = self.lua.create_async_function(move |lua, mut values: MultiValue| {
            let body = body.clone();
            async move {
                let this = match receiver::<T>(name, &mut values) {
                    Ok(this) => this,
                    Err(fault) => return Ok(Reply::new(&lua, Err(fault), None)),
                };
                let handle = this.clone();
                let outcome = body(lua.clone(), this, Arguments::new(name, values)).await;
                let machine = if outcome.is_err() { handle.machine() } else { None };
                Ok(Reply::new(&lua, outcome, machine.as_ref()))
            }
        })?;
        self.add(name, results, &function)
    }

    /// A field that is computed when it is read.
    pub(crate) fn field<R, F>(&mut self, name: &'static str, body: F) -> mlua::Result<()>
    where
        R: IntoLua,
        F: Fn(&Lua, T) -> Outcome<R> + 'static,
    {
        let getter = self.lua.create_function(move |lua, mut values: MultiValue| {
            let this = match receiver::<T>(name, &mut values) {
                Ok(this) => this,
                Err(fault) => return Ok(Reply::new(lua, Err(fault), None)),
            };
            let machine = this.machine();
            Ok(Reply::new(lua, body(lua, this), machine.as_ref()))
        })?;
        self.names.push(name);
        self.getters.raw_set(name, getter)
    }

    /// A field that has to be asked for.
    pub(crate) fn waiting_field<R, F, Fut>(
        &mut self,
        name: &'static str,
        body: F,
    ) -> mlua::Result<()>
    where
        R: IntoLua,
        F: Fn(T) -> Fut + 'static,
        Fut: Future<Output = Outcome<R>> + 'static,
    {
        let body = Rc::new(body);
        let getter = self.lua.create_async_function(move |lua, mut values: MultiValue| {
            let body = body.clone();
            async move {
                let this = match receiver::<T>(name, &mut values) {
                    Ok(this) => this,
                    Err(fault) => return Ok(Reply::new(&lua, Err(fault), None)),
                };
                let machine = this.machine();
                Ok(Reply::new(&lua, body(this).await, machine.as_ref()))
            }
        })?;
        self.names.push(name);
        self.getters.raw_set(name, getter)
    }

    fn add(&mut self, name: &'static str, results: Results, body: &Function) -> mlua::Result<()> {
        let key = name.rsplit([':', '.']).next().unwrap_or(name);
        self.names.push(key);
        self.methods.raw_set(key, wrap(&self.lua, results, body)?)
    }

    fn index(self) -> mlua::Result<Value> {
        let names = self.names;
        let unknown = self.lua.create_function(move |lua, key: Value| {
            let name = key.to_string()?;
            let mut message = format!("no method or field '{name}' on {}", T::NAME);
            if let Some(meant) = nearest(&name, names.iter().copied()) {
                message.push_str("; did you mean '");
                message.push_str(meant);
                message.push_str("'?");
            }
            let error = Error::new(Code::VmSpec, message)
                .with_hint(format!("{} has: {}", T::NAME, names.join(", ")))
                .with_detail("key", name)
                .with_detail("valid", names.as_slice());
            Ok(Reply::<()>::new(lua, Err(error.into()), None))
        })?;
        let context = Context::of(&self.lua);
        let known = Members { methods: self.methods.clone(), getters: self.getters.clone() };
        context.classes.borrow_mut().insert(T::NAME, known);
        context.maker(&self.lua, "index")?.call((self.methods, self.getters, unknown))
    }
}

/// Takes the object from the front of the arguments.
fn receiver<T: Handle>(name: &'static str, values: &mut MultiValue) -> Outcome<T> {
    if let Some(Value::UserData(data)) = values.pop_front()
        && let Ok(this) = data.borrow::<T>()
    {
        return Ok(this.clone());
    }
    Err(Error::new(Code::VmSpec, format!("{name} was called without its {}", T::NAME))
        .with_hint(format!("write {name}(…) with a colon"))
        .into())
}

/// Refuses a function of a module that was called with a colon: its first argument is then the
/// module, which has the function itself.
fn without_module(name: &'static str, values: &MultiValue) -> Outcome<()> {
    let key = name.rsplit('.').next().unwrap_or(name);
    if let Some(Value::Table(first)) = values.front()
        && first.raw_get::<Value>(key).is_ok_and(|value| value.is_function())
    {
        let message = format!("{name} was called with a colon");
        return Err(Error::new(Code::VmSpec, message)
            .with_hint(format!("write {name}(…) with a dot: it belongs to a module"))
            .into());
    }
    Ok(())
}

/// A function of a module that does not wait. `name` is as users write it: `vmoon.list`.
pub(crate) fn function<R, F>(
    lua: &Lua,
    module: &Table,
    name: &'static str,
    results: Results,
    body: F,
) -> mlua::Result<()>
where
    R: IntoLuaMulti,
    F: Fn(&Lua, Arguments) -> Outcome<R> + 'static,
{
    let function = lua.create_function(move |lua, values: MultiValue| {
        let outcome =
            without_module(name, &values).and_then(|()| body(lua, Arguments::new(name, values)));
        Ok(Reply::new(lua, outcome, None))
    })?;
    set(lua, module, name, results, &function)
}

/// A function of a module that waits.
pub(crate) fn waiting<R, F, Fut>(
    lua: &Lua,
    module: &Table,
    name: &'static str,
    results: Results,
    body: F,
) -> mlua::Result<()>
where
    R: IntoLuaMulti,
    F: Fn(Lua, Arguments) -> Fut + 'static,
    Fut: Future<Output = Outcome<R>> + 'static,
{
    let body = Rc::new(body);
    let function = lua.create_async_function(move |lua, values: MultiValue| {
        let outcome =
            without_module(name, &values).map(|()| body(lua.clone(), Arguments::new(name, values)));
        async move {
            let outcome = match outcome {
                Ok(call) => call.await,
                Err(fault) => Err(fault),
            };
            Ok(Reply::new(&lua, outcome, None))
        }
    })?;
    set(lua, module, name, results, &function)
}

fn set(
    lua: &Lua,
    module: &Table,
    name: &'static str,
    results: Results,
    body: &Function,
) -> mlua::Result<()> {
    let key = name.rsplit('.').next().unwrap_or(name);
    module.raw_set(key, wrap(lua, results, body)?)
}

fn wrap(lua: &Lua, results: Results, body: &Function) -> mlua::Result<Function> {
    Context::of(lua).maker(lua, "wrap")?.call((body, results.number()))
}

/// An iterator for a generic `for`: each step calls `object`'s method of this name. A loop that
/// ends early closes `closable`.
pub(crate) fn iterator<T: Handle>(
    lua: &Lua,
    object: T,
    method: &str,
    closes: bool,
) -> Outcome<MultiValue> {
    iterator_with(lua, object, method, closes, &Value::Nil)
}

/// The same, where each step passes on an argument.
pub(crate) fn iterator_with<T: Handle>(
    lua: &Lua,
    object: T,
    method: &str,
    closes: bool,
    argument: &Value,
) -> Outcome<MultiValue> {
    use mlua::ObjectLike;
    let object = lua.create_userdata(object)?;
    let step: Function = object.get(method)?;
    let closable = if closes { Value::UserData(object.clone()) } else { Value::Nil };
    let iterator = Context::of(lua).maker(lua, "iterator")?;
    Ok(iterator.call((step, object, closable, argument))?)
}
