//! Finds the files that hold tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// How the names of files with tests end.
const ENDINGS: [&str; 2] = ["_test.lua", "_spec.lua"];

/// The files in `paths`, each once, in order: files as they are, directories with all below them.
pub(super) fn discover(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for path in paths {
        let kind = std::fs::metadata(path)
            .with_context(|| format!("no tests can be read from {}", path.display()))?;
        if kind.is_dir() {
            walk(path, &mut found)?;
        } else {
            found.insert(tidy(path));
        }
    }
    Ok(found.into_iter().collect())
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("the directory {} cannot be read", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // What is hidden holds no tests; links may lead in a circle.
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            // A checkout holds much else: what was built, what was installed.
            if name != "target" && name != "node_modules" {
                walk(&entry.path(), found)?;
            }
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            found.insert(tidy(&entry.path()));
        }
    }
    Ok(())
}

/// The path without `./` in front: names of tests are the same however they were asked for.
fn tidy(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}
