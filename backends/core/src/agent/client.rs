//! The client of one machine's agent.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use vmoon_protocol::Kind;
use vmoon_protocol::message::Watch;

use super::command::{Command, Event, Stdin};
use super::connection::Connection;
use super::control::{self, Control, PendingAnswer, Presence};
use super::failure;
use super::life::{self, Lives};
use super::memory::{Before, Memo};
use super::pool::Pool;
use super::process::Process;
use super::request::{ExecRequest, ExecResult};
use crate::backend::Machine;
use crate::error::{Code, Error, Result};
use crate::race;
use crate::units::VsockPort;
use crate::vsock::VsockStream;

/// How long the guest has to take a command connection. Its agent listens all the time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How much longer than a command's timeout the host waits: the guest enforces it.
pub(super) const TIMEOUT_GRACE: Duration = Duration::from_secs(2);

/// The client of the agent in one machine.
#[derive(Debug)]
pub(crate) struct AgentClient {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

/// What commands share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) machine: Arc<dyn Machine>,
    control: Arc<Control>,
    pub(super) pool: Pool,
    pub(super) lives: Lives,
    ids: AtomicU64,
    /// How long the agent has to announce itself before a command gives up.
    patience: Duration,
}

impl AgentClient {
    /// Listens for the agent of a machine that has not started yet.
    pub(crate) async fn attach(machine: Arc<dyn Machine>, patience: Duration) -> Result<Self> {
        Self::drive(Shared {
            machine,
            control: Arc::new(Control::new()),
            pool: Pool::default(),
            lives: Lives::new(1, false),
            ids: AtomicU64::new(1),
            patience,
        })
        .await
    }

    /// Takes over the connections that live on in a fork. The memory that comes back is the
    /// snapshot's as this machine sees it.
    pub(crate) async fn adopt(
        machine: Arc<dyn Machine>,
        patience: Duration,
        memo: &Memo,
        streams: Vec<VsockStream>,
    ) -> Result<(Self, Memo)> {
        let control = Arc::new(Control::new());
        let (control_stream, idle) = memo.sort(streams);
        let control_mark = control.adopt(memo.ready.clone(), control_stream);
        let idle: Vec<_> =
            idle.into_iter().map(|stream| Connection::new(stream, control.next_serial())).collect();
        let own_memo = Memo {
            control: control_mark,
            idle: idle.iter().filter_map(Connection::mark).collect(),
            ..memo.clone()
        };
        let client = Self::drive(Shared {
            machine,
            control,
            pool: Pool::new(idle),
            lives: Lives::new(memo.next_epoch, true),
            ids: AtomicU64::new(memo.next_id),
            patience,
        })
        .await?;
        Ok((client, own_memo))
    }

    async fn drive(shared: Shared) -> Result<Self> {
        let listener = shared.machine.listen(VsockPort::AGENT).await?;
        let driver = tokio::spawn(control::drive(shared.control.clone(), listener));
        Ok(Self { shared: Arc::new(shared), driver })
    }

    /// Ends everything, synchronously.
    pub(crate) fn close(&self) {
        self.driver.abort();
        self.shared.control.close();
        self.shared.pool.clear();
    }

