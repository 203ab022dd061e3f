//! The commands and their flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::builder::RangedU64ValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use vmoon_core::Bytes;

use crate::color::Color;
use crate::test::Flags;
use crate::{implied, status};

/// A scripting host for virtual machines: Lua that boots, tests, snapshots and restores them.
#[derive(Debug, Parser)]
#[command(name = "vmoon", version, arg_required_else_help = true)]
pub(crate) struct CommandLine<C: Subcommand> {
    /// Say more about what happens: -v decisions, -vv every step
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// What to log to standard error, for example `info,vmoon_kvm=trace`
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,

    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,

    #[command(subcommand)]
    pub(crate) command: C,
}

/// The whole command line.
pub(crate) type Cli = CommandLine<Command>;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a script; `vmoon SCRIPT` is the same
    Run(Run),
    /// Talk to Lua, and to machines, one line after the other
    Repl(Repl),
    /// Tell which backends work here, why others do not, and what to do about it
    Doctor {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Run the tests in `*_test.lua` and `*_spec.lua`
    Test(Flags),
    /// Measure boot, snapshot, restore, fork, exec and vsock on this machine
    Bench(Bench),
    /// List, inspect, verify and remove saved snapshots
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Write the type definitions for editors, and the `.luarc.json` that names them
    Types {
        /// The folder of the scripts
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// Print the manual page, or write all of them to a folder
    Man {
        /// Where to write the pages
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to do with saved snapshots. Needs no hypervisor.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// List the snapshots in and below directories
    Ls {
        /// Where to look; here, if nothing is given
        #[arg(value_name = "DIR", default_value = ".")]
        directories: Vec<PathBuf>,
    },
    /// Print what snapshots are
    Inspect {
        /// Print all of the manifest, as JSON
        #[arg(long)]
        json: bool,

        /// The snapshots' directories
        #[arg(value_name = "DIR", required = true)]
        directories: Vec<PathBuf>,
    },
    /// Check every hash; exit status 1 if any is wrong
    Verify {
        /// The snapshots' directories
        #[arg(value_name = "DIR", required = true)]
        directories: Vec<PathBuf>,
    },
    /// Remove directories, if they are snapshots
    Rm {
        /// The snapshots' directories
        #[arg(value_name = "DIR", required = true)]
        directories: Vec<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The backend for machines whose description names none
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: Option<String>,

    /// End the script after this long, with exit status 124: seconds, or 250ms, 20s, 2m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// Run this text instead of a file
    #[arg(short = 'e', value_name = "CODE", allow_hyphen_values = true)]
    pub(crate) code: Option<OsString>,

    /// The script (`-` reads it from standard input), and what it finds in `arg` and in `...`
    #[arg(trailing_var_arg = true, required_unless_present = "code", value_name = "SCRIPT] [ARG")]
    pub(crate) script: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Repl {
    /// The backend for machines whose description names none
    #[arg(long, value_name = "BACKEND")]
    pub(crate) backend: Option<String>,

    /// Begin with a saved snapshot as `snap`, and a machine made of it as `vm`
    #[arg(long, value_name = "DIR")]
    pub(crate) snapshot: Option<PathBuf>,

    /// Do not show what guests print
    #[arg(long)]
    pub(crate) no_console: bool,

    /// A script to run first, whose globals stay, and what it finds in `arg` and in `...`
    #[arg(trailing_var_arg = true, value_name = "SCRIPT] [ARG")]
    pub(crate) script: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// The guest to measure with
    #[arg(long, value_enum, default_value_t, value_name = "GUEST")]
    pub(crate) guest: BenchGuest,

    /// The guest's memory
    #[arg(long, default_value = "512MiB", value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Bytes,

    /// How many pages the guest writes to before each snapshot and each restore
    #[arg(long, default_value_t = 200, value_name = "PAGES")]
    pub(crate) dirty: usize,

    /// How often to measure; boots and forks are measured less often
    #[arg(long, default_value_t = 200, value_name = "N",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) rounds: usize,
}

/// The guests that are measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchGuest {
    /// The built-in guest.
    #[default]
    Micro,
    /// The host's Linux kernel.
    Linux,
}

fn size(text: &str) -> Result<Bytes, String> {
    text.parse::<Bytes>().map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        format!("{}; {hint}", error.message())
    })
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    vmoon_core::units::parse_duration(text).map_err(|error| {
        let hint = error.hint().unwrap_or_default();
        format!("{}; {hint}", error.message())
    })
}

/// The commands, as far as most starts of this program want them.
#[derive(Debug, Subcommand)]
enum OnlyRun {
    Run(Run),
}

/// The command line, if it is one for `vmoon run`. To build the flags of all commands takes a tenth
/// of the time of an empty script.
fn only_run(arguments: &[OsString]) -> Option<Cli> {
    if !arguments.iter().any(|argument| argument == "run") {
        return None;
    }
    // Wrong use, and pleas for help, are answered by the whole.
    let CommandLine { verbose, log, color, command: OnlyRun::Run(run) } =
        CommandLine::try_parse_from(arguments).ok()?;
    Some(Cli { verbose, log, color, command: Command::Run(run) })
}

/// Reads the command line; ends the process when it is wrong, or when it asks for help.
pub(crate) fn parse() -> Cli {
    let arguments = implied::insert_run(std::env::args_os());
    if let Some(cli) = only_run(&arguments) {
        return cli;
    }
    Cli::try_parse_from(arguments).unwrap_or_else(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        let mut command = Cli::command();
        let text = error.render().to_string();
        eprint!("{text}");
        if !text.contains("Usage:") {
            eprintln!("\n{}", command.render_usage());
        }
        std::process::exit(status::USAGE)
    })
}

