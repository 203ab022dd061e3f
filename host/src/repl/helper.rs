//! What the line editor needs to know of Lua.

use std::borrow::Cow;
use std::sync::mpsc as blocking;
use std::time::Duration;

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Result};
use tokio::sync::mpsc;
use vmoon_lua::session::syntax::Checker;

use super::files;
use super::lexer::{self, Kind};
use super::reader::Event;

/// How long completion waits for Lua, which a task may keep busy.
const PATIENCE: Duration = Duration::from_millis(500);

/// Completion, colours, and whether an input is whole.
pub(super) struct Helper {
    events: mpsc::UnboundedSender<Event>,
    checker: Checker,
    color: bool,
}

impl Helper {
    pub(super) fn new(events: mpsc::UnboundedSender<Event>, color: bool) -> Self {
        Self { events, checker: Checker::default(), color }
    }

    /// The names that Lua knows.
    fn names(&self, text: &str) -> Vec<String> {
        let (reply, replied) = blocking::channel();
        let event = Event::Complete { text: text.to_owned(), reply };
        if self.events.send(event).is_err() {
            return Vec::new();
        }
        replied.recv_timeout(PATIENCE).unwrap_or_default()
    }
}

impl rustyline::Helper for Helper {}

impl Hinter for Helper {
    type Hint = String;
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let text = &line[..pos];
        let last = lexer::tokens(text).last();
        if let Some(token) = last.filter(|token| token.open) {
            return Ok(match token.kind {
                Kind::String => files::complete(text, token.range.start),
                _ => (pos, Vec::new()),
            });
        }
        // At the front of a line the key means what it means in an editor.
        let current = text.rsplit('\n').next().unwrap_or_default();
        if current.trim().is_empty() {
            return Ok((pos, vec![pair("  ")]));
        }
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let start = text.rfind(|c| !name(c)).map_or(0, |at| at + 1);
        Ok((start, self.names(text).iter().map(|name| pair(name)).collect()))
    }
}

fn pair(text: &str) -> Pair {
    Pair { display: text.to_owned(), replacement: text.to_owned() }
}

impl Validator for Helper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        Ok(if self.checker.is_incomplete(context.input()) {
            ValidationResult::Incomplete
        } else {
            ValidationResult::Valid(None)
        })
    }
}

impl Highlighter for Helper {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.color { Cow::Owned(lexer::paint(line)) } else { Cow::Borrowed(line) }
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        self.color && kind != CmdKind::MoveCursor
    }
}
