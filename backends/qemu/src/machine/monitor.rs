//! A machine's QEMU process as its thread talks to it.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vmoon_core::{Code, Error, Result};

use super::command::{Mailbox, Message};
use crate::process::qmp::{self, Asker, Event, Said};
use crate::process::{Process, Reach};
use crate::serve::{Attendant, Channels, EntropyServer, Served, Sockets};

/// How long QEMU has for any answer. It stops processors and writes small files; a host that is
/// out of breath may be slow.
const PATIENCE: Duration = Duration::from_mins(2);

/// What arrives at a machine's thread, with a place for what has to wait.
#[derive(Debug)]
pub(super) struct Inbox {
    arrivals: mpsc::Receiver<Message>,
    /// What arrived while something else was waited for.
    later: VecDeque<Message>,
}

impl Inbox {
    pub(super) fn new(arrivals: mpsc::Receiver<Message>) -> Self {
        Self { arrivals, later: VecDeque::new() }
    }

    /// The next message; none when all senders are gone, or at the deadline.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Result<Message, Ended> {
        if let Some(message) = self.later.pop_front() {
            return Ok(message);
        }
        self.arrival(deadline)
    }

    fn arrival(&self, deadline: Option<Instant>) -> Result<Message, Ended> {
        match deadline {
            None => self.arrivals.recv().map_err(|_| Ended::Abandoned),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                self.arrivals.recv_timeout(left).map_err(|error| match error {
                    mpsc::RecvTimeoutError::Timeout => Ended::Late,
                    mpsc::RecvTimeoutError::Disconnected => Ended::Abandoned,
                })
            }
        }
    }

    /// Takes an event that arrived while something else was waited for.
    fn take_event(&mut self, name: &str) -> bool {
        let is_it = |message: &Message| matches!(message, Message::Said(_, Said::Event(event)) if event.name == name);
        self.later.iter().position(is_it).and_then(|place| self.later.remove(place)).is_some()
    }

    /// Forgets what QEMU said before: it was about a life that is over.
    pub(super) fn forget_events(&mut self) {
        self.later.retain(|message| !matches!(message, Message::Said(..)));
    }
}

/// Why no message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Late,
    Abandoned,
}

/// A QEMU process with the threads that hear and serve it. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Qemu {
    number: u64,
    asker: Asker,
    /// Before the thread that serves it, which ends once its process is dead.
    pub(super) process: Process,
    /// Where keys go: the serial port and the virtio console.
    pub(super) keyboards: Keyboards,
    jobs: u64,
    attendant: Attendant,
}

/// What is typed on.
#[derive(Debug)]
pub(super) struct Keyboards {
    pub(super) serial: std::os::unix::net::UnixStream,
    pub(super) console: std::os::unix::net::UnixStream,
}

impl Qemu {
    /// Serves a new process, the machine's `number`th, and hears what it says.
    pub(super) fn attend(
        number: u64,
        mailbox: &Mailbox,
        process: Process,
        reach: Reach,
        channels: Channels,
        served: Served,
    ) -> std::io::Result<Self> {
        let Channels { monitor, serial, console, entropy, disks } = channels;
        let keyboards = Keyboards { serial: serial.try_clone()?, console: console.try_clone()? };
        let listening = monitor.try_clone()?;
        let mailbox = mailbox.clone();
        std::thread::Builder::new().name("qmp".to_owned()).spawn(move || {
            qmp::listen(listening, |said| drop(mailbox.0.send(Message::Said(number, said))));
            // The machine may be gone.
            let _ = mailbox.0.send(Message::Silent(number));
        })?;
        let entropy = Arc::new(EntropyServer::new(entropy, served.entropy.clone()));
        let sockets = Sockets { serial, console, entropy, disks };
        let attendant = Attendant::start(reach, sockets, served)?;
        let asker = Asker::new(monitor);
        Ok(Self { number, asker, process, keyboards, jobs: 0, attendant })
    }

    /// The thread that serves it.
    pub(super) fn attendant(&self) -> &Attendant {
        &self.attendant
    }

