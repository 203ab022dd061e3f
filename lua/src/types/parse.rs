//! Reads the annotations of a file of types (`EmmyLua`'s, as far as these files use them).

use std::collections::HashMap;
use std::fmt::Write as _;

use super::{Alias, Class, Documentation, Function, Variable};

/// What the comment lines above a name say.
#[derive(Default)]
struct Comment {
    text: Vec<String>,
    parameters: Vec<Variable>,
    returns: Vec<Variable>,
}

impl Documentation {
    /// Adds what a file documents.
    pub(super) fn read(&mut self, file: &str) {
        let mut comment = Comment::default();
        let mut locals: HashMap<&str, usize> = HashMap::new();
        let mut in_alias = false;
        for line in file.lines() {
            let Some(annotation) = line.strip_prefix("---") else {
                in_alias = false;
                if let Some(rest) = line.strip_prefix("local ")
                    && let Some((name, _)) = rest.split_once(" =")
                    && let Some(last) = self.classes.len().checked_sub(1)
                {
                    locals.insert(name, last);
                } else if let Some(rest) = line.strip_prefix("function ") {
                    self.function(rest, std::mem::take(&mut comment), &locals);
                }
                comment = Comment::default();
                continue;
            };
            if in_alias && let Some(value) = annotation.strip_prefix('|') {
                if let Some(alias) = self.aliases.last_mut() {
                    let _ = write!(alias.kind, "\n{}", value.trim().replace(" # ", "  "));
                }
                continue;
            }
            in_alias = false;
            match annotation.strip_prefix('@').and_then(|tag| tag.split_once(' ')) {
                Some(("class", rest)) => {
                    let rest = rest.trim_start_matches("(exact) ");
                    let name = rest.split([' ', ':']).next().unwrap_or(rest).to_owned();
                    let text = std::mem::take(&mut comment).text.join("\n");
                    // What it has of another class is its own, too.
                    let parent = rest.split_once(": ").map(|(_, parent)| parent);
                    let parent = self.classes.iter().find(|class| Some(&*class.name) == parent);
                    let fields = parent.map_or_else(Vec::new, |parent| parent.fields.clone());
                    self.classes.push(Class { name, text, fields, ..Class::default() });
                }
                Some(("alias", rest)) => {
                    let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                    let text = std::mem::take(&mut comment).text.join("\n");
                    self.aliases.push(Alias { name: name.to_owned(), text, kind: kind.to_owned() });
                    in_alias = true;
                }
                Some(("field", rest)) => {
                    if let Some(class) = self.classes.last_mut() {
                        class.fields.push(variable(rest));
                    }
                }
                Some(("param", rest)) => comment.parameters.push(variable(rest)),
                Some(("return", rest)) => {
                    let (kind, name) = split_type(rest);
                    let name = name.trim_start_matches("# ").to_owned();
                    comment.returns.push(Variable { name, kind, ..Variable::default() });
                }
                Some(_) => {}
                None if annotation.starts_with('@') => {}
                None => comment.text.push(annotation.trim_start().to_owned()),
            }
        }
    }

    /// `Owner:name(parameters) end`.
    fn function(&mut self, declared: &str, comment: Comment, locals: &HashMap<&str, usize>) {
        let Some((path, rest)) = declared.split_once('(') else { return };
        let Some(at) = path.rfind([':', '.']) else { return };
        let Some(class) = locals.get(&path[..at]).and_then(|class| self.classes.get_mut(*class))
        else {
            return;
        };
        let mut parameters = comment.parameters;
        for name in rest.split(')').next().unwrap_or_default().split(", ") {
            if !name.is_empty() && !parameters.iter().any(|known| known.name == name) {
                parameters.push(Variable { name: name.to_owned(), ..Variable::default() });
            }
        }
        class.functions.push(Function {
            name: path[at + 1..].to_owned(),
            method: path[at..].starts_with(':'),
            text: comment.text.join("\n"),
            parameters,
            returns: comment.returns,
        });
    }
}

/// `name? type text`.
fn variable(rest: &str) -> Variable {
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (kind, text) = split_type(rest);
    Variable {
        name: name.trim_end_matches('?').to_owned(),
        optional: name.ends_with('?'),
        kind,
        text,
    }
}

/// Splits a type from the text behind it: at the first space that is not inside the type.
fn split_type(rest: &str) -> (String, String) {
    let mut depth = 0_i32;
    let mut before = ' ';
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '{' | '<' | '[' => depth += 1,
            ')' | '}' | '>' | ']' => depth -= 1,
            ' ' if depth == 0
                && !matches!(before, ':' | ',' | '|')
                && !rest[at..].trim_start().starts_with('|') =>
            {
                return (rest[..at].to_owned(), rest[at..].trim().to_owned());
            }
            _ => {}
        }
        if c != ' ' {
            before = c;
        }
    }
    (rest.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_end_where_the_text_begins() {
        for (line, kind, text) in [
            ("integer bytes", "integer", "bytes"),
            ("\"micro\"|\"linux\" the guest", "\"micro\"|\"linux\"", "the guest"),
            ("{ a: string?, b: integer } opts", "{ a: string?, b: integer }", "opts"),
            ("fun(): string?, \"x\"|nil", "fun(): string?, \"x\"|nil", ""),
            ("table<string, string|number> added", "table<string, string|number>", "added"),
            ("vmoon.Vm", "vmoon.Vm", ""),
        ] {
            assert_eq!(split_type(line), (kind.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn a_file_is_read() {
        let mut all = Documentation::default();
        all.read(
            "---@meta\n\n---A size.\n---@alias Size integer|string\n\n---@alias State\n---| \"on\" # \
             it runs\n\n---A thing.\n---@class m.Thing\n---@field id string its name\nlocal Thing = \
             {}\n\n---Does it.\n---@param how? string the way\n---@return integer count\nfunction \
             Thing:act(how) end\n",
        );
        assert_eq!(all.aliases[0].kind, "integer|string");
        assert_eq!(all.aliases[1].kind, "\n\"on\"  it runs");
        let class = &all.classes[0];
        assert_eq!((class.name.as_str(), class.text.as_str()), ("m.Thing", "A thing."));
        assert_eq!(class.fields[0].text, "its name");
        let function = &class.functions[0];
        assert!(function.method && function.parameters[0].optional);
        assert_eq!(function.returns[0].name, "count");
    }
}
