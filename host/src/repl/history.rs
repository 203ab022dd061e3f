//! Where inputs are kept: a file in the user's folder for state (XDG Base Directory
//! Specification), one entry for each whole input.

use std::path::PathBuf;

use rustyline::history::{FileHistory, History as _};
use rustyline::{Editor, Helper};

/// The inputs of this conversation and of earlier ones.
#[derive(Debug)]
pub(super) struct History {
    /// None when it cannot be written.
    file: Option<PathBuf>,
}

impl History {
    /// Reads what was kept.
    pub(super) fn open<H: Helper>(editor: &mut Editor<H, FileHistory>) -> Self {
        let file = file(|name| std::env::var_os(name).map(PathBuf::from));
        if let Some(file) = &file
            && file.exists()
            && let Err(error) = editor.load_history(file)
        {
            tracing::warn!(%error, "{} cannot be read: there is no history", file.display());
            return Self { file: None };
        }
        Self { file }
    }

    /// Keeps an input, at once: a conversation may end in many ways.
    pub(super) fn add<H: Helper>(&mut self, editor: &mut Editor<H, FileHistory>, text: &str) {
        let text = text.trim_end();
        if text.is_empty() || !editor.history_mut().add(text).unwrap_or(false) {
            return;
        }
        let Some(file) = &self.file else { return };
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        let kept = folder.map_err(Into::into).and_then(|()| editor.append_history(file));
        if let Err(error) = kept {
            tracing::warn!(%error, "{} cannot be written: inputs are forgotten", file.display());
            self.file = None;
        }
    }
}

/// The file's path. A relative `XDG_STATE_HOME` counts for nothing, as the specification has it.
fn file(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").filter(|path| path.is_absolute());
    let folder = state.or_else(|| Some(home()?.join(".local/state")))?;
    Some(folder.join("vmoon/history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_user_keeps_state() {
        let with = |state: Option<&'static str>, home: Option<&'static str>| {
            file(move |name| {
                match name {
                    "XDG_STATE_HOME" => state,
                    _ => home,
                }
                .map(PathBuf::from)
            })
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(with(Some("/s"), Some("/h")), path("/s/vmoon/history"));
        assert_eq!(with(None, Some("/h")), path("/h/.local/state/vmoon/history"));
        assert_eq!(with(Some("s"), Some("/h")), path("/h/.local/state/vmoon/history"));
        assert_eq!(with(None, None), None);
    }
}
