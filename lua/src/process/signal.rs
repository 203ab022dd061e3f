//! Signals by name and number.

use mlua::Value;

/// Linux's signals (signal(7), x86-64), without `SIG`.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal of the guest by name, with or without `SIG`, or by number; KILL when there is none.
pub(super) fn number(value: &Value) -> Option<i32> {
    match value {
        Value::Nil => Some(9),
        Value::String(text) => {
            let text = text.to_str().ok()?.to_ascii_uppercase();
            let name = text.strip_prefix("SIG").unwrap_or(&text);
            let index = NAMES.iter().position(|known| *known == name)?;
            i32::try_from(index + 1).ok()
        }
        other => crate::arguments::whole(other)
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| (1..=64).contains(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::Lua;

    #[test]
    fn signals_have_names_and_numbers() {
        let lua = Lua::new();
        let named = |name: &str| number(&Value::String(lua.create_string(name).unwrap()));
        assert_eq!(named("TERM"), Some(15));
        assert_eq!(named("sigint"), Some(2));
        assert_eq!((named("HUP"), named("SYS"), named("WINCH")), (Some(1), Some(31), Some(28)));
        assert_eq!(named("SIGNAL"), None);
        assert_eq!(number(&Value::Integer(12)), Some(12));
        assert_eq!(number(&Value::Integer(0)), None);
        assert_eq!(number(&Value::Nil), Some(9));
    }
}
