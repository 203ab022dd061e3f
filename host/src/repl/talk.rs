//! The conversation at a terminal.

use std::io::IsTerminal;

use anyhow::Context;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use vmoon_lua::{Evaluation, Session};

use super::command::print_reports;
use super::consoles;
use super::reader::{Event, Reader};
use crate::color::Color;

/// How to hold a conversation.
#[derive(Debug)]
pub(crate) struct Talk {
    /// When to use colours.
    pub(crate) color: Color,
    /// Whether what guests print is shown.
    pub(crate) console: bool,
    /// What to say first.
    pub(crate) greeting: String,
}

/// Said once, to who expects a local to stay.
const LOCALS: &str = "note: a local ends with its input; leave out `local` to keep the value";

/// Reads inputs and shows what comes of them, until Ctrl-D. Other tasks go on in between.
pub(crate) async fn talk(session: Session, talk: Talk) -> anyhow::Result<()> {
    let (out, err) = (talk.color.on_stdout(), talk.color.on_stderr());
    // Also where the conversation is dropped while the line editor holds the terminal.
    let _settings = Settings::remember();
    println!("{}", talk.greeting);
    let (mut reader, printer) =
        Reader::start(session.interruption(), out).context("the line editor cannot be started")?;
    let _consoles = talk.console.then(|| consoles::follow(session.host(), printer, out));
    let mut locals_noted = false;
    loop {
        reader.prompt();
        let text = loop {
            match reader.next().await {
                Event::Complete { text, reply } => {
                    // Nobody waits any more where Lua was busy for long.
                    let _ = reply.send(session.complete(&text));
                }
                Event::Input(text) => break text,
                Event::Interrupted => break String::new(),
                Event::End => return Ok(()),
                Event::Failed(error) => anyhow::bail!("the terminal cannot be read: {error}"),
            }
        };
        if !text.trim().is_empty() {
            let evaluation = session.evaluate(&text).await;
            let locals = text.trim_start().starts_with("local ");
            show(&evaluation, &text, err);
            if locals && !std::mem::replace(&mut locals_noted, true) {
                eprintln!("{LOCALS}");
            }
        }
        print_reports(&session.unseen(), err);
    }
}

fn show(evaluation: &Evaluation, text: &str, color: bool) {
    match evaluation {
        Evaluation::Values(values) => {
            if matches!(text.trim(), "exit" | "quit") && values == &["nil"] {
                return println!("Ctrl-D leaves, or os.exit()");
            }
            let lines = values.iter().any(|value| value.contains('\n'));
            if !values.is_empty() {
                println!("{}", values.join(if lines { "\n" } else { "  " }));
            }
        }
        Evaluation::Raised(reports) => print_reports(reports, color),
        Evaluation::Interrupted => eprintln!("interrupted"),
    }
}

/// The terminal's settings, put back at the end.
struct Settings(Option<Termios>);

impl Settings {
    fn remember() -> Self {
        let stdin = std::io::stdin();
        Self(if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None })
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if let Some(settings) = &self.0
            && let Err(error) = tcsetattr(std::io::stdin(), OptionalActions::Now, settings)
        {
            tracing::debug!(%error, "the terminal keeps its settings");
        }
    }
}
