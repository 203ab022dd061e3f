//! Forwards: connections carried between sockets of the host and ports of the guest.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use mlua::{UserData, UserDataRegistry};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use vmoon_core::vsock::{VsockListener, VsockStream};
use vmoon_core::{Code, Error, Vm, VsockPort};

use crate::arguments::{Arguments, whole};
use crate::class::{self, Class, Handle, Results};
use crate::fault::Outcome;
use crate::slot::Slot;

const OPTIONS: &[&str] = &["port", "unix", "tcp", "from"];

/// A forward that goes on until it is closed.
#[derive(Clone, Debug)]
pub(crate) struct Forward(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    vm: Weak<Vm>,
    address: String,
    /// The host's TCP port, or the vsock port where there is none.
    port: u32,
    work: Slot<Work>,
}

/// What a forward consists of; dropping it ends every connection that it carries.
#[derive(Debug)]
struct Work {
    _serving: JoinSet<()>,
    _socket: Option<SocketFile>,
}

/// A Unix socket's file, removed with the forward.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "a forward's socket is gone already");
        }
    }
}

/// A socket of the host.
#[derive(Clone, Debug)]
enum Target {
    Unix(PathBuf),
    Tcp(String),
}

impl Target {
    fn address(&self) -> String {
        match self {
            Self::Unix(path) => path.display().to_string(),
            Self::Tcp(address) => address.clone(),
        }
    }
}

/// Both halves of a connection on the host.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Forward {
    /// Opens the forward that the options describe.
    pub(crate) async fn open(vm: &Arc<Vm>, arguments: &Arguments) -> Outcome<Self> {
        arguments
            .table(0, "a table of options, such as { port = 80, tcp = \"127.0.0.1:8080\" }")?;
        let options = arguments.options(0, OPTIONS)?;
        let port = options.value("port")?;
        let port = whole(&port)
            .and_then(|port| u32::try_from(port).ok())
            .map(VsockPort)
            .ok_or_else(|| options.wrong("port", "the guest's vsock port", &port))?;
        let target = match (options.path("unix")?, options.text("tcp")?) {
            (Some(path), None) => Target::Unix(path),
            (None, Some(address)) => Target::Tcp(address),
            _ => {
                let message = format!("{} takes either `unix` or `tcp`", options.function());
                let hint = "unix = \"/tmp/x.sock\", or tcp = \"127.0.0.1:8080\"";
                return Err(Error::new(Code::VmSpec, message).with_hint(hint).into());
            }
        };
        match options.text("from")?.as_deref() {
            None | Some("host") => from_host(vm, port, target).await,
            Some("guest") => from_guest(vm, port, target).await,
            Some(other) => {
                let error = Error::new(Code::VmSpec, format!("{other:?} is no side of a forward"))
                    .with_hint("from = \"host\" (the default) or \"guest\"")
                    .with_detail("key", "from");
                Err(error.into())
            }
        }
    }

    fn new(vm: &Arc<Vm>, address: String, port: u32, work: Work) -> Self {
        Self(Rc::new(Inner { vm: Arc::downgrade(vm), address, port, work: Slot::new(work) }))
    }
}

/// Listens on the host and connects to the guest.
async fn from_host(vm: &Arc<Vm>, port: VsockPort, target: Target) -> Outcome<Forward> {
    let weak = Arc::downgrade(vm);
    let mut serving = JoinSet::new();
    match target {
        Target::Unix(path) => {
            let listener = UnixListener::bind(&path).map_err(|error| unusable(&path, error))?;
            let socket = SocketFile(path.clone());
            serving.spawn(serve(weak, port, async move || {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Duplex>)
            }));
            let work = Work { _serving: serving, _socket: Some(socket) };
            Ok(Forward::new(vm, path.display().to_string(), port.0, work))
        }
        Target::Tcp(address) => {
            let refuse = |error| unusable(Path::new(&address), error);
            let listener = TcpListener::bind(&address).await.map_err(refuse)?;
            let bound = listener.local_addr().map_err(refuse)?;
            serving.spawn(serve(weak, port, async move || {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Duplex>)
            }));
            let work = Work { _serving: serving, _socket: None };
            Ok(Forward::new(vm, bound.to_string(), bound.port().into(), work))
        }
    }
}

