//! What is kept of a test that failed: a folder with its errors, and of each machine at hand its
//! console, what it was asked for, its kernel's messages, and itself as a saved snapshot.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{AnyUserData, Lua, Table};
use vmoon_core::spec::Guest;
use vmoon_core::vm::ExecRequest;
use vmoon_core::{State as MachineState, Vm};

use super::attempt::Kept;
use super::finish;
use super::state::State;
use crate::arguments::Arguments;
use crate::class::{Results, waiting};
use crate::fault::Outcome;

/// How long a guest has to tell its kernel's messages.
const DMESG: Duration = Duration::from_secs(10);

pub(super) fn define(lua: &Lua, native: &Table, state: &Rc<State>) -> mlua::Result<()> {
    let of = state.clone();
    waiting(lua, native, "vmoon.test.keep", Results::None, move |_, arguments: Arguments| {
        let state = of.clone();
        async move { keep(&state, &arguments).await }
    })
}

/// Keeps what is known of `(number, failures, subtests)`, while the machines are as they failed.
async fn keep(state: &State, arguments: &Arguments) -> Outcome<()> {
    let Some(root) = &state.settings.artifacts else { return Ok(()) };
    let test = finish::test(state, arguments)?;
    let folder = root.join(slug(&test.file)).join(slug(&test.full()));
    let mut shown = format!("{}\n{}:{}\n", test.path.join(" > "), test.file, test.line);
    for kept in arguments.table(1, "failures")?.sequence_values::<AnyUserData>() {
        let _ = write!(shown, "\n{}\n", kept?.borrow::<Kept>()?.0.report);
    }
    let mut failures = Vec::new();
    finish::subtests(&arguments.table(2, "subtests")?, 1, &[], &mut failures)?;
    for failure in failures {
        let _ = write!(shown, "\n{}: {}\n", failure.subtest.join(" > "), failure.report);
    }
    let machines = state.at_hand.borrow().clone();
    let kept = async {
        // What an earlier run left would be taken for this one's.
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        for vm in &machines {
            machine(&folder, vm, &mut shown).await?;
        }
        std::fs::write(folder.join("failure.txt"), &shown)
    };
    match kept.await {
        Ok(()) => *state.artifacts.borrow_mut() = Some(folder),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "a failure's artifacts were not kept");
        }
    }
    Ok(())
}

async fn machine(folder: &Path, vm: &Arc<Vm>, text: &mut String) -> std::io::Result<()> {
    let name = slug(vm.name());
    std::fs::write(folder.join(format!("console-{name}.log")), vm.console().text())?;
    std::fs::write(folder.join(format!("transcript-{name}.log")), vm.transcript().text())?;
    if vm.is_closed() {
        let _ = write!(text, "\n{}: closed before it could be saved\n", vm.name());
        return Ok(());
    }
    // Before anything runs in it that did not run in the test.
    match save(vm, &folder.join(format!("machine-{name}"))).await {
        Ok(saved) => {
            let _ = write!(text, "\n{}: vmoon repl --snapshot {}\n", vm.name(), saved.display());
        }
        Err(error) => {
            let _ = write!(text, "\n{}: not saved: {error}\n", vm.name());
        }
    }
    if vm.spec().guest != Guest::Micro && vm.state() == MachineState::Running {
        let request = ExecRequest { timeout: Some(DMESG), ..ExecRequest::shell("dmesg") };
        if let Ok(result) = vm.exec(request).await {
            std::fs::write(folder.join(format!("dmesg-{name}.log")), result.stdout)?;
        }
    }
    Ok(())
}

/// Saves the machine as it is.
async fn save(vm: &Arc<Vm>, directory: &Path) -> vmoon_core::Result<PathBuf> {
    let snapshot = vm.snapshot(Some("failure".to_owned())).await?;
    let saved = snapshot.save(directory).await;
    snapshot.delete().await?;
    saved.map(|()| directory.to_owned())
}

/// A name for a file: short, and of letters that mean nothing to a shell.
fn slug(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut slug: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .take(LONGEST)
        .collect();
    // Two names that only differ in what is left out stay apart.
    if slug.len() < name.len() || slug != name {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        let _ = write!(slug, "-{}", &hash[..6]);
    }
    slug
}
