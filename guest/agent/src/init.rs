//! PID 1 of the assembled initramfs.
//!
//! It prepares the machine, starts the service as a child, and then does what only PID 1 can:
//! reaps what nobody waits for, and obeys `poweroff` and `reboot`. A service of its own process
//! knows each of its children, and can be started again should it ever fall.

use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::ptr;
use std::thread;
use std::time::Duration;

use crate::power::{self, Power};
use crate::root::Root;
use crate::service::Service;
use crate::{buttons, modules, mounts, sys};

/// What programs find in their environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", "/root"),
    ("LOGNAME", "root"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("SHELL", "/bin/sh"),
    ("TERM", "linux"),
    ("USER", "root"),
];

/// Does the work of PID 1; never returns while the machine runs.
pub(crate) fn run() -> ExitCode {
    let signals = block_signals();
    for (name, _) in env::vars_os() {
        // What the kernel found on its command line and did not know.
        // SAFETY: this is the only thread.
        unsafe { env::remove_var(name) };
    }
    for (name, value) in ENVIRONMENT {
        // SAFETY: as above.
        unsafe { env::set_var(name, value) };
    }
    let _ = env::set_current_dir("/");
    mounts::mount_all();
    let options = Options::from_command_line();
    set_hostname(&options.hostname);
    if let Err(error) = bring_up_loopback() {
        eprintln!("vmoon-agent: cannot bring up lo: {error}");
    }
    modules::load_all();
    leave_resets_to_pvpanic();
    if let Some(root) = &options.root {
        return switch_root(root, &options, &signals);
    }
    if let Err(error) = buttons::watch() {
        eprintln!("vmoon-agent: cannot watch the power button: {error}");
    }
    supervise(&options, &signals)
}

/// What the kernel's command line says to the agent.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    hostname: String,
    agent: bool,
    shell: bool,
    /// The disk that holds the root file system; none where the initramfs is all there is.
    root: Option<Root>,
}

impl Options {
    fn from_command_line() -> Self {
        Self::parse(&fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let hostname = "vmoon".to_owned();
        let mut options = Self { hostname, agent: true, shell: false, root: None };
        let mut readonly = false;
        for word in text.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("vmoon.hostname", name)) => name.clone_into(&mut options.hostname),
                Some(("vmoon.agent", value)) => options.agent = value != "off",
                Some(("vmoon.shell", value)) => options.shell = value == "on",
                Some(("root", device)) => {
                    options.root = Some(Root { device: device.into(), readonly: false });
                }
                None if word == "ro" => readonly = true,
                None if word == "rw" => readonly = false,
                _ => {}
            }
        }
        if let Some(root) = &mut options.root {
            root.readonly = readonly;
        }
        // Without the agent, the console is the only way in.
        options.shell |= !options.agent;
        options
    }
}

/// Hands the machine over to the init of a disk.
fn switch_root(root: &Root, options: &Options, signals: &libc::sigset_t) -> ExitCode {
    let error = match root.enter(options.agent) {
        Ok(init) => {
            if options.agent && !init.starts_agent {
                start_service(signals);
            }
            // SAFETY: `signals` was initialised; the old set is not asked for.
            unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, signals, ptr::null_mut()) };
            init.exec()
        }
        Err(error) => error,
    };
    eprintln!("vmoon-agent: no root on {}: {error}", root.device.display());
    // There is nothing to run: the host hears at once that the guest has ended, and shows the line.
    power::off();
    ExitCode::FAILURE
}

fn set_hostname(name: &str) {
    // SAFETY: `name` is as many readable bytes as said.
    if unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } == -1 {
        eprintln!("vmoon-agent: cannot set the host name: {}", io::Error::last_os_error());
    }
}

fn bring_up_loopback() -> io::Result<()> {
    // The C libraries do not agree on the type of a request.
    #[allow(clippy::cast_possible_truncation, reason = "a request has 32 bits")]
    const SIOCSIFFLAGS: libc::Ioctl = libc::SIOCSIFFLAGS as libc::Ioctl;
    // SAFETY: takes integers and returns a new descriptor.
    let socket = sys::owned(unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)
    })?;
    // SAFETY: an `ifreq` is integers and bytes, for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        // `c_char` is signed on x86-64 and unsigned on arm64.
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    #[allow(clippy::cast_possible_truncation, reason = "IFF_UP is 1")]
    {
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    }
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which outlives the call.
    sys::check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}

/// With pvpanic the host hears of a panic before the reset, so that resets, `reboot -f` among
/// them, may go through ACPI. Without it the triple fault of `reboot=t` is what tells it.
fn leave_resets_to_pvpanic() {
    let bound = fs::read_dir("/sys/bus/platform/drivers/pvpanic-mmio")
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.path().join("driver").exists()));
    if bound {
        let _ = fs::write("/sys/kernel/reboot/type", "acpi");
    }
}