/// Carries the connections that `accept` gives to the guest's port.
async fn serve<A>(vm: Weak<Vm>, port: VsockPort, mut accept: A)
where
    A: AsyncFnMut() -> io::Result<Box<dyn Duplex>>,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept() => match accepted {
                Ok(stream) => {
                    connections.spawn(carry_to_guest(vm.clone(), port, stream));
                }
                Err(error) => {
                    // No descriptors are left, or the like: go on when some are.
                    tracing::warn!(%error, %port, "a forward cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry_to_guest(vm: Weak<Vm>, port: VsockPort, stream: Box<dyn Duplex>) {
    let Some(vm) = vm.upgrade() else { return };
    match vm.connect(port, None).await {
        Ok(guest) => {
            // The connection must not keep the machine.
            drop(vm);
            carry(guest, stream).await;
        }
        Err(error) => tracing::warn!(%error, %port, "a forward cannot reach the guest"),
    }
}

/// Listens for the guest and connects on the host.
async fn from_guest(vm: &Arc<Vm>, port: VsockPort, target: Target) -> Outcome<Forward> {
    let listener = vm.listen(port).await?;
    let address = target.address();
    let mut serving = JoinSet::new();
    serving.spawn(serve_guest(listener, target));
    Ok(Forward::new(vm, address, port.0, Work { _serving: serving, _socket: None }))
}

async fn serve_guest(listener: Box<dyn VsockListener>, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(guest) => {
                    connections.spawn(carry_to_host(guest, target.clone()));
                }
                // The machine has ended; the connections that it left end by themselves.
                Err(error) => {
                    tracing::debug!(%error, "a forward has ended");
                    while connections.join_next().await.is_some() {}
                    return;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry_to_host(guest: VsockStream, target: Target) {
    let connected: io::Result<Box<dyn Duplex>> = match &target {
        Target::Unix(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
        Target::Tcp(address) => TcpStream::connect(address).await.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as _)
        }),
    };
    match connected {
        Ok(stream) => carry(guest, stream).await,
        Err(error) => {
            tracing::warn!(%error, address = target.address(), "a forward cannot reach the host");
        }
    }
}

async fn carry(mut guest: VsockStream, mut host: Box<dyn Duplex>) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut guest, &mut host).await {
        tracing::debug!(%error, "a forwarded connection was cut");
    }
}

fn unusable(address: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::FileNotFound,
        io::ErrorKind::PermissionDenied => Code::FilePermission,
        _ => Code::FileIo,
    };
    let shown = address.display();
    let error_of = Error::new(code, format!("cannot listen on {shown}"));
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            error_of.with_hint("another process listens there, or its socket was left behind")
        }
        _ => error_of,
    }
    .with_detail("address", shown.to_string())
    .with_source(error)
}

impl UserData for Forward {
    fn register(registry: &mut UserDataRegistry<Self>) {
        class::register(registry);
    }
}

impl Handle for Forward {
    const NAME: &'static str = "forward";

    fn machine(&self) -> Option<Arc<Vm>> {
        self.0.vm.upgrade()
    }

    fn title(&self) -> String {
        format!("forward ({})", self.0.address)
    }

    fn close(&self) {
        self.0.work.close();
    }

    fn define(class: &mut Class<Self>) -> mlua::Result<()> {
        class.field("address", |_, this| Ok(this.0.address.clone()))?;
        class.field("port", |_, this| Ok(this.0.port))?;
        class.method("forward:close", Results::None, |_, this, _| {
            this.close();
            Ok(())
        })
    }
}
