//! Whether a text is a whole chunk.

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua};

use crate::trace::first_line;

/// Compiles text, on any thread, without running it.
#[derive(Debug)]
pub struct Checker(Lua);

impl Default for Checker {
    fn default() -> Self {
        Self(Lua::new())
    }
}

impl Checker {
    /// Whether more lines are needed to make a chunk of this text. Text that no line can mend is
    /// not incomplete: it is an error.
    pub fn is_incomplete(&self, text: &str) -> bool {
        let statements = compile(&self.0, text, "=input").err();
        let expression = compile(&self.0, &format!("return {text}"), "=input").err();
        match (statements, expression) {
            (Some(statements), Some(expression)) => {
                wants_more(&statements) || wants_more(&expression)
            }
            _ => false,
        }
    }
}

/// Compiles a chunk: an expression, whose values it returns, or statements.
pub(super) fn load(lua: &Lua, text: &str, chunk: &str) -> mlua::Result<Function> {
    if compile(lua, &format!("return {text}"), chunk).is_err() {
        return compile(lua, text, chunk);
    }
    // The values pass through a function: a call that is returned leaves the stack before it
    // ends, and an error could not say where it comes from. A line of its own for what ends the
    // call would take the last value's errors there, so only a remark at the end gets one.
    compile(lua, &format!("{PASS}({text})"), chunk)
        .or_else(|_| compile(lua, &format!("{PASS}({text}\n)"), chunk))
}

const PASS: &str = "return (function(...) return ... end)";

fn compile(lua: &Lua, text: &str, chunk: &str) -> mlua::Result<Function> {
    lua.load(text).set_name(chunk).set_mode(ChunkMode::Text).into_function()
}

/// A string in quotes ends with its line, though Lua says that its input ended too early.
fn wants_more(error: &mlua::Error) -> bool {
    matches!(error, mlua::Error::SyntaxError { incomplete_input: true, .. })
        && !first_line(error).contains("unfinished string")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlua::MultiValue;

    #[test]
    fn what_needs_more_lines() {
        let checker = Checker::default();
        for text in ["if x then", "f(", "x =", "[[long", "--[[ remark", "{ 1,", "for i = 1, 2 do"] {
            assert!(checker.is_incomplete(text), "{text}");
        }
        for text in
            ["", "1 + 1", "x = 1", "local x = = 1", "'open", "\"open", "end", "if x then end"]
        {
            assert!(!checker.is_incomplete(text), "{text}");
        }
    }

    #[test]
    fn errors_are_on_the_line_that_makes_them() {
        let lua = Lua::new();
        let main = load(&lua, "nothing.field", "=x").unwrap();
        let error = main.call::<MultiValue>(()).unwrap_err().to_string();
        assert!(error.contains("x:1: "), "{error}");
    }

    #[test]
    fn expressions_return_their_values() {
        let lua = Lua::new();
        assert_eq!(load(&lua, "1 + 1", "=x").unwrap().call::<i64>(()).unwrap(), 2);
        assert_eq!(
            load(&lua, "1, nil -- two", "=x").unwrap().call::<MultiValue>(()).unwrap().len(),
            2
        );
        load(&lua, "y = 3", "=x").unwrap().call::<()>(()).unwrap();
        assert_eq!(load(&lua, "y", "=x").unwrap().call::<i64>(()).unwrap(), 3);
    }
}
