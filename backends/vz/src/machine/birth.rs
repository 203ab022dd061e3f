//! How machines begin: from a boot source, or from a saved state.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::{oneshot, watch};
use vmoon_core::backend::{RestoreOptions, Status};
use vmoon_core::spec::BootSource;
use vmoon_core::{Code, Console, Error, Result, State};

use super::actor::Actor;
use super::command::{Command, Mailbox};
use super::handle::VzMachine;
use crate::console::ConsolePipes;
use crate::folder::{Folder, INITRD, KERNEL, clone_file};
use crate::framework::{Created, Framework, Wiring};
use crate::identity::LiveIdentifier;
use crate::plan::Plan;
use crate::snapshot::Frozen;
use crate::vsock::hub::Hub;

/// What machines of the framework are made from, at first and at each restore.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(super) framework: Arc<dyn Framework>,
    pub(super) plan: Arc<Plan>,
    pub(super) mailbox: Mailbox,
}

/// The first state of a machine.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Stopped, with a guest to boot.
    Boot(Box<BootSource>),
    /// Paused in a snapshot.
    Snapshot(Arc<Frozen>),
}

/// Makes a machine on a thread of its own, and returns once it has its first state.
///
/// # Errors
/// `vm.spec` and `file.*`; `backend.unsupported` while the machine of a snapshot lives.
pub(crate) async fn bear(
    framework: Arc<dyn Framework>,
    plan: Arc<Plan>,
    origin: Origin,
) -> Result<VzMachine> {
    let (sender, inbox) = mpsc::channel();
    let mailbox = Mailbox(sender);
    let (closed, closing) = mpsc::sync_channel(1);
    let status = watch::Sender::new(Status { state: State::Created, reason: None });
    let (console, hub) = (Arc::new(Console::new()), Arc::new(Hub::default()));
    let machine = VzMachine::new(
        mailbox.clone(),
        status.subscribe(),
        console.clone(),
        hub.clone(),
        plan.clone(),
        closing,
    );
    let (born, birth) = oneshot::channel();
    let body = move || {
        // The framework's handlers hold the mailbox too: it is the handle that says `Close`.
        let maker = Maker { framework, plan, mailbox };
        match make(maker, origin, status, console, hub) {
            Ok(actor) => {
                // When nobody waits for the machine any more, its mailbox says so.
                let _ = born.send(Ok(()));
                actor.live(&inbox);
            }
            Err(error) => drop(born.send(Err(error))),
        }
        // Nobody may be waiting.
        let _ = closed.send(());
    };
    let spawned = thread::Builder::new().name("vz machine".to_owned()).spawn(body);
    spawned.map_err(|error| {
        Error::new(Code::BackendUnavailable, "no thread for the machine").with_source(error)
    })?;
    birth.await.unwrap_or_else(|_| {
        Err(Error::new(Code::BackendUnavailable, "the machine's thread died as it began"))
    })?;
    Ok(machine)
}

fn make(
    maker: Maker,
    origin: Origin,
    status: watch::Sender<Status>,
    console: Arc<Console>,
    hub: Arc<Hub>,
) -> Result<Actor> {
    let plan = maker.plan.clone();
    let folder = Folder::new()?;
    let identifier = match &origin {
        Origin::Boot(boot) => {
            folder.fill(&plan, boot)?;
            None
        }
        Origin::Snapshot(frozen) => {
            clone_file(&frozen.boot.path(KERNEL), &folder.path(KERNEL))?;
            if plan.initrd {
                clone_file(&frozen.boot.path(INITRD), &folder.path(INITRD))?;
            }
            Some(LiveIdentifier::claim(&frozen.identifier)?)
        }
    };
    let panicked = {
        let mailbox = maker.mailbox.clone();
        move |reason| {
            mailbox.send(Command::Panicked(reason));
        }
    };
    let pipes = ConsolePipes::open(console.clone(), panicked).map_err(|error| {
        Error::new(Code::FileIo, "cannot make the console's pipes").with_source(error)
    })?;
    let mut actor = Actor {
        engine: None,
        maker,
        folder,
        identifier,
        unsaveable: None,
        pipes,
        hub,
        status,
        console,
        snapshots: HashMap::new(),
        life: 0,
        started: None,
    };
    match origin {
        Origin::Boot(_) => actor.remake()?,
        Origin::Snapshot(frozen) => {
            let options = RestoreOptions { paused: true, ..RestoreOptions::default() };
            if let Err(error) = actor.go_back(&frozen, options) {
                actor.end_engine();
                return Err(error);
            }
            actor.snapshots.insert(frozen.id, frozen);
        }
    }
    Ok(actor)
}

impl Maker {
    fn make(
        &self,
        folder: &Folder,
        identifier: Option<&[u8]>,
        pipes: &ConsolePipes,
        hub: &Arc<Hub>,
        life: u64,
    ) -> Result<Created> {
        let console = pipes.guest_ends().map_err(|error| {
            Error::new(Code::FileIo, "cannot duplicate the console's pipes").with_source(error)
        })?;
        let mailbox = self.mailbox.clone();
        let hub = Arc::downgrade(hub);
        let wiring = Wiring {
            console,
            ended: Box::new(move |ended| {
                mailbox.send(Command::Ended(life, ended));
            }),
            incoming: Arc::new(move |port, connection| {
                hub.upgrade().is_some_and(|hub| hub.deliver(life, port, connection))
            }),
        };
        self.framework.create(&self.plan, &folder.files(&self.plan), identifier, wiring)
    }
}

impl Actor {
    /// A new machine of the framework, stopped, in the place of the old one if there was one.
    pub(super) fn remake(&mut self) -> Result<()> {
        self.life += 1;
        let known = self.identifier.as_ref().map(LiveIdentifier::bytes);
        let created = self.maker.make(&self.folder, known, &self.pipes, &self.hub, self.life)?;
        if self.identifier.is_none() {
            self.identifier = Some(LiveIdentifier::claim(&created.identifier)?);
        }
        self.hub.attach(self.life, created.sockets);
        self.unsaveable = created.unsaveable;
        self.engine = Some(created.engine);
        Ok(())
    }

    pub(super) fn identifier(&self) -> &[u8] {
        self.identifier.as_ref().expect("a machine that was made has an identifier").bytes()
    }
}
