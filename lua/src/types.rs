//! The documentation of the API: the types for editors in `stdlib/types`, which the binary
//! carries.

use crate::convert::nearest;

mod parse;
mod show;

/// The files of `stdlib/types`, by name.
pub const FILES: &[(&str, &str)] = &[
    ("io.d.lua", include_str!("../../stdlib/types/io.d.lua")),
    ("task.d.lua", include_str!("../../stdlib/types/task.d.lua")),
    ("test.d.lua", include_str!("../../stdlib/types/test.d.lua")),
    ("vm.d.lua", include_str!("../../stdlib/types/vm.d.lua")),
    ("vmoon.d.lua", include_str!("../../stdlib/types/vmoon.d.lua")),
];

/// All that is documented.
#[derive(Clone, Debug, Default)]
pub struct Documentation {
    /// Modules, objects, tables of options and of results, in the files' order.
    pub classes: Vec<Class>,
    /// Names for types.
    pub aliases: Vec<Alias>,
}

/// A module, an object or a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Its name, for example `vmoon.Vm`.
    pub name: String,
    /// What it is; lines.
    pub text: String,
    /// The fields.
    pub fields: Vec<Variable>,
    /// The functions or methods.
    pub functions: Vec<Function>,
}

/// A function of a module, or a method of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Its name, without its owner.
    pub name: String,
    /// Whether it is called with a colon.
    pub method: bool,
    /// What it does; lines.
    pub text: String,
    /// What it takes.
    pub parameters: Vec<Variable>,
    /// What it returns.
    pub returns: Vec<Variable>,
}

/// A parameter, a result or a field. Results may have no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Whether it may be absent.
    pub optional: bool,
    /// Its type.
    pub kind: String,
    /// What it is.
    pub text: String,
}

/// A name for a type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub name: String,
    /// What it is; lines.
    pub text: String,
    /// The type; or the values that it may have, a line each.
    pub kind: String,
}

impl Documentation {
    /// What this build ships.
    pub fn shipped() -> Self {
        let mut all = Self::default();
        for (_, text) in FILES {
            all.read(text);
        }
        all
    }

    /// What is documented of `topic`: `vm:exec`, `vmoon.boot`, `exec`, `vm`, `vmoon.Spec`.
    ///
    /// # Errors
    /// The nearest name that there is, if any is near.
    pub fn about(&self, topic: &str) -> Result<String, Option<String>> {
        let topic = topic.trim().trim_end_matches("()").replace(':', ".");
        let bare = topic.strip_prefix("vmoon.").unwrap_or(&topic);
        if let Some(class) = self.classes.iter().find(|class| class.is_called(&topic)) {
            return Ok(class.show());
        }
        if let Some(alias) = self.aliases.iter().find(|alias| short(&alias.name) == bare) {
            return Ok(alias.show());
        }
        let found: Vec<String> = self
            .classes
            .iter()
            .flat_map(|class| class.functions.iter().map(move |function| (class, function)))
            .filter(|(class, function)| match topic.rsplit_once('.') {
                Some((owner, name)) => class.is_called(owner) && function.name == name,
                None => function.name == topic,
            })
            .map(|(class, function)| self.show_function(class, function))
            .collect();
        if !found.is_empty() {
            return Ok(found.join("\n\n"));
        }
        if let Some(found) = self.field(&topic) {
            return Ok(found);
        }
        Err(self.nearest(&topic))
    }

    /// How a function is called and what it returns: of `vm:exec`, say.
    pub(crate) fn signature(&self, called: &str) -> Option<String> {
        self.classes.iter().find_map(|class| {
            let mut functions = class.functions.iter();
            let found = functions.find(|function| class.called(function) == called)?;
            Some(class.signature(found))
        })
    }

    /// What is documented of the objects that scripts usually call `name`.
    pub fn about_object(&self, name: &str) -> Option<String> {
        let mut objects = self.classes.iter().filter(|class| class.is_object());
        objects.find(|class| class.spoken() == name).map(Class::show)
    }

