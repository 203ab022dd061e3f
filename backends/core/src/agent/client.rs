//! The client of one machine's agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use vmoon_protocol::Kind;
use vmoon_protocol::watch::Watch;

use super::command::{Command, Stdin};
use super::connection::Connection;
use super::control::{self, Control, PendingAnswer};
use super::life::{self, Lives};
use super::memory::{Before, Memo};
use super::observed::Observed;
use super::pool::Pool;
use super::process::{Process, Running};
use super::request::{ExecRequest, ExecResult};
use super::shared::{Shared, TIMEOUT_GRACE};
use crate::backend::Machine;
use crate::error::{Code, Error, Result};
use crate::race;
use crate::units::VsockPort;
use crate::vsock::VsockStream;

/// How late a guest may hear the wall clock; more, and it is told again.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(500);

/// How long the guest has to hear the wall clock again.
const CLOCK_DEADLINE: Duration = Duration::from_secs(5);

/// Tells a guest that took long to wake up what the time is by now. It has confirmed its life, so
/// nothing depends on its answer.
async fn tell_time_again(shared: &Shared, epoch: u64) {
    let told = async {
        let payload = life::announce(epoch)?;
        shared.ask(Kind::Life, &payload).await?.answer().await
    };
    match tokio::time::timeout(CLOCK_DEADLINE, told).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the guest did not hear the time again"),
        Err(_) => tracing::debug!("the guest did not hear the time again"),
    }
}

/// The client of the agent in one machine.
#[derive(Debug)]
pub(crate) struct AgentClient {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

impl AgentClient {
    /// Listens for the agent of a machine that has not started yet.
    pub(crate) async fn attach(machine: Arc<dyn Machine>, patience: Duration) -> Result<Self> {
        let lives = Arc::new(Lives::new(1, false));
        Self::drive(Shared {
            machine,
            control: Arc::new(Control::new(lives.clone())),
            pool: Pool::default(),
            lives,
            ids: AtomicU64::new(1),
            patience,
            running: Running::default(),
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
        announce: bool,
    ) -> Result<(Self, Memo)> {
        let lives = Arc::new(Lives::new(memo.next_epoch, announce));
        let control = Arc::new(Control::new(lives.clone()));
        let (control_stream, idle, running) = memo.sort(streams);
        // Nobody holds their processes, which go on as if somebody did.
        for stream in running {
            tokio::spawn(drain(stream));
        }
        let control_mark = control.adopt(memo.ready.clone(), control_stream);
        let idle: Vec<_> =
            idle.into_iter().map(|stream| Connection::new(stream, control.next_serial())).collect();
        let own_memo = Memo {
            control: control_mark,
            idle: idle.iter().filter_map(Connection::mark).collect(),
            running: Vec::new(),
            ..memo.clone()
        };
        let client = Self::drive(Shared {
            machine,
            control,
            pool: Pool::new(idle),
            lives,
            ids: AtomicU64::new(memo.next_id),
            patience,
            running: Running::default(),
        })
        .await?;
        Ok((client, own_memo))
    }

    async fn drive(shared: Shared) -> Result<Self> {
        let listener = shared.machine.listen(VsockPort::AGENT).await?;
        let driver = tokio::spawn(control::drive(shared.control.clone(), listener));
        Ok(Self { shared: Arc::new(shared), driver })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
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

    /// Waits, without limit, for something in the guest; what the guest sees meanwhile is kept in
    /// `observed`. Dropping the future ends the watch.
    pub(crate) async fn watch(&self, watch: &Watch, observed: &Observed) -> Result<()> {
        self.announce_life()?;
        let payload = watch.encode();
        let pending = self.shared.ask_observing(Kind::Watch, &payload, observed).await?;
        pending.answer().await.map(drop)
    }

    /// Sets the guest's wall clock to the host's, that much later, or earlier where `back`.
    pub(crate) async fn jump_clock(&self, by: Duration, back: bool) -> Result<()> {
        let now = SystemTime::now();
        let then = if back { now.checked_sub(by) } else { now.checked_add(by) };
        let then = then.ok_or_else(|| {
            Error::new(Code::VmSpec, "no clock reaches that far").with_hint("jump less")
        })?;
        let payload = life::announce_at(self.shared.lives.present(), then)?;
        self.shared.ask(Kind::Life, &payload).await?.answer().await.map(drop)
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

    fn send_life(&self) -> Result<Option<PendingAnswer>> {
        let Some(epoch) = self.shared.lives.pending() else {
            return Ok(None);
        };
        let payload = life::announce(epoch)?;
        let id = self.shared.next_id();
        Ok(self.shared.control.ask(Kind::Life, id, &payload, Observed::default()))
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
        let told = Instant::now();
        let sent = self.send_life()?;
        Ok(async move {
            let Some(epoch) = shared.lives.pending() else {
                return Ok(());
            };
            let confirmed = async {
                let pending = match sent {
                    Some(pending) => pending,
                    // The control connection did not live on: the guest dials again.
                    None => shared.ask(Kind::Life, &life::announce(epoch)?).await?,
                };
                pending.answer().await
            };
            let unconfirmed = || {
                Error::new(
                    Code::SnapshotEntropy,
                    "the guest did not confirm that it took fresh entropy",
                )
                .with_hint("take the snapshot while the guest's agent answers")
            };
            match tokio::time::timeout(deadline, confirmed).await {
                Ok(Ok(_)) if told.elapsed() < CLOCK_TOLERANCE => Ok(()),
                Ok(Ok(_)) => {
                    tell_time_again(&shared, epoch).await;
                    Ok(())
                }
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

/// Takes what a command says until it ends or its machine does.
async fn drain(mut stream: VsockStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
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
