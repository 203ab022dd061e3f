//! The thread of the line editor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::thread;

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    Cmd, CompletionType, Config, Editor, ExternalPrinter, KeyCode, KeyEvent, Modifiers,
};
use tokio::sync::mpsc;

use super::helper::Helper;
use super::history::History;

const PROMPT: &str = "vmoon> ";
const COLOURED_PROMPT: &str = "\x1b[1;36mvmoon>\x1b[0m ";

/// What the line editor has to say.
#[derive(Debug)]
pub(super) enum Event {
    /// A whole chunk.
    Input(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    /// Ctrl-D at the prompt.
    End,
    /// The terminal is gone.
    Failed(ReadlineError),
    /// The names that the end of `text` may become are wanted.
    Complete { text: String, reply: blocking::Sender<Vec<String>> },
}

/// Prints lines above the prompt.
pub(super) type Print = Box<dyn FnMut(String) + Send>;

/// The line editor, seen from Lua's thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    prompts: blocking::Sender<()>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Reader {
    /// Starts the thread. Ctrl-C at the prompt sets `interruption`, for a task that is busy.
    pub(super) fn start(
        interruption: Arc<AtomicBool>,
        color: bool,
    ) -> Result<(Self, Print), ReadlineError> {
        let (prompts, wanted) = blocking::channel();
        let (sender, events) = mpsc::unbounded_channel();
        let (started, starting) = blocking::channel();
        thread::Builder::new().name("line editor".to_owned()).spawn(move || {
            match edit(sender.clone(), color) {
                Ok((mut editor, print)) => {
                    let _ = started.send(Ok(print));
                    serve(&mut editor, &wanted, &sender, &interruption, color);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        let print = starting.recv().map_err(|_| ReadlineError::Eof)??;
        Ok((Self { prompts, events }, print))
    }

    /// Lets it read one input.
    pub(super) fn prompt(&self) {
        // A thread that has ended says so by its last event.
        let _ = self.prompts.send(());
    }

    /// What it says next.
    pub(super) async fn next(&mut self) -> Event {
        self.events.recv().await.unwrap_or(Event::End)
    }
}

type LineEditor = Editor<Helper, FileHistory>;

fn edit(
    events: mpsc::UnboundedSender<Event>,
    color: bool,
) -> Result<(LineEditor, Print), ReadlineError> {
    let config =
        Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Helper::new(events, color)));
    editor.bind_sequence(KeyEvent(KeyCode::Enter, Modifiers::ALT), Cmd::Newline);
    let print: Print = match editor.create_external_printer() {
        Ok(mut printer) => Box::new(move |line| {
            if let Err(error) = printer.print(format!("{line}\n")) {
                tracing::debug!(%error, "a line of a console could not be shown");
            }
        }),
        // A terminal that cannot move its cursor.
        Err(_) => Box::new(|line| println!("{line}")),
    };
    Ok((editor, print))
}

fn serve(
    editor: &mut LineEditor,
    wanted: &blocking::Receiver<()>,
    events: &mpsc::UnboundedSender<Event>,
    interruption: &AtomicBool,
    color: bool,
) {
    let mut history = History::open(editor);
    let prompt = (PROMPT, if color { COLOURED_PROMPT } else { PROMPT });
    while wanted.recv().is_ok() {
        let event = match editor.readline(&prompt) {
            Ok(text) => {
                history.add(editor, &text);
                Event::Input(text)
            }
            Err(ReadlineError::Interrupted) => {
                interruption.store(true, Ordering::Relaxed);
                Event::Interrupted
            }
            Err(ReadlineError::Eof) => Event::End,
            Err(error) => Event::Failed(error),
        };
        if events.send(event).is_err() {
            break;
        }
    }
}
