//! The methods that carry files to and from the guest.

use mlua::{Lua, Value};
use vmoon_core::vm::FileOptions;

use super::Machine;
use crate::arguments::Arguments;
use crate::class::{Class, Results};
use crate::fault::Outcome;
use crate::options::Options;

const GUEST_PATH: &str = "a path in the guest";
const HOST_PATH: &str = "a path of the host";

pub(super) fn define(class: &mut Class<Machine>) -> mlua::Result<()> {
    class.waiting("vm:write_file", Results::None, async |_, this: Machine, arguments| {
        let path = guest_path(&arguments, 0)?;
        let data = arguments.string(1, "a string, the file's contents")?;
        let options = arguments.options(2, &["timeout", "mode", "parents"])?;
        let options = FileOptions { mode: mode(&options)?, ..file_options(&options)? };
        Ok(this.vm().write_file(&path, &data.as_bytes(), &options).await?)
    })?;
    class.waiting("vm:read_file", Results::One, async |lua: Lua, this: Machine, arguments| {
        let path = guest_path(&arguments, 0)?;
        let timeout = arguments.options(1, &["timeout"])?.duration("timeout")?;
        Ok(lua.create_string(this.vm().read_file(&path, timeout).await?)?)
    })?;
    class.waiting("vm:copy_in", Results::None, async |_, this: Machine, arguments| {
        let (from, to) = (arguments.path(0, HOST_PATH)?, guest_path(&arguments, 1)?);
        let options = file_options(&arguments.options(2, &["timeout", "parents"])?)?;
        Ok(this.vm().copy_in(&from, &to, &options).await?)
    })?;
    class.waiting("vm:copy_out", Results::None, async |_, this: Machine, arguments| {
        let (from, to) = (guest_path(&arguments, 0)?, arguments.path(1, HOST_PATH)?);
        let options = file_options(&arguments.options(2, &["timeout", "parents"])?)?;
        Ok(this.vm().copy_out(&from, &to, &options).await?)
    })
}

fn guest_path(arguments: &Arguments, index: usize) -> Outcome<Vec<u8>> {
    Ok(arguments.string(index, GUEST_PATH)?.as_bytes().to_vec())
}

fn file_options(options: &Options) -> Outcome<FileOptions> {
    Ok(FileOptions {
        timeout: options.duration("timeout")?,
        parents: options.flag("parents")?.unwrap_or_default(),
        mode: None,
    })
}

/// A mode is written as chmod(1) takes it. A number would not do: Lua reads 755 as decimal.
fn mode(options: &Options) -> Outcome<Option<u32>> {
    const WANTED: &str = "octal digits in a string, such as \"755\" or \"0600\"";
    let value = options.value("mode")?;
    let digits = match &value {
        Value::Nil => return Ok(None),
        Value::String(text) => text.to_str().map(|text| text.to_owned()).unwrap_or_default(),
        _ => String::new(),
    };
    match u32::from_str_radix(&digits, 8) {
        Ok(mode) if mode <= 0o7777 && !digits.starts_with('+') => Ok(Some(mode)),
        _ => Err(options.wrong("mode", WANTED, &value).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_digits_in_a_string() {
        let lua = Lua::new();
        let read = |code: &str| {
            let table = lua.load(code).eval().unwrap();
            mode(&Options::new("vm:write_file", table, &["mode"]).unwrap()).ok()
        };
        assert_eq!(read("{ mode = '755' }"), Some(Some(0o755)));
        assert_eq!(read("{ mode = '0600' }"), Some(Some(0o600)));
        assert_eq!(read("{}"), Some(None));
        for code in ["755", "'rwx'", "'888'", "'+7'", "'17777'", "''", "true"] {
            assert_eq!(read(&format!("{{ mode = {code} }}")), None, "{code}");
        }
    }
}
