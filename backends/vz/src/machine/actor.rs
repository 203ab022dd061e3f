//! The thread that owns a machine.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::sync::watch;
use vmoon_core::backend::{MachineInfo, Status};
use vmoon_core::lifecycle::Operation;
use vmoon_core::{Bytes, Code, Console, Error, Result, SnapshotId, State};

use super::birth::Maker;
use super::command::Command;
use crate::console::ConsolePipes;
use crate::folder::Folder;
use crate::framework::{Ended, Engine};
use crate::identity::LiveIdentifier;
use crate::snapshot::Frozen;
use crate::vsock::hub::Hub;

/// A machine with all that it is made of. Lives on one thread.
#[derive(Debug)]
pub(crate) struct Actor {
    /// The machine of the framework; none while one is replaced, and after that failed.
    pub(super) engine: Option<Box<dyn Engine>>,
    pub(super) maker: Maker,
    pub(super) folder: Arc<Folder>,
    /// None until the framework has made one.
    pub(super) identifier: Option<LiveIdentifier>,
    /// Why the framework cannot save this machine.
    pub(super) unsaveable: Option<String>,
    pub(super) pipes: ConsolePipes,
    pub(super) hub: Arc<Hub>,
    pub(super) status: watch::Sender<Status>,
    pub(super) console: Arc<Console>,
    pub(super) snapshots: HashMap<SnapshotId, Arc<Frozen>>,
    /// Counts the machines of the framework, so that an ending of the life before is told from
    /// one of this life.
    pub(super) life: u64,
    pub(super) started: Option<Instant>,
}

impl Actor {
    /// Serves until the machine is closed or every handle is gone; then frees it.
    pub(super) fn live(mut self, inbox: &mpsc::Receiver<Command>) {
        while let Ok(command) = inbox.recv() {
            if matches!(command, Command::Close) {
                break;
            }
            self.obey(command);
        }
        self.end_engine();
        self.hub.close();
        self.console.close();
        if !matches!(self.state(), State::Crashed | State::Created) {
            self.set_state(State::Stopped, Some("closed".to_owned()));
        }
    }