/// Prints completions.
pub(crate) fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "vmoon", &mut std::io::stdout());
}

/// Prints the manual page of `vmoon`, or writes it and those of its commands to a folder.
pub(crate) fn manual(directory: Option<&Path>) -> anyhow::Result<()> {
    let command = Cli::command();
    match directory {
        None => clap_mangen::Man::new(command).render(&mut std::io::stdout())?,
        Some(directory) => {
            std::fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(command, directory))
                .with_context(|| format!("{} cannot be written", directory.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Run {
        let all = ["vmoon"].iter().chain(arguments).map(OsString::from);
        match Cli::try_parse_from(implied::insert_run(all)).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_the_script_are_the_scripts() {
        let given = run(&["run", "--timeout", "2s", "x.lua", "--timeout", "-v", "--"]);
        assert_eq!(given.timeout, Some(Duration::from_secs(2)));
        assert_eq!(given.script, ["x.lua", "--timeout", "-v", "--"]);
        assert_eq!(run(&["x.lua", "--version"]).script, ["x.lua", "--version"]);
    }

    #[test]
    fn run_by_itself_takes_what_it_takes_among_all_commands() {
        let lines: [&[&str]; 9] = [
            &["run", "x.lua", "y"],
            &["-v", "--color", "never", "run", "-v", "--timeout", "2s", "x.lua"],
            &["run", "--log", "info", "-e", "print(1)", "--", "x"],
            &["run"],
            &["run", "--help"],
            &["run", "--no-such-flag", "x.lua"],
            &["run", "--timeout", "soon", "x.lua"],
            &["snapshot", "ls", "run"],
            &["help", "run"],
        ];
        for line in lines {
            let all: Vec<OsString> = ["vmoon"].iter().chain(line).map(OsString::from).collect();
            let whole = Cli::try_parse_from(&all);
            let among = whole.ok().filter(|cli| matches!(cli.command, Command::Run(_)));
            assert_eq!(format!("{:?}", only_run(&all)), format!("{among:?}"), "{line:?}");
        }
    }

    #[test]
    fn flags_before_the_script_must_be_known() {
        for line in [&["vmoon", "run", "--no-such-flag", "x.lua"][..], &["vmoon", "run"]] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn code_and_standard_input() {
        let given = run(&["run", "-e", "-- a comment", "x"]);
        assert_eq!(given.code.as_deref(), Some("-- a comment".as_ref()));
        assert_eq!(given.script, ["x"]);
        assert_eq!(run(&["-", "y"]).script, ["-", "y"]);
        assert!(run(&["-e", "print(1)"]).script.is_empty());
    }
}
