//! The text of scripts, for the line that a picture shows.

use std::collections::HashMap;
use std::path::Path;

use crate::runtime::Script;

/// The lines of the chunks that errors point into, read when they are needed.
#[derive(Clone, Debug)]
pub struct Sources {
    texts: HashMap<String, Option<String>>,
}

impl Sources {
    /// Knows the script's own text; other chunks are read from their files.
    pub fn new(script: &Script) -> Self {
        // The first line is shown even where Lua does not see it.
        let text = String::from_utf8_lossy(script.text()).into_owned();
        Self { texts: HashMap::from([(script.chunk().to_owned(), Some(text))]) }
    }

    /// Knows one more chunk.
    pub(crate) fn add(&mut self, chunk: &str, text: &str) {
        self.texts.insert(chunk.to_owned(), Some(text.to_owned()));
    }

    /// The text of a chunk.
    pub(crate) fn text(&mut self, chunk: &str) -> Option<&str> {
        if !self.texts.contains_key(chunk) {
            let read = chunk.strip_prefix('@').and_then(|path| std::fs::read(Path::new(path)).ok());
            let text = read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            self.texts.insert(chunk.to_owned(), text);
        }
        self.texts.get(chunk)?.as_deref()
    }

    /// The chunk whose name a message shows as `shown`, which Lua shortens for long paths.
    pub(super) fn chunk_shown_as(&mut self, shown: &str) -> Option<String> {
        let tail = shown.strip_prefix("...");
        let known = self.texts.keys().find(|chunk| {
            let name = display(chunk);
            name == shown || tail.is_some_and(|tail| name.ends_with(tail))
        });
        if let Some(known) = known {
            return Some(known.clone());
        }
        let chunk = format!("@{shown}");
        self.text(&chunk).is_some().then_some(chunk)
    }
}

/// The name of a chunk as people know it.
pub(super) fn display(chunk: &str) -> &str {
    match chunk.as_bytes().first() {
        Some(b'@' | b'=') => &chunk[1..],
        _ => "(a string)",
    }
}