    /// Carries out one command. A caller that has gone away does not want its answer.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(reply) => drop(reply.send(self.start())),
            Command::Pause(reply) => drop(reply.send(self.pause())),
            Command::Resume(reply) => drop(reply.send(self.resume())),
            Command::PressPowerButton(reply) => {
                drop(reply.send(self.engine().and_then(Engine::press_power_button)));
            }
            Command::BeginStop(reply) => drop(reply.send(self.begin_stop())),
            Command::Kill(reply) => drop(reply.send(self.kill())),
            Command::Snapshot(id, reply) => drop(reply.send(self.snapshot(id))),
            Command::Restore(id, options, reply) => drop(reply.send(self.restore(id, options))),
            Command::Forget(id, reply) => {
                self.snapshots.remove(&id);
                drop(reply.send(Ok(())));
            }
            Command::Type(bytes, reply) => drop(reply.send(self.type_input(&bytes))),
            Command::SetBalloon(target, reply) => drop(reply.send(self.set_balloon(target))),
            Command::Disk(index, reply) => {
                let disk = self.folder.disk(&self.maker.plan, index);
                drop(reply.send(disk.map(|disk| Arc::new(disk) as Arc<_>)));
            }
            Command::Info(reply) => drop(reply.send(Ok(self.info()))),
            Command::Ended(life, ended) if life == self.life => self.ended(ended),
            Command::Panicked(reason) => self.panicked(&reason),
            // The machine of a life that is over, or the end that `live` sees to.
            Command::Ended(..) | Command::Close => {}
        }
    }

    pub(super) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(super) fn set_state(&self, state: State, reason: Option<String>) {
        self.status.send_replace(Status { state, reason });
    }

    pub(super) fn engine(&mut self) -> Result<&mut (dyn Engine + 'static)> {
        self.engine.as_deref_mut().ok_or_else(|| {
            Error::new(Code::VmState, "the machine was lost when a restore failed")
                .with_hint("vm:restore(snapshot) brings it back")
                .with_detail("state", State::Crashed.as_str())
        })
    }

    fn start(&mut self) -> Result<()> {
        self.state().allows(Operation::Start)?;
        self.set_state(State::Starting, None);
        match self.engine().and_then(Engine::start) {
            Ok(()) => {
                self.started = Some(Instant::now());
                self.set_state(State::Running, None);
                Ok(())
            }
            Err(error) => {
                self.set_state(State::Created, None);
                Err(error)
            }
        }
    }

    fn pause(&mut self) -> Result<()> {
        self.state().allows(Operation::Pause)?;
        self.engine()?.pause()?;
        self.set_state(State::Paused, None);
        Ok(())
    }

    pub(super) fn resume(&mut self) -> Result<()> {
        self.state().allows(Operation::Resume)?;
        self.engine()?.resume()?;
        self.set_state(State::Running, None);
        Ok(())
    }

    fn begin_stop(&mut self) -> Result<()> {
        self.state().allows(Operation::Stop)?;
        if self.state() == State::Paused {
            self.engine()?.resume()?;
        }
        self.set_state(State::Stopping, None);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        if matches!(self.state(), State::Stopped | State::Created) {
            return Ok(());
        }
        self.engine().and_then(Engine::stop)?;
        self.hub.reset();
        self.set_state(State::Stopped, Some("killed".to_owned()));
        Ok(())
    }

    fn ended(&mut self, ended: Ended) {
        if matches!(self.state(), State::Stopped | State::Crashed) {
            return;
        }
        self.hub.reset();
        match ended {
            Ended::PoweredOff => {
                self.set_state(State::Stopped, Some("the guest powered off".to_owned()));
            }
            Ended::Failed(reason) => self.set_state(State::Crashed, Some(reason)),
        }
    }

    /// The framework would let the guest start again.
    fn panicked(&mut self, reason: &str) {
        if !matches!(self.state(), State::Running | State::Stopping) {
            return;
        }
        if let Err(error) = self.engine().and_then(Engine::stop) {
            tracing::warn!(error = error.full_message(), "a guest that panicked is still there");
        }
        self.hub.reset();
        self.set_state(State::Crashed, Some(format!("kernel panic: {reason}")));
    }

    /// Ends the machine of the framework for good.
    pub(super) fn end_engine(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        if let Err(error) = engine.stop() {
            tracing::warn!(error = error.full_message(), "the machine did not stop");
        }
        self.hub.detach();
    }

    fn type_input(&mut self, bytes: &[u8]) -> Result<usize> {
        self.pipes.type_input(bytes).map_err(|error| {
            Error::new(Code::FileIo, "the console takes no input").with_source(error)
        })
    }

    fn set_balloon(&mut self, target: Bytes) -> Result<()> {
        self.state().allows(Operation::Balloon)?;
        self.engine()?.set_balloon(target)
    }

    fn info(&self) -> MachineInfo {
        let plan = &self.maker.plan;
        let mut devices: Vec<(String, String)> = plan
            .disks
            .iter()
            .map(|disk| ("block".to_owned(), disk.image.display().to_string()))
            .collect();
        devices.extend(plan.shares.iter().map(|share| {
            ("shared directory".to_owned(), format!("{} as {}", share.path.display(), share.tag))
        }));
        for (there, name) in [
            (plan.vsock, "vsock"),
            (plan.balloon, "balloon"),
            (plan.entropy, "entropy"),
            (plan.mac.is_some(), "network"),
            (plan.rosetta, "rosetta"),
        ] {
            if there {
                devices.push((name.to_owned(), "the framework's".to_owned()));
            }
        }
        MachineInfo {
            uptime: self.started.map(|started| started.elapsed()).unwrap_or_default(),
            devices,
            ..MachineInfo::default()
        }
    }
}
