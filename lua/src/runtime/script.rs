//! A script before it runs.

use std::path::{Path, PathBuf};

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua};
use vmoon_core::{Code, Error};

/// A script: its text, its name, and its arguments.
#[derive(Clone, Debug)]
pub struct Script {
    /// The name of the chunk, as Lua marks it: `@path`, or `=` and a title.
    chunk: String,
    /// What `arg[0]` holds.
    name: String,
    /// Where modules are looked for first.
    folder: Option<PathBuf>,
    source: Vec<u8>,
    arguments: Vec<Vec<u8>>,
}

impl Script {
    /// The script in a file.
    ///
    /// # Errors
    /// `file.*` when it cannot be read.
    pub fn file(path: &Path, arguments: Vec<Vec<u8>>) -> Result<Self, Error> {
        let source = std::fs::read(path).map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => Code::FileNotFound,
                std::io::ErrorKind::PermissionDenied => Code::FilePermission,
                _ => Code::FileIo,
            };
            Error::new(code, format!("the script {} cannot be read", path.display()))
                .with_source(error)
        })?;
        let name = path.display().to_string();
        let folder = match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
            Some(folder) => folder.to_owned(),
            None => PathBuf::from("."),
        };
        Ok(Self { chunk: format!("@{name}"), name, folder: Some(folder), source, arguments })
    }

    /// A script read from standard input.
    pub fn stdin(source: Vec<u8>, arguments: Vec<Vec<u8>>) -> Self {
        let (chunk, name) = ("=stdin".to_owned(), "-".to_owned());
        Self { chunk, name, folder: None, source, arguments }
    }

    /// A chunk given on the command line.
    pub fn code(source: impl Into<Vec<u8>>, arguments: Vec<Vec<u8>>) -> Self {
        let (chunk, name) = ("=(command line)".to_owned(), "-e".to_owned());
        Self { chunk, name, folder: None, source: source.into(), arguments }
    }

    /// The chunk's name, as Lua marks it.
    pub(crate) fn chunk(&self) -> &str {
        &self.chunk
    }

    /// What `arg[0]` holds.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    pub(crate) fn arguments(&self) -> &[Vec<u8>] {
        &self.arguments
    }

    /// The text, with a first line that begins with `#` and a byte order mark left out, as Lua
    /// itself does for files. Line numbers stay as they are.
    pub(crate) fn text(&self) -> &[u8] {
        let text = self.source.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.source);
        if text.first() != Some(&b'#') {
            return text;
        }
        let line = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        &text[line..]
    }

    pub(crate) fn load(&self, lua: &Lua) -> mlua::Result<Function> {
        lua.load(self.text()).set_name(self.chunk()).set_mode(ChunkMode::Text).into_function()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_bang_is_skipped_and_lines_keep_their_numbers() {
        let script = Script::code("#!/usr/bin/env vmoon\nprint 'x'", Vec::new());
        assert_eq!(script.text(), b"\nprint 'x'");
        assert_eq!(Script::code("\u{feff}# comment", Vec::new()).text(), b"");
        assert_eq!(Script::code("return #arg", Vec::new()).text(), b"return #arg");
    }
}
