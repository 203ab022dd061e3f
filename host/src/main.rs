//! `vmoon`: the command line.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | `cli` | the commands and their flags |
//! | `implied` | lets `vmoon SCRIPT` mean `vmoon run SCRIPT` |
//! | `run` | `vmoon run` |
//! | `repl` | `vmoon repl`: the prompt, and what it shows |
//! | `doctor` | `vmoon doctor` |
//! | `test` | `vmoon test` |
//! | `report` | what is told of tests: for people, for CI, for browsers |
//! | `bench` | `vmoon bench` |
//! | `snapshot` | `vmoon snapshot` |
//! | `types` | `vmoon types` |
//! | `progress` | the bar for works on files that take long |
//! | `machines` | the backends and guests that this binary carries |
//! | `signals`, `watchdog` | Ctrl-C and deadlines, when the script itself does not listen |
//! | `limits` | lifts the limit of open files |
//! | `status` | exit statuses |
//! | `logging`, `color` | what goes to standard error, and how |

mod bench;
mod cli;
mod color;
mod doctor;
mod implied;
mod limits;
mod logging;
mod machines;
mod progress;
mod repl;
mod report;
mod run;
mod signals;
mod snapshot;
mod status;
mod test;
mod types;
mod watchdog;

use cli::Command;

fn main() {
    let cli = cli::parse();
    let color = cli.color.on_stderr();
    limits::lift();
    let status = match logging::start(&cli, color).and_then(|()| match cli.command {
        Command::Run(arguments) => run::run(&arguments, cli.color),
        Command::Repl(arguments) => repl::run(&arguments, cli.color),
        Command::Doctor { json } => doctor::run(json, color),
        Command::Test(arguments) => test::run(&arguments, cli.color),
        Command::Bench(arguments) => bench::run(&arguments, color),
        Command::Snapshot { command } => Ok(snapshot::run(&command, color)),
        Command::Types { directory } => types::run(&directory),
        Command::Man { directory } => cli::manual(directory.as_deref()).map(|()| status::DONE),
        Command::Completions { shell } => {
            cli::completions(shell);
            Ok(status::DONE)
        }
    }) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{}", color::failure(&error, color));
            status::USAGE
        }
    };
    std::process::exit(status);
}
