//! `vm:shell()` on a terminal: it is restored, whatever ends the program in the guest.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use vmoon_tests::process::vmoon;
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(1);

/// Both ends of a terminal: the user's, and the program's.
struct Terminal {
    user: File,
    program: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let (mut user, mut program) = (0, 0);
        // SAFETY: both integers outlive the call; the rest may be null.
        let opened = unsafe {
            libc::openpty(
                &raw mut user,
                &raw mut program,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert_eq!(opened, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: `openpty` returned two new descriptors.
        unsafe { Self { user: File::from_raw_fd(user), program: OwnedFd::from_raw_fd(program) } }
    }

    fn settings(&self) -> [libc::tcflag_t; 4] {
        // SAFETY: a `termios` is plain integers, for which zero is valid.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: `settings` outlives the call.
        let got = unsafe { libc::tcgetattr(self.program.as_raw_fd(), &raw mut settings) };
        assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
        [settings.c_iflag, settings.c_oflag, settings.c_cflag, settings.c_lflag]
    }

    fn start(&self, script: &str) -> Child {
        let end = || Stdio::from(self.program.try_clone().expect("a descriptor"));
        let mut command: Command = vmoon(["run", "-e", script]);
        command.stdin(end()).stdout(end()).stderr(Stdio::inherit()).spawn().expect("vmoon starts")
    }

    /// Reads what is shown until `wanted` is.
    fn wait_for(&mut self, wanted: &str) -> String {
        let mut shown = String::new();
        let until = Instant::now() + DEADLINE;
        while !shown.contains(wanted) {
            let mut entry = libc::pollfd {
                fd: self.user.as_fd().as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry that outlives the call.
            unsafe { libc::poll(&raw mut entry, 1, 200) };
            if entry.revents & libc::POLLIN != 0 {
                let mut buffer = [0; 1024];
                let count = self.user.read(&mut buffer).expect("the terminal can be read");
                shown.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            assert!(Instant::now() < until, "no {wanted:?} in {shown:?}");
        }
        shown
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status;
        }
        assert!(Instant::now() < until, "vmoon does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_terminal_is_lent_and_given_back() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("vm:shell", &missing);
    }
    let mut terminal = Terminal::new();
    let before = terminal.settings();
    let script = r#"
        local vm <close> = require("vmoon").boot { memory = "32MiB" }
        print("ended with " .. vm:shell("exit 7").code)
        print(vm:shell("lines 128").code)
        print("left with " .. tostring((vm:shell "sleep 600000")))
        vm:shell "sleep 600000"
    "#;
    let mut child = terminal.start(script);
    terminal.wait_for("ended with 7\r\n");
    // What a program prints is shown as it is: in raw mode nothing is translated.
    let line = "x".repeat(63);
    terminal.wait_for(&format!("{line}\n{line}\n0\r\n"));
    // Lent: no line editing, no echo, no signals.
    let until = Instant::now() + DEADLINE;
    while terminal.settings() == before {
        assert!(Instant::now() < until, "the terminal is not taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    terminal.user.write_all(b"ignored\x03\x1d").expect("it can be typed on");
    terminal.wait_for("left with nil\r\n");
    // Given back when a signal ends the script, too.
    let until = Instant::now() + DEADLINE;
    while terminal.settings() == before {
        assert!(Instant::now() < until, "the terminal is not taken again");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: takes two integers; the child is ours and not reaped.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
    assert!(!wait(&mut child).success());
    assert_eq!(terminal.settings(), before);
}
