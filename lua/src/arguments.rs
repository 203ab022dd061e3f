//! The arguments of a binding, checked, with errors that name the function.

use std::path::PathBuf;
use std::time::Duration;

use mlua::{Function, LuaString, MultiValue, Table, Value};
use vmoon_core::{Bytes, Code, Error, VsockPort, units};

use crate::convert::kind;
use crate::fault::Outcome;
use crate::options::Options;
use crate::types::Documentation;

/// The arguments of one call.
#[derive(Debug)]
pub(crate) struct Arguments {
    function: &'static str,
    values: MultiValue,
}

impl Arguments {
    /// The arguments after the object itself.
    pub(crate) fn new(function: &'static str, values: MultiValue) -> Self {
        Self { function, values }
    }

    /// The function's name as users write it, for example `vm:exec`.
    pub(crate) fn function(&self) -> &'static str {
        self.function
    }

    /// The argument at `index`, from 0; nil when it was not given.
    pub(crate) fn value(&self, index: usize) -> &Value {
        self.values.get(index).unwrap_or(&Value::Nil)
    }

    /// All arguments from `index` on.
    pub(crate) fn rest(self, index: usize) -> MultiValue {
        self.values.into_iter().skip(index).collect()
    }

    /// The error of a wrong argument. `wanted` says what would be right.
    pub(crate) fn wrong(&self, index: usize, wanted: &str) -> Error {
        let place = format!("argument {} of {}", index + 1, self.function);
        let error = wrong(&place, wanted, self.value(index));
        match Documentation::shipped().signature(self.function) {
            Some(signature) => error.with_hint(signature),
            None => error,
        }
    }

    /// A string; numbers count as strings, as everywhere in Lua.
    pub(crate) fn string(&self, index: usize, wanted: &str) -> Outcome<LuaString> {
        match self.value(index) {
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.wrong(index, wanted).into()),
        }
    }

    /// A string of UTF-8 text.
    pub(crate) fn text(&self, index: usize, wanted: &str) -> Outcome<String> {
        let text = self.string(index, wanted)?;
        let text = text.to_str().map_err(|_| self.wrong(index, wanted))?;
        Ok(text.to_owned())
    }

    /// A path of the host.
    pub(crate) fn path(&self, index: usize, wanted: &str) -> Outcome<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let path = self.string(index, wanted)?;
        Ok(std::ffi::OsString::from_vec(path.as_bytes().to_vec()).into())
    }

    /// A function.
    pub(crate) fn callback(&self, index: usize) -> Outcome<Function> {
        match self.value(index) {
            Value::Function(function) => Ok(function.clone()),
            _ => Err(self.wrong(index, "a function").into()),
        }
    }

    /// A table.
    pub(crate) fn table(&self, index: usize, wanted: &str) -> Outcome<Table> {
        match self.value(index) {
            Value::Table(table) => Ok(table.clone()),
            _ => Err(self.wrong(index, wanted).into()),
        }
    }

    /// A duration.
    pub(crate) fn duration(&self, index: usize) -> Outcome<Duration> {
        Ok(duration(self.value(index), || format!("argument {} of {}", index + 1, self.function))?)
    }

    /// A size.
    pub(crate) fn size(&self, index: usize) -> Outcome<Bytes> {
        Ok(size(self.value(index), || format!("argument {} of {}", index + 1, self.function))?)
    }

    /// A count: an integer from 0, or `default` when nothing was given.
    pub(crate) fn count(&self, index: usize, default: Option<usize>) -> Outcome<usize> {
        match (self.value(index), default) {
            (Value::Nil, Some(default)) => Ok(default),
            (value, _) => whole(value)
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| self.wrong(index, "a number from 0").into()),
        }
    }

    /// A vsock port.
    pub(crate) fn port(&self, index: usize) -> Outcome<VsockPort> {
        whole(self.value(index))
            .and_then(|port| u32::try_from(port).ok())
            .map(VsockPort)
            .ok_or_else(|| self.wrong(index, "a vsock port (a number from 0)").into())
    }

    /// The options table at `index`, which may be absent, with its keys checked.
    pub(crate) fn options(&self, index: usize, keys: &'static [&'static str]) -> Outcome<Options> {
        match self.value(index) {
            Value::Nil => Ok(Options::none(self.function)),
            Value::Table(table) => Options::new(self.function, table.clone(), keys),
            _ => Err(self.wrong(index, "a table of options").into()),
        }
    }
}

/// The error of a value that is not what was wanted.
pub(crate) fn wrong(place: &str, wanted: &str, value: &Value) -> Error {
    Error::new(Code::VmSpec, format!("{place} must be {wanted}, not {}", kind(value)))
        .with_hint(format!("it takes {wanted}"))
}

/// The whole number of a value: an integer, or a float without a fraction.
pub(crate) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(value) => Some(*value),
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a float with no fraction below 2^53 is exactly an integer"
        )]
        Value::Number(value) if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 => {
            Some(*value as i64)
        }
        _ => None,
    }
}

/// A size: a number of bytes, or text such as `"512MiB"`.
pub(crate) fn size(value: &Value, place: impl FnOnce() -> String) -> Result<Bytes, Error> {
    const WANTED: &str = "a size: a number of bytes, or \"512MiB\", \"1GiB\"";
    match value {
        Value::String(text) => match text.to_str() {
            Ok(text) => text.parse(),
            Err(_) => Err(wrong(&place(), WANTED, value)),
        },
        _ => whole(value)
            .and_then(|bytes| u64::try_from(bytes).ok())
            .map(Bytes)
            .ok_or_else(|| wrong(&place(), WANTED, value)),
    }
}

/// A duration: a number of seconds, or text such as `"250ms"`.
pub(crate) fn duration(value: &Value, place: impl FnOnce() -> String) -> Result<Duration, Error> {
    const WANTED: &str = "a duration: a number of seconds, or \"250ms\", \"20s\", \"2m\"";
    let seconds = match value {
        Value::String(text) => {
            return match text.to_str() {
                Ok(text) => units::parse_duration(&text),
                Err(_) => Err(wrong(&place(), WANTED, value)),
            };
        }
        #[allow(clippy::cast_precision_loss, reason = "no wait is longer than 2^53 seconds")]
        Value::Integer(seconds) => Some(*seconds as f64),
        Value::Number(seconds) => Some(*seconds),
        _ => None,
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| wrong(&place(), WANTED, value))
}
