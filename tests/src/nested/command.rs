//! The command line of `tests/nested/run`.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::kernel::{IMAGE_VARIABLE, Kernel, MODULES_VARIABLE};
use super::machine;
use super::supervise::{Outcome, Signals};
use super::{probe, root};
use crate::project;

/// How to call it.
pub const USAGE: &str = "\
usage: tests/nested/run [--kernel VMLINUZ --modules DIR] [--qemu] [--timeout SECONDS] -- ARG...

Runs `vmoon ARG...` where KVM can run stock Linux: directly on this host if its KVM can, else in
an emulated machine. Prints what vmoon prints and exits with its status; 124 at the timeout (600),
125 when it cannot run at all.

  --kernel VMLINUZ --modules DIR   the kernel of the guests and its /lib/modules/VERSION, in place
                                   of the newest one that is installed
  --qemu                           the emulated machine has a QEMU, too, for `--backend qemu`

VMOON_NESTED=always|never          overrides the choice
VMOON_NESTED_MEMORY=MIB            the memory of the emulated machine (3072)
VMOON_BIN=PATH                     a vmoon to run in place of the release build
";

/// The exit status when `vmoon` could not be run.
const CANNOT_RUN: i32 = 125;
const TIMED_OUT: i32 = 124;
const WRONG_USE: i32 = 2;
/// How long `vmoon` may take unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_mins(10);

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    kernel: Option<Kernel>,
    qemu: bool,
    timeout: Option<Duration>,
    arguments: Vec<OsString>,
}

/// Runs it, and returns the exit status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> i32 {
    let options = match parse(arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return 0;
        }
        Err(message) => {
            eprintln!("nested: {message}\n\n{USAGE}");
            return WRONG_USE;
        }
    };
    match run(&options) {
        Ok(status) => status,
        Err(message) => {
            eprintln!("nested: {message}");
            CANNOT_RUN
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    let (mut image, mut modules) = (None, None);
    while let Some(argument) = arguments.next() {
        let name = argument.to_string_lossy().into_owned();
        if name == "--" {
            options.arguments = arguments.collect();
            break;
        }
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--kernel" => image = Some(PathBuf::from(value()?)),
            "--modules" => modules = Some(PathBuf::from(value()?)),
            "--qemu" => options.qemu = true,
            "--timeout" => options.timeout = Some(seconds(&value()?)?),
            _ => return Err(format!("{name} is not an option; vmoon's arguments follow `--`")),
        }
    }
    options.kernel = match (image, modules) {
        (None, None) => None,
        (Some(image), Some(modules)) => Some(Kernel { image, modules }),
        _ => return Err("--kernel and --modules come together".into()),
    };
    if options.arguments.is_empty() {
        return Err("no arguments for vmoon".into());
    }
    Ok(Some(options))
}

fn seconds(text: &OsString) -> Result<Duration, String> {
    let number = text.to_str().and_then(|text| text.trim_end_matches('s').parse().ok());
    number
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("--timeout takes seconds, not {}", text.display()))
}

/// Why this host cannot run `vmoon` with stock Linux, or `None`.
pub fn missing() -> Option<String> {
    let mut packages = Vec::new();
    if !directly() && machine::program().is_none() {
        packages.push("qemu-system-x86");
    }
    if Kernel::installed().is_none() {
        packages.push("linux-image-cloud-amd64");
    }
    if root::busybox().is_none() {
        packages.push("busybox-static");
    }
    (!packages.is_empty()).then(|| {
        let packages = packages.join(" ");
        format!("missing: {packages}\n  apt-get install --no-install-recommends {packages}")
    })
}

/// Whether commands run on the KVM at hand, rather than in an emulated machine.
pub fn directly() -> bool {
    match std::env::var("VMOON_NESTED").as_deref() {
        Ok("always") => false,
        Ok("never") => true,
        _ => probe::runs_stock_linux(),
    }
}

fn run(options: &Options) -> Result<i32, String> {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    let installed = Kernel::installed().ok_or("no kernel is installed")?;
    let named = options.kernel.clone().or_else(Kernel::from_environment);
    let inner = named.as_ref().unwrap_or(&installed);
    let vmoon = project::vmoon();
    let timeout = options.timeout.unwrap_or(TIMEOUT);
    if directly() {
        return outcome(run_directly(vmoon, options, timeout), &vmoon.to_string_lossy(), timeout);
    }
    let root = root::assemble(&root::Contents {
        vmoon,
        arguments: &options.arguments,
        input: &input(&options.arguments)?,
        qemu: options.qemu,
        outer: &installed,
        inner,
    })
    .map_err(|error| error.to_string())?;
    let outcome_of_machine = machine::run(&installed.image, &root, memory_mib()?, timeout);
    outcome(outcome_of_machine, machine::QEMU, timeout)
}

fn run_directly(vmoon: &Path, options: &Options, timeout: Duration) -> io::Result<Outcome> {
    let signals = Signals::block();
    let mut command = Command::new(vmoon);
    command.args(&options.arguments);
    if let Some(kernel) = &options.kernel {
        command.env(IMAGE_VARIABLE, &kernel.image).env(MODULES_VARIABLE, &kernel.modules);
    }
    signals.supervise(&mut command, timeout)
}

/// The exit status of an outcome; `program` is what ran.
fn outcome(outcome: io::Result<Outcome>, program: &str, timeout: Duration) -> Result<i32, String> {
    match outcome {
        Ok(Outcome::Exited(status)) => Ok(status),
        Ok(Outcome::Interrupted(signal)) => Ok(128 + signal),
        Ok(Outcome::TimedOut) => {
            eprintln!("nested: not done after {timeout:?}, and ended");
            Ok(TIMED_OUT)
        }
        Ok(Outcome::Died(console)) => {
            Err(format!("the machine ended before vmoon did; it last said:\n{console}"))
        }
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn memory_mib() -> Result<u32, String> {
    match std::env::var("VMOON_NESTED_MEMORY") {
        Ok(text) => text.parse().map_err(|_| format!("VMOON_NESTED_MEMORY is {text}, not MiB")),
        Err(_) => Ok(3072),
    }
}

/// What `vmoon` will read from its standard input: everything, if it is asked to run it.
fn input(arguments: &[OsString]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut stdin = io::stdin();
    if arguments.iter().any(|argument| argument == "-") && !stdin.is_terminal() {
        stdin.read_to_end(&mut bytes).map_err(|error| format!("standard input: {error}"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_come_before_the_dashes_and_vmoons_arguments_after() {
        let options =
            parsed("--kernel /k --modules /m/6.1 --qemu --timeout 2.5s -- run a.lua -- --x");
        let options = options.unwrap().unwrap();
        assert_eq!(options.arguments, ["run", "a.lua", "--", "--x"]);
        assert_eq!(options.timeout, Some(Duration::from_millis(2500)));
        assert!(options.qemu);
        assert_eq!(options.kernel.unwrap().version(), "6.1");
    }

    #[test]
    fn wrong_use_is_explained() {
        for (line, expected) in [
            ("", "no arguments"),
            ("--", "no arguments"),
            ("run a.lua", "follow `--`"),
            ("--kernel /k -- doctor", "come together"),
            ("--timeout soon -- doctor", "takes seconds"),
            ("--timeout", "needs a value"),
        ] {
            let message = parsed(line).unwrap_err();
            assert!(message.contains(expected), "{line:?}: {message}");
        }
        assert_eq!(parsed("--help"), Ok(None));
    }
}
