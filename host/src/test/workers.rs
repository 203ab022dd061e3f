//! Runs files side by side, each in a Lua of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use vmoon_core::vm::{Host, Room};
use vmoon_lua::test::{CONVERSATION, Event, settings::Settings};
use vmoon_lua::{Config, Ending, Report, Runtime, Script, Signals};

use super::command::is_failure;
use super::tally::Cut;
use super::{ending, tally};
use crate::color::Color;
use crate::{machines, repl};

/// What workers say.
#[derive(Debug)]
pub(super) enum Message {
    Event(Event),
    /// A file has come to its end.
    Ended {
        file: String,
        worker: usize,
        ending: Ending,
    },
    /// A conversation begins once all that was said before has been told of.
    Hold(Sender<()>),
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) files: Vec<PathBuf>,
    pub(super) jobs: usize,
    pub(super) backend: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) fail_fast: bool,
    /// Whether there is a prompt after each failure, and with which colours.
    pub(super) prompt: Option<Color>,
    pub(super) signals: Signals,
    /// The settings of every file, but for its name and its worker.
    pub(super) settings: Settings,
    /// The hosts of the files that run, for the end by force.
    pub(super) hosts: Mutex<Vec<Arc<Host>>>,
    next: AtomicUsize,
    /// The memory for the guests of files that run side by side.
    room: Option<Arc<Room>>,
}

impl Plan {
    pub(super) fn new(
        files: Vec<PathBuf>,
        jobs: usize,
        signals: Signals,
        settings: Settings,
    ) -> Self {
        let (hosts, next) = (Mutex::default(), AtomicUsize::new(0));
        Self {
            files,
            jobs,
            backend: None,
            timeout: None,
            fail_fast: false,
            prompt: None,
            signals,
            settings,
            hosts,
            next,
            room: (jobs > 1).then(Room::available).flatten(),
        }
    }

    /// Starts the workers; what they say, until the last of them has ended.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<Receiver<Message>> {
        let (sender, receiver) = channel();
        for worker in 0..self.jobs.min(self.files.len()) {
            let (plan, sender) = (self.clone(), sender.clone());
            thread::Builder::new()
                .name(format!("tests-{worker}"))
                .spawn(move || plan.work(worker, &sender))?;
        }
        Ok(receiver)
    }

    fn work(&self, worker: usize, sender: &Sender<Message>) {
        while !self.is_over()
            && let Some(path) = self.files.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            let file = path.display().to_string();
            let ending = self.run(path, &file, worker, sender);
            // Who listens ends last.
            let _ = sender.send(Message::Ended { file, worker, ending });
        }
    }

    fn is_over(&self) -> bool {
        self.settings.stopping.load(Ordering::Relaxed)
            || self.signals.interrupted.load(Ordering::Relaxed)
            || self.signals.terminated.load(Ordering::Relaxed)
            || self.left().is_some_and(|left| left.is_zero())
    }

    fn left(&self) -> Option<Duration> {
        self.timeout.map(|timeout| timeout.saturating_sub(self.settings.epoch.elapsed()))
    }

    fn run(&self, path: &Path, file: &str, worker: usize, sender: &Sender<Message>) -> Ending {
        let said = sender.clone();
        // Here rather than where it is told of: the next test begins right after this one.
        let stopping = self.fail_fast.then(|| self.settings.stopping.clone());
        let settings = Settings {
            file: file.to_owned(),
            worker,
            sink: Arc::new(move |event| {
                if let Some(stopping) = stopping.as_ref().filter(|_| is_failure(&event)) {
                    stopping.store(true, Ordering::Relaxed);
                }
                let _ = said.send(Message::Event(event));
            }),
            ..self.settings.clone()
        };
        let at = settings.epoch.elapsed();
        (settings.sink)(Event::FileStarted { file: file.to_owned(), worker, at });
        let script = match Script::file(path, Vec::new()) {
            Ok(script) => script,
            Err(error) => return Ending::Raised(vec![Report::of_error(&error)]),
        };
        let host = machines::host();
        if let Some(room) = &self.room {
            host.share(room);
        }
        if settings.artifacts.is_some() {
            host.keep_transcripts();
        }
        self.hosts().push(host.clone());
        let config = Config {
            host: host.clone(),
            backend: self.backend.clone(),
            timeout: self.left(),
            signals: Some(self.signals.clone()),
            tests: Some(settings),
        };
        let ending = Runtime::new(config).and_then(|mut runtime| {
            if let Some(color) = self.prompt {
                let sender = sender.clone();
                runtime.define_conversation(CONVERSATION, async move |session| {
                    let (held, wait) = channel();
                    if sender.send(Message::Hold(held)).is_ok() {
                        let _ = wait.recv();
                    }
                    repl::about_failure(session, color).await;
                });
            }
            runtime.run(&script)
        });
        self.hosts().retain(|known| !Arc::ptr_eq(known, &host));
        ending.unwrap_or_else(|error| {
            let message = format!("Lua cannot be started: {error}");
            Ending::Raised(vec![Report { message, ..Report::default() }])
        })
    }

    fn hosts(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes every machine.
    pub(super) fn close_all(&self) {
        for host in self.hosts().iter() {
            host.close_all();
        }
    }
}

/// The events that the end of a file amounts to, and what it does to the run.
pub(super) fn conclude(
    file: String,
    worker: usize,
    ended: Ending,
    tally: &tally::Tally,
    epoch: Instant,
) -> (Vec<Event>, Option<Cut>) {
    let cut = ending::cut(&ended);
    let reports = ending::reports(ended);
    let at = epoch.elapsed();
    let mut events = Vec::new();
    if !reports.is_empty() {
        let test = tally.running(worker);
        let result = ending::failed(test, &file, worker, at, reports);
        events.push(Event::TestFinished(Box::new(result)));
    }
    events.push(Event::FileFinished { file, worker, at });
    (events, cut)
}
