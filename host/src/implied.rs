//! Lets `vmoon SCRIPT` mean `vmoon run SCRIPT`, so that a script can begin with
//! `#!/usr/bin/env vmoon`.

use std::ffi::OsString;

use clap::CommandFactory;

use crate::cli::Cli;

/// The global flags that take a value.
const WITH_VALUE: [&str; 2] = ["--log", "--color"];

/// Inserts `run` where the command line names no command.
pub(crate) fn insert_run(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if let Some(at) = place_of_command(&arguments) {
        arguments.insert(at, "run".into());
    }
    arguments
}

/// Where `run` is missing, if it is.
fn place_of_command(arguments: &[OsString]) -> Option<usize> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at) {
        let Some(text) = argument.to_str() else { return Some(at) };
        if WITH_VALUE.contains(&text) {
            at += 2;
        } else if WITH_VALUE
            .iter()
            .any(|flag| text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
            || text == "--verbose"
            || (text.len() > 1
                && text.strip_prefix('-').is_some_and(|v| v.bytes().all(|b| b == b'v')))
        {
            at += 1;
        } else {
            let known =
                ["-h", "--help", "-V", "--version", "help"].contains(&text) || is_command(text);
            return (!known).then_some(at);
        }
    }
    None
}

/// A file of a command's name is run with `vmoon run NAME` or `vmoon ./NAME`.
fn is_command(text: &str) -> bool {
    // Most names of scripts are told from commands without asking clap, which costs time.
    text.bytes().all(|byte| byte.is_ascii_lowercase())
        && (text == "run" || Cli::command().get_subcommands().any(|known| known.get_name() == text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from);
        let all = insert_run(arguments);
        all.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn run_is_implied_for_scripts_only() {
        for (given, expected) in [
            ("vmoon x.lua run", "vmoon run x.lua run"),
            ("vmoon run x.lua", "vmoon run x.lua"),
            ("vmoon -vv --color always x.lua", "vmoon -vv --color always run x.lua"),
            ("vmoon --log=debug -", "vmoon --log=debug run -"),
            ("vmoon -e code", "vmoon run -e code"),
            ("vmoon --timeout 1s x", "vmoon run --timeout 1s x"),
            ("vmoon completions bash", "vmoon completions bash"),
            ("vmoon --help", "vmoon --help"),
            ("vmoon -v", "vmoon -v"),
            ("vmoon", "vmoon"),
        ] {
            assert_eq!(inserted(given), expected);
        }
    }
}
