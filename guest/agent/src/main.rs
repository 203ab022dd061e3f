//! The agent in a Linux guest: runs commands for the host, over vsock.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | [`init`] | PID 1 of the assembled initramfs: mounts, modules, zombies, power keys |
//! | [`root`] | the way to a root file system on a disk, and to its init |
//! | [`buttons`] | the power button, for a host that cannot ask the agent |
//! | [`service`] | the service: a listener for commands, and the control connection |
//! | [`control`] | the control connection: readiness, lives, waits, shutdown |
//! | [`session`] | a command connection: one command after another |
//! | [`running`] | a command while it runs: the loop between its pipes and the connection |
//! | [`process`] | starts programs: arguments, environment, directory, user |
//! | [`terminal`] | terminals for programs that want one |
//! | [`files`] | files to and from the host |
//! | [`watch`] | waits for ports, files, processes and units |
//! | [`readiness`] | names that the guest declares |
//! | [`life`] | fresh entropy and the wall clock after a restore |
//! | [`power`] | ends every program and powers off or reboots |
//! | [`transport`] | vsock, or Unix sockets on a development machine |
//! | [`tools`] | `echo-server` and `connect`, for scripts that try vsock |
//!
//! Nothing here depends on time going on evenly: a snapshot can be taken and restored between any
//! two instructions.

mod account;
mod buttons;
mod control;
mod files;
mod init;
mod life;
mod modules;
mod mounts;
mod power;
mod process;
mod readiness;
mod root;
mod running;
mod service;
mod session;
mod stream;
mod sys;
mod terminal;
mod tools;
mod transport;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use service::Service;
use transport::Transport;

const USAGE: &str = "\
usage: vmoon-agent serve [--unix DIRECTORY]   serve the host over vsock (or Unix sockets)
       vmoon-agent echo-server PORT           echo each vsock connection to PORT
       vmoon-agent connect PORT TEXT…         send a line to the host's PORT, print the reply
       vmoon-agent ready [--unix DIRECTORY] NAME
                                              tell the host's vm:wait_ready(NAME)";

fn main() -> ExitCode {
    sys::keep_one_arena();
    if std::process::id() == 1 {
        return init::run();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve"] => Service::guest().run(),
        ["serve", "--unix", directory] => {
            Service::development(Transport::Unix(PathBuf::from(directory))).run()
        }
        ["echo-server", port] => tools::echo_server(port),
        ["connect", port, text @ ..] if !text.is_empty() => tools::connect(port, &text.join(" ")),
        ["ready", "--unix", directory, name] => {
            readiness::declare(&Transport::Unix(PathBuf::from(directory)).readiness(), name)
        }
        ["ready", name] => readiness::declare(&Transport::Vsock.readiness(), name),
        ["--version"] => {
            println!("vmoon-agent {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmoon-agent: {error}");
            ExitCode::FAILURE
        }
    }
}
