//! What a script breaks on purpose.

use std::sync::Arc;

use mlua::{UserData, UserDataRegistry, Value};
use vmoon_core::faults::{
    BlockEffect, BlockOperation, BlockRule, Fault, FaultId, VsockEffect, VsockRule,
};
use vmoon_core::{Code, Error, Vm, VsockPort};

use crate::arguments::{Arguments, duration, whole};
use crate::class::{self, Class, Handle, Results};
use crate::convert::integer;
use crate::fault::Outcome;
use crate::machine::Machine;
use crate::options::Options;

/// The faults of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Faults(pub(crate) Machine);

impl UserData for Faults {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Faults {
    const NAME: &'static str = "faults";

    fn machine(&self) -> Option<Arc<Vm>> {
        Some(self.0.vm().clone())
    }

    fn title(&self) -> String {
        format!("faults of {}", self.0.vm().name())
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.waiting("faults:block", Results::One, async |_, this: Self, arguments| {
            this.inject(block(&arguments)?, "block").await
        })?;
        class.waiting("faults:vsock", Results::One, async |_, this: Self, arguments| {
            this.inject(vsock(&arguments)?, "vsock").await
        })?;
        class.waiting("faults:vcpu", Results::One, async |_, this: Self, arguments| {
            this.inject(vcpu(&arguments)?, "vcpu").await
        })?;
        class.waiting("faults:clock", Results::None, async |_, this: Self, arguments| {
            let options = arguments.options(0, &["jump"])?;
            let (by, back) = jump(&options)?;
            Ok(this.0.vm().jump_clock(by, back).await?)
        })?;
        class.method("faults:clear", Results::None, |_, this, _| {
            for (id, _) in this.0.vm().active_faults() {
                this.0.vm().withdraw_fault(id);
            }
            Ok(())
        })
    }
}

impl Faults {
    async fn inject(&self, fault: Fault, kind: &'static str) -> Outcome<Injected> {
        let id = self.0.vm().inject_fault(fault).await?;
        Ok(Injected { machine: self.0.clone(), id, kind })
    }
}

fn block(arguments: &Arguments) -> Outcome<Fault> {
    const KEYS: &[&str] = &["disk", "op", "sectors", "after", "times", "error", "delay"];
    let options = arguments.options(0, KEYS)?;
    let effect = match (options.flag("error")?, options.duration("delay")?) {
        (Some(true), None) => BlockEffect::Error,
        (None | Some(false), Some(delay)) => BlockEffect::Delay(delay),
        _ => return Err(one_of("faults:block", "error = true or delay = \"10ms\"").into()),
    };
    let operation = match options.text("op")?.as_deref() {
        None => None,
        Some("read") => Some(BlockOperation::Read),
        Some("write") => Some(BlockOperation::Write),
        Some("flush") => Some(BlockOperation::Flush),
        Some(_) => {
            let given = options.value("op")?;
            return Err(options.wrong("op", "\"read\", \"write\" or \"flush\"", &given).into());
        }
    };
    let number = options.count("disk")?.unwrap_or(1);
    let rule = BlockRule {
        operation,
        sectors: sectors(&options)?,
        after: options.count("after")?.unwrap_or(0),
        times: options.count("times")?,
        effect,
    };
    Ok(Fault::Block(usize::try_from(number).unwrap_or(usize::MAX), rule))
}

/// `{ first, last }`.
fn sectors(options: &Options) -> Outcome<Option<(u64, u64)>> {
    const WANTED: &str = "the first and the last sector, as in { 0, 2047 }";
    let Some(table) = options.table("sectors", WANTED)? else { return Ok(None) };
    let sector = |place: i64| -> Outcome<Option<u64>> {
        let value: Value = table.get(place)?;
        Ok(whole(&value).and_then(|sector| u64::try_from(sector).ok()))
    };
    match (sector(1)?, sector(2)?) {
        (Some(first), Some(last)) if first <= last => Ok(Some((first, last))),
        _ => Err(options.wrong("sectors", WANTED, &Value::Table(table)).into()),
    }
}

fn vsock(arguments: &Arguments) -> Outcome<Fault> {
    let options = arguments.options(0, &["port", "after", "cut", "delay"])?;
    let effect = match (options.flag("cut")?, options.duration("delay")?) {
        (Some(true), None) => VsockEffect::Cut,
        (None | Some(false), Some(delay)) => VsockEffect::Delay(delay),
        _ => return Err(one_of("faults:vsock", "cut = true or delay = \"50ms\"").into()),
    };
    let port =
        match options.count("port")? {
            None => None,
            Some(port) => Some(VsockPort(u32::try_from(port).map_err(|_| {
                options.wrong("port", "a vsock port", &Value::Integer(integer(port)))
            })?)),
        };
    let after = options.size("after")?.map_or(0, vmoon_core::Bytes::get);
    Ok(Fault::Vsock(VsockRule { port, after, effect }))
}

fn vcpu(arguments: &Arguments) -> Outcome<Fault> {
    let options = arguments.options(0, &["index", "pause"])?;
    if options.flag("pause")? != Some(true) {
        return Err(one_of("faults:vcpu", "pause = true").into());
    }
    let index = options.count("index")?.unwrap_or(0);
    Ok(Fault::Vcpu(usize::try_from(index).unwrap_or(usize::MAX)))
}

/// How far a clock jumps, and whether back: a duration that may have a sign.
fn jump(options: &Options) -> Outcome<(std::time::Duration, bool)> {
    let place = || "option 'jump' of faults:clock".to_owned();
    let (value, back) = match options.value("jump")? {
        Value::Integer(seconds) if seconds < 0 => (Value::Integer(seconds.saturating_neg()), true),
        Value::Number(seconds) if seconds < 0.0 => (Value::Number(-seconds), true),
        Value::String(text) => match text.to_str()?.strip_prefix('-') {
            Some(rest) => {
                let by = vmoon_core::units::parse_duration(rest)?;
                return Ok((by, true));
            }
            None => (Value::String(text), false),
        },
        other => (other, false),
    };
    Ok((duration(&value, place)?, back))
}

/// The error of a fault that does not say what happens.
fn one_of(function: &str, wanted: &str) -> Error {
    Error::new(Code::VmSpec, format!("{function} does not say what is to happen"))
        .with_hint(format!("add {wanted}"))
}

/// A fault in force. Closing it mends what it broke.
#[derive(Clone, Debug)]
struct Injected {
    machine: Machine,
    id: FaultId,
    kind: &'static str,
}

impl Injected {
    /// How often it was met; none when it is in force no more.
    fn hits(&self) -> Option<u64> {
        let active = self.machine.vm().active_faults();
        active.iter().find(|(id, _)| *id == self.id).map(|(_, hits)| *hits)
    }
}

impl UserData for Injected {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Injected {
    const NAME: &'static str = "fault";

    fn machine(&self) -> Option<Arc<Vm>> {
        Some(self.machine.vm().clone())
    }

    fn title(&self) -> String {
        format!("fault ({} of {})", self.kind, self.machine.vm().name())
    }

    fn close(&self) {
        self.machine.vm().withdraw_fault(self.id);
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.field("active", |_, this| Ok(this.hits().is_some()))?;
        class.field("hits", |_, this| Ok(this.hits().map(integer)))?;
        class.method("fault:close", Results::None, |_, this, _| {
            this.close();
            Ok(())
        })
    }
}