/// The signals that PID 1 waits for.
const SIGNALS: &[libc::c_int] =
    &[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGPWR];

fn block_signals() -> libc::sigset_t {
    // SAFETY: `sigemptyset` initialises the set before anything reads it; all pointers are to
    // it, and it outlives the calls. There is one thread.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        set
    }
}

/// The children that are started again when they end.
#[derive(Debug, Default)]
struct Children {
    service: Option<libc::pid_t>,
    shell: Option<libc::pid_t>,
}

fn supervise(options: &Options, signals: &libc::sigset_t) -> ExitCode {
    let mut children = Children::default();
    loop {
        if options.agent && children.service.is_none() {
            children.service = start_service(signals);
        }
        if options.shell && children.shell.is_none() {
            children.shell = start_shell();
        }
        let mut signal = 0;
        // SAFETY: `signals` was initialised, and `signal` outlives the call.
        if unsafe { libc::sigwait(signals, &raw mut signal) } != 0 {
            continue;
        }
        match signal {
            libc::SIGCHLD => reap(&mut children),
            // The signals by which busybox's `halt` and `poweroff` speak to PID 1.
            libc::SIGUSR1 | libc::SIGUSR2 | libc::SIGPWR => power::shut_down(Power::Off),
            // `reboot`, and Ctrl-Alt-Del.
            _ => power::shut_down(Power::Reboot),
        }
    }
}

/// Forks the service off. It keeps the pages of this program; nothing is loaded twice.
fn start_service(signals: &libc::sigset_t) -> Option<libc::pid_t> {
    // SAFETY: there is one thread, so that the child may do whatever the parent could.
    match unsafe { libc::fork() } {
        -1 => {
            eprintln!("vmoon-agent: cannot start the service: {}", io::Error::last_os_error());
            thread::sleep(Duration::from_secs(1));
            None
        }
        0 => {
            // SAFETY: `signals` was initialised; the old set is not asked for.
            unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, signals, ptr::null_mut()) };
            let Err(error) = Service::guest().run() else { std::process::exit(0) };
            eprintln!("vmoon-agent: cannot serve: {error}");
            // Not at once again: PID 1 restarts it.
            thread::sleep(Duration::from_secs(1));
            std::process::exit(1)
        }
        pid => Some(pid),
    }
}

/// A shell on the console.
fn start_shell() -> Option<libc::pid_t> {
    if !Path::new("/bin/sh").exists() {
        return None;
    }
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let name = active.split_ascii_whitespace().next_back().unwrap_or("console");
    let terminal = || OpenOptions::new().read(true).write(true).open(format!("/dev/{name}"));
    let start = || -> io::Result<libc::pid_t> {
        let mut command = Command::new("/bin/sh");
        command.arg0("-sh").current_dir("/root");
        command.stdin(terminal()?).stdout(terminal()?).stderr(Stdio::from(terminal()?));
        // SAFETY: between fork and exec the closure makes two system calls and nothing else.
        unsafe {
            command.pre_exec(|| {
                sys::check(libc::setsid())?;
                sys::check(libc::ioctl(0, libc::TIOCSCTTY, 0)).map(drop)
            });
        }
        let child = command.spawn()?;
        libc::pid_t::try_from(child.id()).map_err(io::Error::other)
    };
    start().inspect_err(|error| eprintln!("vmoon-agent: no shell on {name}: {error}")).ok()
}

/// Collects every child that has ended.
fn reap(children: &mut Children) {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        if children.service == Some(pid) {
            eprintln!("vmoon-agent: the service ended with wait status {status:#x}; again");
            children.service = None;
        }
        if children.shell == Some(pid) {
            children.shell = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_command_line() {
        let options = Options::parse("console=ttyS0 vmoon.hostname=web-1 quiet");
        let hostname = "web-1".to_owned();
        assert_eq!(options, Options { hostname, agent: true, shell: false, root: None });
        let options = Options::parse("vmoon.agent=off");
        assert!(!options.agent && options.shell, "a machine must have a way in");
        assert!(Options::parse("vmoon.shell=on").agent);
        let root = |text| Options::parse(text).root.map(|root| (root.device, root.readonly));
        assert_eq!(root("root=/dev/vda rw"), Some(("/dev/vda".into(), false)));
        assert_eq!(root("ro root=/dev/vda root=/dev/vda1"), Some(("/dev/vda1".into(), true)));
        assert_eq!(root("ro quiet"), None);
    }
}
