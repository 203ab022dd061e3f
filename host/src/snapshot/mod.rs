//! `vmoon snapshot`: saved snapshots. Nothing here needs a backend.

mod inspect;
mod list;
mod time;

use std::io::Write;
use std::path::{Path, PathBuf};

use vmoon_core::saved::{Progress, Saved, Work, folder};
use vmoon_core::{Error, Result};

use crate::cli::SnapshotCommand;
use crate::{color, progress, status};

/// Runs a command on each directory; the exit status.
pub(crate) fn run(command: &SnapshotCommand, color: bool) -> i32 {
    match command {
        SnapshotCommand::Ls { directories } => list::run(directories, color),
        SnapshotCommand::Inspect { json, directories } => each(directories, color, |directory| {
            print(&inspect::text(directory, *json)?);
            Ok(())
        }),
        SnapshotCommand::Verify { directories } => each(directories, color, verify),
        SnapshotCommand::Rm { directories } => each(directories, color, folder::remove),
    }
}

fn verify(directory: &Path) -> Result<()> {
    let progress = Progress::new(Work::Verifying, progress::listener());
    Saved::open(directory)?.verify(&progress)?;
    drop(progress);
    print(&format!("{}: ok\n", directory.display()));
    Ok(())
}

/// Goes on after a failure, and says so in the end.
fn each(directories: &[PathBuf], color: bool, work: impl Fn(&Path) -> Result<()>) -> i32 {
    let mut status = status::DONE;
    for directory in directories {
        if let Err(error) = work(directory) {
            complain(error, color);
            status = status::RAISED;
        }
    }
    status
}

/// Prints; a reader that has heard enough is no failure.
fn print(text: &str) {
    // Nobody is left to tell.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

fn complain(error: Error, color: bool) {
    eprintln!("{}", color::failure(&error.into(), color));
}
