//! `vmoon snapshot ls`.

use std::path::{Path, PathBuf};

use vmoon_core::saved::{Saved, folder};
use vmoon_core::vm::saving::Annotations;
use vmoon_core::{Code, Result};

use super::{complain, print, time};
use crate::status;

/// Prints a line for each snapshot at or below the directories; the exit status.
pub(super) fn run(directories: &[PathBuf], color: bool) -> i32 {
    let mut status = status::DONE;
    let mut rows = Vec::new();
    for directory in directories {
        match folder::find(directory) {
            Ok(found) => rows.extend(found.iter().map(|directory| row(directory))),
            Err(error) => {
                complain(error, color);
                status = status::RAISED;
            }
        }
    }
    if !rows.is_empty() {
        rows.insert(
            0,
            ["NAME", "CREATED", "MEMORY", "ON DISK", "BACKEND", "DIRECTORY"].map(str::to_owned),
        );
    }
    print(&table(&rows));
    status
}

type Row = [String; 6];

fn row(directory: &Path) -> Row {
    let path = directory.display().to_string();
    describe(directory).unwrap_or_else(|code| {
        let nothing = || "-".to_owned();
        [nothing(), code.to_string(), nothing(), nothing(), nothing(), path]
    })
}

fn describe(directory: &Path) -> Result<Row, Code> {
    let saved = Saved::open(directory).map_err(|error| error.code())?;
    let annotations = Annotations::of(&saved).map_err(|error| error.code())?;
    let manifest = saved.manifest();
    Ok([
        annotations.name.clone(),
        time::utc(annotations.created()),
        manifest.memory.to_string(),
        super::inspect::rounded(saved.size_on_disk()),
        manifest.backend.clone(),
        directory.display().to_string(),
    ])
}

fn table(rows: &[Row]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &Row| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            // Sizes stand at the right.
            match column {
                2 | 3 => format!("{cell:>width$}"),
                _ => format!("{cell:width$}"),
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