    /// Waits, without limit, until the agent has announced itself.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.shared.ready().await
    }

    /// Runs a command to its end and collects its output.
    pub(crate) async fn exec(&self, request: ExecRequest) -> Result<ExecResult> {
        let machine = self.shared.machine.as_ref();
        race::against_end(machine, self.shared.exec(request)).await
    }

    /// Starts a command whose output is streamed.
    pub(crate) async fn spawn(&self, mut request: ExecRequest) -> Result<Process> {
        let machine = self.shared.machine.as_ref();
        let life = self.shared.lives.present();
        let stdin = Stdin::new(request.stdin.take(), request.keep_stdin_open);
        let deadline = request.timeout.map(|timeout| Instant::now() + timeout + TIMEOUT_GRACE);
        let start = async {
            self.shared.usable().await?;
            Command::start(&self.shared, &request, stdin).await
        };
        let command = race::against_end(machine, start).await?;
        Ok(Process::new(self.shared.clone(), command, request, life, deadline))
    }

    /// Waits, without limit, for something in the guest. Dropping the future ends the watch.
    pub(crate) async fn watch(&self, watch: &Watch) -> Result<()> {
        self.announce_life()?;
        let pending = self.shared.ask(Kind::Watch, &watch.encode()).await?;
        pending.answer().await.map(drop)
    }

    /// Asks the guest to power off; returns once it has confirmed that it will.
    pub(crate) async fn shut_down(&self) -> Result<()> {
        const POWER_OFF: u8 = 0;
        let pending = self.shared.ask(Kind::Shutdown, &[POWER_OFF]).await?;
        pending.answer().await.map(drop)
    }

    /// Tells the guest of its new life, if it has not heard of it yet, without waiting for it to
    /// confirm.
    pub(crate) fn announce_life(&self) -> Result<()> {
        if self.shared.lives.pending().is_some() {
            self.send_life()?;
        }
        Ok(())
    }

    fn send_life(&self) -> Result<Option<(u64, PendingAnswer)>> {
        let Some(epoch) = self.shared.lives.pending() else {
            return Ok(None);
        };
        let payload = life::announce(epoch)?;
        let pending = self.shared.control.ask(Kind::Life, self.shared.next_id(), &payload);
        Ok(pending.map(|pending| (epoch, pending)))
    }

    /// Sends the guest its new life over control; the future that comes back waits until the
    /// guest has confirmed. The guest must run meanwhile.
    ///
    /// # Errors
    /// `snapshot.entropy` when it does not confirm within `deadline`.
    pub(crate) fn renew_life(
        &self,
        deadline: Duration,
    ) -> Result<impl Future<Output = Result<()>> + use<>> {
        let shared = self.shared.clone();
        let sent = self.send_life()?;
        Ok(async move {
            let asked = async {
                let (epoch, pending) = match sent {
                    Some(sent) => sent,
                    None => match shared.lives.pending() {
                        // The control connection did not live on: the guest dials again.
                        Some(epoch) => {
                            let payload = life::announce(epoch)?;
                            (epoch, shared.ask(Kind::Life, &payload).await?)
                        }
                        None => return Ok::<_, Error>(()),
                    },
                };
                pending.answer().await?;
                shared.lives.confirm(epoch);
                Ok(())
            };
            let unconfirmed = || {
                Error::new(
                    Code::SnapshotEntropy,
                    "the guest did not confirm that it took fresh entropy",
                )
                .with_hint("take the snapshot while the guest's agent answers")
            };
            match tokio::time::timeout(deadline, asked).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(unconfirmed().with_source(error)),
                Err(_) => Err(unconfirmed().with_detail("timeout", deadline.as_secs_f64())),
            }
        })
    }

    /// Which connections lie idle as a snapshot begins.
    pub(crate) fn before_snapshot(&self) -> Before {
        self.shared.marks()
    }

    /// What the snapshot must remember, once it is taken.
    pub(crate) fn after_snapshot(&self, before: &Before) -> Memo {
        Memo {
            ready: self.shared.control.ready(),
            next_id: self.shared.ids.load(Ordering::Relaxed),
            next_epoch: self.shared.lives.present() + 1,
            ..Memo::unite(before, self.shared.marks())
        }
    }

    /// Stops reading the control connection until the restore is over, one way or the other.
    pub(crate) fn hold(&self) -> Held<'_> {
        self.shared.control.hold();
        Held { shared: Some(&self.shared) }
    }

    #[cfg(test)]
    pub(crate) fn idle_connections(&self) -> usize {
        self.shared.pool.len()
    }
}

impl Drop for AgentClient {
    fn drop(&mut self) {
        self.close();
    }
}

/// The agent's connections while the machine is being restored.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    shared: Option<&'a Shared>,
}

impl Held<'_> {
    /// The machine is as it was.
    pub(crate) fn release(mut self) {
        if let Some(shared) = self.shared.take() {
            shared.control.release();
        }
    }

    /// The machine went back to the snapshot of `memo`. With `announce`, the guest hears of its
    /// new life ahead of the next command.
    pub(crate) fn rewind(mut self, memo: &Memo, announce: bool) {
        if let Some(shared) = self.shared.take() {
            shared.rewind(memo, announce);
        }
    }
}

impl Drop for Held<'_> {
    /// The restore was abandoned, and nobody knows whether it came to pass: no connection is
    /// trusted any more, and the guest dials again.
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.rewind(&Memo::default(), true);
        }
    }
}

impl Shared {
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn marks(&self) -> Before {
        Before { control: self.control.mark(), idle: self.pool.marks() }
    }

    fn rewind(&self, memo: &Memo, announce: bool) {
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
            Err(_) => return Err(unavailable("the guest's agent does not answer")),
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

    async fn ready(&self) -> Result<()> {
        let presence = self.wait_presence(|presence| presence.agent.is_some()).await?;
        presence.agent.map_or(Ok(()), |agent| agent.map(drop))
    }

    async fn wait_presence(&self, until: impl Fn(&Presence) -> bool) -> Result<Presence> {
        let mut presence = self.control.presence();
        let found = presence.wait_for(until).await;
        found.map(|presence| presence.clone()).map_err(|_| self.silent())
    }

    /// Asks over control, as soon as there is a control connection.
    async fn ask(&self, kind: Kind, payload: &[u8]) -> Result<PendingAnswer> {
        let asked = async {
            loop {
                let presence =
                    self.wait_presence(|p| p.connected || matches!(p.agent, Some(Err(_)))).await?;
                if let Some(Err(error)) = presence.agent {
                    return Err(error);
                }
                if let Some(pending) = self.control.ask(kind, self.next_id(), payload) {
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
        let error = unavailable("the guest's agent has not announced itself").with_hint(
            "vm:console:tail() shows what the guest printed; a guest without the agent needs \
             agent = false",
        );
        race::with_console(error, self.machine.console())
    }

    async fn exec(&self, mut request: ExecRequest) -> Result<ExecResult> {
        let life = self.lives.present();
        self.usable().await?;
        let stdin = Stdin::new(request.stdin.take(), false);
        let mut result = ExecResult::default();
        let outcome = {
            let run = async {
                tokio::select! {
                    biased;
                    () = self.lives.over(life) => Err(failure::restored()),
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
                    self.pool.put(command.connection);
                    return Ok(());
                }
                Event::Failed(error) => {
                    self.pool.put(command.connection);
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
