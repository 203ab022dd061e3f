//! The documentation as a terminal shows it.

use std::fmt::Write as _;

use super::{Alias, Class, Documentation, Function, Variable, short};

impl Documentation {
    /// Where to begin: every function of the modules, and the objects.
    pub fn overview(&self) -> String {
        let mut text = String::new();
        for class in self.classes.iter().filter(|class| class.is_module()) {
            for function in &class.functions {
                let _ = writeln!(text, "  {}", line(&class.signature(function), &function.text));
            }
        }
        text.push_str("\nobjects: ");
        let objects = self.classes.iter().filter(|class| class.is_object());
        text.push_str(&objects.map(Class::spoken).collect::<Vec<_>>().join(", "));
        text.push_str(
            "\n\nhelp(vm), help(vm.exec), help \"snap:fork\", help \"vmoon.Spec\" tell more",
        );
        text
    }

    pub(super) fn show_function(&self, class: &Class, function: &Function) -> String {
        let mut text = class.signature(function);
        paragraph(&mut text, &function.text);
        let told: Vec<Variable> = function
            .parameters
            .iter()
            .filter(|parameter| !parameter.kind.is_empty())
            .cloned()
            .chain(function.returns.iter().map(|result| Variable {
                name: "returns".to_owned(),
                optional: false,
                kind: result.kind.clone(),
                text: result.name.clone(),
            }))
            .collect();
        if !told.is_empty() {
            text.push('\n');
            variables(&mut text, &told);
        }
        // The tables of options that it takes and of results that it returns.
        for other in self.classes.iter().filter(|other| other.functions.is_empty()) {
            let named = |variable: &Variable| {
                variable
                    .kind
                    .split(|c: char| c != '.' && !c.is_alphanumeric())
                    .any(|word| word == other.name)
            };
            if told.iter().any(named) {
                let _ = write!(text, "\n\n{}", other.show());
            }
        }
        text
    }
}

impl Class {
    pub(super) fn show(&self) -> String {
        let mut text = self.spoken();
        if text != self.name {
            let _ = write!(text, " ({})", self.name);
        }
        paragraph(&mut text, &self.text);
        if !self.fields.is_empty() {
            text.push('\n');
            variables(&mut text, &self.fields);
        }
        if !self.functions.is_empty() {
            text.push('\n');
        }
        for function in &self.functions {
            let _ = write!(text, "\n  {}", line(&self.signature(function), &function.text));
        }
        text
    }

    /// Whether scripts hold such objects and call their methods.
    pub(super) fn is_object(&self) -> bool {
        !self.is_module() && !self.functions.is_empty()
    }

    /// How scripts write the function: `vm:exec`.
    pub(super) fn called(&self, function: &Function) -> String {
        let separator = if function.method { ':' } else { '.' };
        format!("{}{separator}{}", self.spoken(), function.name)
    }

    pub(super) fn signature(&self, function: &Function) -> String {
        let parameters: Vec<String> = function
            .parameters
            .iter()
            .map(|one| format!("{}{}", one.name, if one.optional { "?" } else { "" }))
            .collect();
        let mut text = format!("{}({})", self.called(function), parameters.join(", "));
        let returns: Vec<&str> =
            function.returns.iter().map(|result| short_type(&result.kind)).collect();
        if !returns.is_empty() {
            let _ = write!(text, " -> {}", returns.join(", "));
        }
        text
    }
}

impl Variable {
    pub(super) fn show(&self, owner: &str) -> String {
        let optional = if self.optional { "?" } else { "" };
        line(&format!("{owner}{}{optional}  {}", self.name, self.kind), &self.text)
    }
}

impl Alias {
    pub(super) fn show(&self) -> String {
        let mut text = self.name.clone();
        paragraph(&mut text, &self.text);
        paragraph(&mut text, &self.kind);
        text
    }
}

fn short_type(kind: &str) -> &str {
    if kind.starts_with("vmoon.") { short(kind) } else { kind }
}

/// The first sentence behind a title.
fn line(title: &str, text: &str) -> String {
    let text = text.replace('\n', " ");
    let sentence = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
    if sentence.is_empty() { title.to_owned() } else { format!("{title}  -- {sentence}") }
}

fn paragraph(text: &mut String, lines: &str) {
    if lines.trim().is_empty() {
        return;
    }
    text.push('\n');
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let _ = write!(text, "\n{line}");
    }
}

/// A table of names, types and texts.
fn variables(text: &mut String, variables: &[Variable]) {
    let name = |one: &Variable| format!("{}{}", one.name, if one.optional { "?" } else { "" });
    let widest = variables.iter().map(|one| name(one).chars().count()).max().unwrap_or_default();
    for one in variables {
        let _ = write!(text, "\n  {:widest$}  {}", name(one), one.kind);
        if !one.text.is_empty() {
            let _ = write!(text, "  -- {}", one.text);
        }
    }
}
