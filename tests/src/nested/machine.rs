//! The QEMU that emulates a machine with SVM.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use super::supervise::{self, Outcome, Signals};
use crate::process::installed;

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// `EPYC`, less what the emulator would warn that it does not have.
///
/// It lets a guest of the emulated machine write XCR0 behind KVM's back. With AVX, Linux notices at
/// its start, by a warning that sizes of the extended state do not agree, and does without XSAVE;
/// without AVX it would not notice, and lose registers. So AVX stays.
const CPU: &str = "EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,\
    -topoext,-nrip-save,-xsavec";
/// A panic ends the machine. The emulated time-stamp counters agree, though the processor does not
/// promise it; with them the clock of the guests is as on hardware. The rest saves time.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet loglevel=4 panic=-1 tsc=reliable mitigations=off no_timer_check";
/// The addresses of the serial ports are those of the four classic ones; their interrupts differ,
/// as ports cannot share one.
const INTERRUPTS: [u32; 4] = [4, 3, 10, 11];
/// How much of the console a message shows.
const CONSOLE_TAIL: usize = 2000;

/// Boots `kernel` with the archive `root`, copies the command's output to this process's, and
/// waits.
///
/// Blocks `SIGINT`, `SIGTERM`, `SIGHUP` and `SIGCHLD` in this process: for a program of one
/// thread that does nothing else.
pub fn run(kernel: &Path, root: &[u8], memory_mib: u32, limit: Duration) -> io::Result<Outcome> {
    let signals = Signals::block();
    let mut archive = tempfile::NamedTempFile::new()?;
    archive.write_all(root)?;
    let [console, output, error, status] = [io::pipe()?, io::pipe()?, io::pipe()?, io::pipe()?];
    let writers = [console.1, output.1, error.1, status.1];
    let mut child = spawn(kernel, archive.path(), memory_mib, &writers)?;
    drop(writers);
    let complaints = keep(child.stderr.take().expect("standard error is a pipe"));
    let console = keep(console.0);
    let status = keep(status.0);
    let output = copy(output.0, io::stdout());
    let error = copy(error.0, io::stderr());

    let early = signals.wait_for(&mut child, limit)?;
    child.kill()?;
    child.wait()?;
    for stream in [output, error] {
        stream.join().expect("the copier does not panic");
    }
    let text = |stream: JoinHandle<String>| stream.join().expect("the reader does not panic");
    let (console, status, complaints) = (text(console), text(status), text(complaints));
    let exited = status.trim().strip_prefix("exited ").and_then(|number| number.parse().ok());
    Ok(early.or(exited.map(Outcome::Exited)).unwrap_or_else(|| {
        let start = console.len().saturating_sub(CONSOLE_TAIL);
        let start = console.ceil_char_boundary(start);
        Outcome::Died(format!("{complaints}{}", &console[start..]))
    }))
}

fn spawn(
    kernel: &Path,
    root: &Path,
    memory_mib: u32,
    serial: &[PipeWriter; 4],
) -> io::Result<Child> {
    let mut command = Command::new(QEMU);
    command
        .args(["-machine", "pc", "-accel", "tcg,thread=multi", "-smp", "2", "-cpu", CPU])
        .args(["-m", &memory_mib.to_string(), "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-append", COMMAND_LINE, "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(root);
    for (index, (pipe, interrupt)) in serial.iter().zip(INTERRUPTS).enumerate() {
        command.arg("-chardev").arg(format!("file,id=c{index},path=/dev/fd/{}", pipe.as_raw_fd()));
        let device = format!("isa-serial,chardev=c{index},index={index},irq={interrupt}");
        command.arg("-device").arg(device);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let inherited = serial.each_ref().map(AsRawFd::as_raw_fd);
    // SAFETY: between fork and exec these call only async-signal-safe functions and allocate
    // nothing.
    unsafe { command.pre_exec(move || inherit(&inherited).and_then(|()| supervise::submit())) };
    command.spawn()
}

/// In QEMU's process, before it starts: its pipes stay open.
fn inherit(pipes: &[RawFd]) -> io::Result<()> {
    for fd in pipes {
        // SAFETY: `fcntl` with F_SETFD touches no memory.
        if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn keep(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A stream that cannot be read says no more.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn copy(mut from: PipeReader, mut to: impl Write + Send + 'static) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            // When nobody reads the output any more, the command still runs to its end.
            let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
        }
    })
}

/// Where the emulator is.
pub fn program() -> Option<PathBuf> {
    installed(QEMU)
}
