//! What is left to look at when a test has failed: `--artifacts` and `--repl-on-fail`.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use vmoon_tests::process::{run, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(2);

const SUITE: &str = "local test = require 'vmoon.test'
local machine = test.fixture { memory = '64MiB' }
test.after_each(function() machine():succeed 'put state changed-by-a-hook' end)
test.it('panics', function() machine():exec 'panic' end)
test.it('leaves it', function()
  machine():succeed 'put state as-it-failed'
  error 'what a pity'
end)
test.it('passes', function() machine() end)
";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("it can be listed")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

/// The one entry whose name begins so.
fn only(folder: &Path, start: &str) -> PathBuf {
    let all = names(folder);
    let found: Vec<&String> = all.iter().filter(|name| name.starts_with(start)).collect();
    assert!(found.len() == 1, "{start}: {all:?}");
    folder.join(found[0])
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_failed_test_leaves_its_machine_and_what_was_asked_of_it() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("artifacts", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("left_test.lua"), SUITE).expect("it can be written");
    let command = ["test", "--artifacts", "kept"];
    let ended = run(vmoon(command).current_dir(folder.path()), DEADLINE);
    ended.expect_status(1);
    let file = only(&folder.path().join("kept"), "left");
    assert_eq!(names(&file).len(), 2, "what passes leaves nothing");
    let kept = only(&file, "leaves");
    assert!(ended.stdout.contains(&*kept.file_name().unwrap().to_string_lossy()), "{ended}");

    let told = read(&kept.join("failure.txt"));
    assert!(told.contains("what a pity") && told.contains("left_test.lua:7"), "{told}");
    let transcript = read(&only(&kept, "transcript-"));
    assert!(transcript.contains("exec \"put state as-it-failed\": code 0 ("), "{transcript}");
    assert!(transcript.contains("exec \"panic\": guest.panic: "), "{transcript}");
    assert!(transcript.contains(" restore "), "{transcript}");
    assert!(read(&only(&kept, "console-")).contains("vmoon micro: ready"));
    // The panic was another test's, so this one's report does not show it.
    let (_, report) = ended.stdout.split_once(") leaves it\n").expect("it is reported");
    assert!(!report.contains("panic: asked for"), "{report}");

    let code = format!(
        "local vm <close> = vmoon.load('{}'):fork() print(vm:succeed 'get state')",
        only(&kept, "machine-").display()
    );
    let ended = run(&mut vmoon(["run", "-e", &code]), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "as-it-failed\n\n");
    // And the prompt opens it.
    let machine = only(&kept, "machine-");
    let mut repl = vmoon(["repl", "--snapshot", &machine.to_string_lossy()]);
    let ended = run(repl.stdin(std::process::Stdio::null()), DEADLINE);
    ended.expect_status(0);
}

/// A file to read, as a program's input.
fn input(text: &str) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("it can be written");
    file.rewind().expect("it can be read from its start");
    file
}

#[test]
fn a_prompt_shows_the_machine_as_the_test_left_it() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("a prompt after a failure", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("left_test.lua"), SUITE).expect("it can be written");
    let mut command = vmoon(["test", "--repl-on-fail", "--filter", "leaves"]);
    let asked = input("print(#machines, vm.state)\nvm:succeed 'get state'\nvm.nothing()\n");
    let ended = run(command.current_dir(folder.path()).stdin(asked), DEADLINE);
    ended.expect_status(1).expect_stderr(&["no method or field 'nothing' on vm"]);
    let (before, after) = ended.stdout.split_once("1\trunning\n").expect("it is printed");
    assert!(before.contains("what a pity"), "the failure comes first\n{ended}");
    assert!(after.starts_with("\"as-it-failed\\n\"\n"), "{ended}");
    assert!(ended.stdout.ends_with("0 passed, 1 failed, 0 skipped\n"), "{ended}");

    // Nobody is asked where nothing fails, and two files at once cannot share a terminal.
    let mut command = vmoon(["test", "--repl-on-fail", "--filter", "passes"]);
    run(command.current_dir(folder.path()).stdin(input("error 'asked'")), DEADLINE)
        .expect_status(0);
    let mut command = vmoon(["test", "--repl-on-fail", "--jobs", "2"]);
    run(command.current_dir(folder.path()), DEADLINE).expect_status(2);
}