    /// Whether a message is of this process.
    pub(super) fn is(&self, number: u64) -> bool {
        self.number == number
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(
        &mut self,
        inbox: &mut Inbox,
        command: &str,
        arguments: &Value,
    ) -> Result<Value> {
        let number = self.send(command, arguments)?;
        self.wait(inbox, command, |said| match said {
            Said::Answer(answered, answer) if answered == number => Ok(answer),
            other => Err(other),
        })?
        .map_err(|reason| self.refused(command, &reason))
    }

    /// Begins a job, which goes on while other things are done, but for asking.
    pub(super) fn begin_job(&mut self, command: &'static str, mut arguments: Value) -> Result<Job> {
        self.jobs += 1;
        let name = format!("job-{}", self.jobs);
        arguments["job-id"] = json!(name);
        let number = self.send(command, &arguments)?;
        Ok(Job { command, name, number })
    }

    /// Waits for the end of a job.
    pub(super) fn end_job(&mut self, inbox: &mut Inbox, job: &Job) -> Result<()> {
        let &Job { command, ref name, number } = job;
        self.wait(inbox, command, |said| match said {
            Said::Answer(answered, Err(reason)) if answered == number => Ok(Err(reason)),
            Said::Event(event) if event.is_end_of(name) => Ok(Ok(())),
            other => Err(other),
        })?
        .map_err(|reason| self.refused(command, &reason))?;
        let jobs = self.ask(inbox, "query-jobs", &json!({}))?;
        self.ask(inbox, "job-dismiss", &json!({ "id": name }))?;
        let own = jobs.as_array().into_iter().flatten().find(|it| it["id"] == name.as_str());
        match own.and_then(|it| it["error"].as_str()) {
            Some(reason) => Err(self.refused(command, reason)),
            None => Ok(()),
        }
    }

    /// Waits for an event, which may have come before its cause was answered.
    pub(super) fn wait_event(&mut self, inbox: &mut Inbox, name: &str) -> Result<()> {
        if inbox.take_event(name) {
            return Ok(());
        }
        self.wait(inbox, name, |said| match said {
            Said::Event(event) if event.name == name => Ok(()),
            other => Err(other),
        })
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<u64> {
        tracing::trace!(command, %arguments, "QMP");
        self.asker.send(command, arguments).map_err(|_| self.dead())
    }

    /// Waits for what `wanted` takes; all else waits in the inbox, but for the answers to commands
    /// that nobody waits for any more.
    fn wait<T>(
        &mut self,
        inbox: &mut Inbox,
        what: &str,
        mut wanted: impl FnMut(Said) -> Result<T, Said>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match inbox.arrival(Some(deadline)) {
                Ok(Message::Said(number, said)) if number == self.number => match wanted(said) {
                    Ok(found) => return Ok(found),
                    Err(Said::Answer(..)) => {}
                    Err(event) => inbox.later.push_back(Message::Said(number, event)),
                },
                Ok(Message::Silent(number)) if number == self.number => {
                    inbox.later.push_back(Message::Silent(number));
                    return Err(self.dead());
                }
                Ok(other) => inbox.later.push_back(other),
                Err(Ended::Late) => return Err(self.deaf(what)),
                Err(Ended::Abandoned) => return Err(self.dead()),
            }
        }
    }

    fn dead(&mut self) -> Error {
        self.process.kill();
        Error::new(Code::BackendUnavailable, self.process.ending()).with_detail("backend", "qemu")
    }

    /// QEMU refused a command; what it wrote says more than its answer.
    fn refused(&self, command: &str, reason: &str) -> Error {
        let said = self.process.said();
        let said = if said.is_empty() { said } else { format!(" ({said})") };
        Error::new(Code::BackendUnavailable, format!("QEMU refused {command}: {reason}{said}"))
            .with_detail("backend", "qemu")
    }

    fn deaf(&self, what: &str) -> Error {
        let seconds = PATIENCE.as_secs();
        let said = self.process.said();
        Error::new(
            Code::BackendUnavailable,
            format!("QEMU did not answer {what} within {seconds} s {said}").trim_end().to_owned(),
        )
        .with_hint("vm:kill() ends it; is the host out of memory or processors?")
        .with_detail("backend", "qemu")
    }
}

/// A job that QEMU has under way.
#[derive(Debug)]
#[must_use = "a job that nobody ends stays in QEMU's list"]
pub(super) struct Job {
    command: &'static str,
    name: String,
    number: u64,
}

impl Event {
    fn is_end_of(&self, job: &str) -> bool {
        self.name == "JOB_STATUS_CHANGE"
            && self.data["id"] == job
            && self.data["status"] == "concluded"
    }
}