    fn field(&self, topic: &str) -> Option<String> {
        let (owner, name) = topic.rsplit_once('.')?;
        let class = self.classes.iter().find(|class| class.is_called(owner))?;
        let field = class.fields.iter().find(|field| field.name == name)?;
        Some(field.show(&format!("{}.", class.spoken())))
    }

    fn nearest(&self, topic: &str) -> Option<String> {
        let classes = self.classes.iter().map(Class::spoken);
        let functions = self.classes.iter().flat_map(|class| {
            class
                .functions
                .iter()
                .flat_map(|function| [class.called(function), function.name.clone()])
        });
        let names: Vec<String> = classes.chain(functions).collect();
        nearest(&topic.replace('.', ":"), names.iter().map(String::as_str))
            .or_else(|| nearest(topic, names.iter().map(String::as_str)))
            .map(str::to_owned)
    }
}

impl Class {
    /// Whether its functions are called with a dot, or it is what holds such modules.
    pub fn is_module(&self) -> bool {
        self.name.rsplit('.').next().is_some_and(|last| last.starts_with(char::is_lowercase))
    }

    /// How scripts usually call such an object: `vm`, `snap`; a module by its name.
    pub fn spoken(&self) -> String {
        if self.is_module() || self.functions.is_empty() {
            return self.name.clone();
        }
        match short(&self.name) {
            "Snapshot" => "snap".to_owned(),
            name => name.to_lowercase(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        name == self.name || name == self.spoken() || name == short(&self.name)
    }
}

/// The last part of a name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_shipped() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../stdlib/types");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort_unstable();
        let shipped: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(shipped, found, "FILES in lua/src/types.rs lists stdlib/types");
    }

    #[test]
    fn every_error_code_is_documented_and_no_other() {
        let documentation = Documentation::shipped();
        let codes = documentation.aliases.iter().find(|alias| alias.name == "vmoon.Code").unwrap();
        let documented: Vec<&str> = codes.kind.split('"').skip(1).step_by(2).collect();
        let codes: Vec<&str> = vmoon_core::Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(documented, codes);
    }

    #[test]
    fn everything_has_a_name_and_functions_have_texts() {
        let documentation = Documentation::shipped();
        assert!(documentation.classes.len() > 15);
        for class in &documentation.classes {
            for function in &class.functions {
                // A few say it all by their names.
                let plain = ["close", "close_stdin", "stats"].contains(&function.name.as_str());
                assert!(plain || !function.text.is_empty(), "{}", class.called(function));
            }
        }
    }

    #[test]
    fn topics_are_found_by_the_names_that_people_use() {
        let documentation = Documentation::shipped();
        for topic in ["vm:exec", "vm.exec", "vmoon.Vm:exec", "exec", "vm:exec()"] {
            let text = documentation.about(topic).unwrap();
            assert!(text.starts_with("vm:exec(cmd, opts?)"), "{topic}: {text}");
            assert!(text.contains("vmoon.ExecOptions"), "{text}");
        }
        for topic in ["vm", "vmoon.Vm", "Vm"] {
            assert!(documentation.about(topic).unwrap().contains("vm:snapshot("), "{topic}");
        }
        assert!(documentation.about("vmoon.boot").unwrap().contains("vmoon.Spec"));
        assert!(documentation.about("Spec").unwrap().contains("memory?"));
        assert!(documentation.about("vmoon.State").unwrap().contains("paused"));
        assert!(documentation.about("vm.state").unwrap().contains("vmoon.State"));
        assert!(documentation.about("snap:fork").unwrap().contains("copy-on-write"));
        assert_eq!(documentation.about("vm:exce"), Err(Some("vm:exec".to_owned())));
        assert_eq!(documentation.about("something else"), Err(None));
    }
}
