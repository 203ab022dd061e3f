//! `vmoon types`: the type definitions for editors.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use serde_json::{Map, Value, json};
use vmoon_lua::types::FILES;

use crate::status;

/// Where the definitions go, below the folder of the scripts.
const DEFINITIONS: &str = ".vmoon/types";

/// The settings of the language servers (lua-language-server, and `EmmyLua`, which reads the same).
const SETTINGS: &str = ".luarc.json";

/// The setting that lists folders of definitions.
const LIBRARY: &str = "workspace.library";

/// Writes them; the exit status.
pub(crate) fn run(directory: &Path) -> anyhow::Result<i32> {
    let definitions = directory.join(DEFINITIONS);
    let unwritable = || format!("{} cannot be written", definitions.display());
    fs::create_dir_all(&definitions).with_context(unwritable)?;
    for (name, text) in FILES {
        fs::write(definitions.join(name), text).with_context(unwritable)?;
    }
    let path = directory.join(SETTINGS);
    let before = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be read", path.display()));
        }
    };
    let after = settings(before.as_deref()).with_context(|| {
        format!("{} is left as it is; add {DEFINITIONS:?} to its {LIBRARY:?}", path.display())
    })?;
    fs::write(&path, after).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{} and {} files in {}", path.display(), FILES.len(), definitions.display());
    Ok(status::DONE)
}

/// The settings with the definitions in them. What a user has set stays.
fn settings(before: Option<&str>) -> anyhow::Result<String> {
    let mut settings: Map<String, Value> = match before {
        Some(text) => serde_json::from_str(text).context("it is not an object of plain JSON")?,
        None => Map::new(),
    };
    settings.entry("runtime.version").or_insert_with(|| json!("Lua 5.4"));
    // A machine's fields change on their own; a checker takes them for what they were.
    settings.entry("diagnostics.disable").or_insert_with(|| json!(["unnecessary-assert"]));
    let library = settings.entry(LIBRARY).or_insert_with(|| json!([]));
    let library = library.as_array_mut().with_context(|| format!("its {LIBRARY:?} is no list"))?;
    if !library.iter().any(|folder| folder == DEFINITIONS) {
        library.push(json!(DEFINITIONS));
    }
    Ok(format!("{:#}\n", Value::Object(settings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_settings_stay_and_ours_are_added_once() {
        let fresh = settings(None).unwrap();
        assert_eq!(settings(Some(&fresh)).unwrap(), fresh);
        let own = r#"{ "runtime.version": "Lua 5.3", "workspace.library": ["mine"], "x": 1 }"#;
        let merged: Value = serde_json::from_str(&settings(Some(own)).unwrap()).unwrap();
        assert_eq!(merged["workspace.library"], json!(["mine", ".vmoon/types"]));
        assert_eq!((&merged["runtime.version"], &merged["x"]), (&json!("Lua 5.3"), &json!(1)));
    }

    #[test]
    fn settings_that_cannot_be_read_are_an_error() {
        assert!(settings(Some("// a comment\n{}")).is_err());
        assert!(settings(Some(r#"{ "workspace.library": {} }"#)).is_err());
    }
}
