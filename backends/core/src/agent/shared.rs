//! What the commands of one machine share: connections, ids and lives.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmoon_protocol::Kind;

use super::command::{Command, Event, Stdin};
use super::connection::Connection;
use super::control::{Control, PendingAnswer, Presence};
use super::failure;
use super::life::Lives;
use super::memory::{Before, Memo};
use super::observed::Observed;
use super::pool::Pool;
use super::process::Running;
use super::request::{ExecRequest, ExecResult};
use crate::backend::Machine;
use crate::error::{Code, Error, Result};
use crate::race;
use crate::units::VsockPort;

/// How long the guest has to take a command connection. Its agent listens all the time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How much longer than a command's timeout the host waits: the guest enforces it.
pub(super) const TIMEOUT_GRACE: Duration = Duration::from_secs(2);

/// What commands share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) machine: Arc<dyn Machine>,
    pub(super) control: Arc<Control>,
    pub(super) pool: Pool,
    pub(super) lives: Arc<Lives>,
    pub(super) ids: AtomicU64,
    /// How long the agent has to announce itself before a command gives up.
    pub(super) patience: Duration,
    /// The commands whose processes somebody holds.
    pub(super) running: Running,
}

impl Shared {
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn marks(&self) -> Before {
        Before {
            control: self.control.mark(),
            idle: self.pool.marks(),
            running: self.running.marks(),
        }
    }

    pub(super) fn rewind(&self, memo: &Memo, announce: bool) {
        self.running.rewind(&memo.running, self.lives.present() + 1);
        self.lives.begin(announce);
        self.pool.rewind(&memo.idle);
        self.control.rewind(memo);
    }

    /// Opens a command connection.
    pub(super) async fn open(&self) -> Result<Connection> {
        let connect = self.machine.connect(VsockPort::AGENT);
        let stream = match tokio::time::timeout(CONNECT_DEADLINE, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.code() == Code::VsockRefused => {
                return Err(unavailable("the guest's agent takes no commands").with_source(error));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(self.no_answer("the guest's agent does not answer")),
        };
        Ok(Connection::new(stream, self.control.next_serial()))
    }

    /// Waits until the agent has announced itself, for as long as booting may take.
    pub(super) async fn usable(&self) -> Result<()> {
        if self.control.is_ready() {
            return Ok(());
        }
        match tokio::time::timeout(self.patience, self.ready()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.silent()),
        }
    }

    pub(super) async fn ready(&self) -> Result<()> {
        let presence = self.wait_presence(|presence| presence.agent.is_some()).await?;
        presence.agent.map_or(Ok(()), |agent| agent.map(drop))
    }

    async fn wait_presence(&self, until: impl Fn(&Presence) -> bool) -> Result<Presence> {
        let mut presence = self.control.presence();
        let found = presence.wait_for(until).await;
        found.map(|presence| presence.clone()).map_err(|_| self.silent())
    }

    /// Asks over control, as soon as there is a control connection.
    pub(super) async fn ask(&self, kind: Kind, payload: &[u8]) -> Result<PendingAnswer> {
        self.ask_observing(kind, payload, &Observed::default()).await
    }

    /// The same; what the guest sees until it answers is kept in `observed`.
    pub(super) async fn ask_observing(
        &self,
        kind: Kind,
        payload: &[u8],
        observed: &Observed,
    ) -> Result<PendingAnswer> {
        let asked = async {
            loop {
                let presence =
                    self.wait_presence(|p| p.connected || matches!(p.agent, Some(Err(_)))).await?;
                if let Some(Err(error)) = presence.agent {
                    return Err(error);
                }
                let id = self.next_id();
                if let Some(pending) = self.control.ask(kind, id, payload, observed.clone()) {
                    return Ok(pending);
                }
            }
        };
        match tokio::time::timeout(self.patience, asked).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        self.no_answer("the guest's agent has not announced itself")
    }

    fn no_answer(&self, message: &str) -> Error {
        let error = unavailable(message).with_hint(
            "vm.console:tail() shows what the guest printed; a guest without the agent needs \
             agent = false",
        );
        race::with_console(error, self.machine.console())
    }

    pub(super) async fn exec(&self, mut request: ExecRequest) -> Result<ExecResult> {
        let life = self.lives.present();
        self.usable().await?;
        let stdin = Stdin::new(request.stdin.take(), false);
        let mut result = ExecResult::default();
        let outcome = {
            let run = async {
                tokio::select! {
                    biased;
                    () = self.lives.over(|| life) => Err(failure::restored()),
                    outcome = self.run(&request, stdin, &mut result) => outcome,
                }
            };
            match request.timeout {
                None => run.await,
                Some(timeout) => match tokio::time::timeout(timeout + TIMEOUT_GRACE, run).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(failure::late()),
                },
            }
        };
        match outcome {
            Ok(()) => Ok(result),
            Err(error) => {
                let mut output = result.stdout;
                output.append(&mut result.stderr);
                Err(failure::of_command(error, &request, &output))
            }
        }
    }

    async fn run(&self, request: &ExecRequest, stdin: Stdin, into: &mut ExecResult) -> Result<()> {
        let mut command = Command::start(self, request, stdin).await?;
        loop {
            match poll_fn(|cx| command.poll_event(self, cx)).await? {
                Event::Stdout(bytes) => append(&mut into.stdout, bytes),
                Event::Stderr(bytes) => append(&mut into.stderr, bytes),
                Event::Exit(exit) => {
                    let end = ExecResult::from(exit);
                    (into.code, into.signal) = (end.code, end.signal);
                    into.duration = end.duration;
                    self.pool.put(command.exchange.connection);
                    return Ok(());
                }
                Event::Failed(error) => {
                    self.pool.put(command.exchange.connection);
                    return Err(error);
                }
            }
        }
    }
}

/// The first piece is moved rather than copied: most output is one piece.
fn append(whole: &mut Vec<u8>, mut piece: Vec<u8>) {
    if whole.is_empty() {
        *whole = piece;
    } else {
        whole.append(&mut piece);
    }
}

fn unavailable(message: &str) -> Error {
    Error::new(Code::AgentUnavailable, message)
}
