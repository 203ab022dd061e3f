//! `vmoon repl`, at a terminal and behind a pipe.

use std::process::Command;
use std::time::Duration;

use rexpect::session::{PtySession, spawn_command};
use vmoon_tests::process::{run_with_input, vmoon};
use vmoon_tests::{project, skip};

const DEADLINE: Duration = Duration::from_secs(30);

/// How long the terminal waits for what it expects, in milliseconds.
const PATIENCE: u64 = 30_000;

/// A conversation at a pseudo-terminal, whose history is in `state`.
fn at_terminal(state: &std::path::Path, arguments: &[&str]) -> PtySession {
    let mut command = Command::new(project::vmoon());
    command.arg("--color=never").arg("repl").args(arguments).current_dir(project::root());
    command.env("XDG_STATE_HOME", state).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut session = spawn_command(command, Some(PATIENCE)).expect("a pseudo-terminal");
    session.exp_string("Ctrl-D leaves").expect("the greeting");
    session.exp_string("vmoon> ").expect("the prompt");
    session
}

/// Types a line and waits for what comes of it.
#[track_caller]
fn ask(session: &mut PtySession, line: &str, expected: &str) {
    session.send_line(line).expect("the terminal takes input");
    // What is typed is echoed; what it says comes on a line of its own.
    if let Err(error) = session.exp_string(&format!("\n{expected}")) {
        panic!("{line}: {error}");
    }
    session.exp_string("vmoon> ").expect("the prompt comes again");
}

/// Presses Ctrl-D and expects a clean end.
#[track_caller]
fn leave(mut session: PtySession) {
    session.send_control('d').expect("the terminal takes input");
    session.exp_eof().expect("it ends");
    let status = format!("{:?}", session.process().wait().expect("its end is known"));
    assert!(status.starts_with("Exited(") && status.ends_with(", 0)"), "{status}");
}

#[test]
fn chunks_values_errors_and_history() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut session = at_terminal(state.path(), &[]);
    ask(&mut session, "x = { b = 1, a = { 2 } }", "");
    ask(&mut session, "x", "{ a = { 2 }, b = 1 }");
    ask(&mut session, "for i = 1, 2 do\nprint('line ' .. i)\nend", "line 1\r\nline 2");
    ask(&mut session, "vmoon.boot { cpuz = 2 }", "error[vm.spec]: unknown option 'cpuz'");
    ask(&mut session, "'open", "error: unfinished string");
    ask(&mut session, "local y = 1", "note: a local ends with its input");
    ask(&mut session, "help(vmoon.boot)", "vmoon.boot(spec?) -> Vm");
    leave(session);
    let history = std::fs::read_to_string(state.path().join("vmoon/history"))
        .expect("the history was written");
    assert!(history.contains("for i = 1, 2 do\\nprint('line ' .. i)\\nend"), "{history}");

    // Another conversation has the inputs of the one before.
    let mut session = at_terminal(state.path(), &[]);
    session.send("\x1b[A\x1b[A").expect("the terminal takes input");
    session.flush().expect("the terminal takes input");
    session.exp_string("local y = 1").expect("the last input but one");
    session.send_control('c').expect("the terminal takes input");
    session.exp_string("vmoon> ").expect("the prompt comes again");
    leave(session);
}

#[test]
fn ctrl_c_ends_the_call_and_not_the_conversation() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut session = at_terminal(state.path(), &[]);
    for call in ["while true do end", "vmoon.sleep(1000)"] {
        session.send_line(call).expect("the terminal takes input");
        session.exp_string("\n").expect("the line is echoed");
        // The call begins when the line editor has given the terminal back.
        std::thread::sleep(Duration::from_millis(500));
        session.send_control('c').expect("the terminal takes input");
        session.exp_string("interrupted").expect("it says so");
        session.exp_string("vmoon> ").expect("the prompt comes again");
    }
    ask(&mut session, "'still ' .. 'here'", "\"still here\"");
    leave(session);
}

#[test]
fn names_and_files_are_completed() {
    let state = tempfile::tempdir().expect("a temporary folder");
    let mut session = at_terminal(state.path(), &[]);
    for (typed, whole) in [
        ("vmoon.capa\t", "vmoon.capabilities"),
        ("f = 'examples/01\t", "examples/01-snapshot-test-restore.lua"),
    ] {
        session.send(typed).expect("the terminal takes input");
        session.flush().expect("the terminal takes input");
        session.exp_string(whole).expect(whole);
        session.send_control('c').expect("the terminal takes input");
        session.exp_string("vmoon> ").expect("the prompt comes again");
    }
    leave(session);
}

#[test]
fn machines_speak_above_the_prompt_and_are_closed_at_the_end() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("the conversation with a machine", &missing);
    }
    let state = tempfile::tempdir().expect("a temporary folder");
    let saved = state.path().join("saved");
    let saved = saved.to_str().expect("the path is text");
    let mut session = at_terminal(state.path(), &[]);
    session
        .send_line("vm = vmoon.boot { name = 'talker', memory = '32MiB' }")
        .expect("the terminal takes input");
    // The bar between the name and the text is no ASCII, which the crate does not know.
    session.exp_regex("talker [^ ]+ vmoon micro: ready").expect("what the guest prints");
    session.exp_string("vmoon> ").expect("the prompt comes again");
    ask(&mut session, "vm:succeed 'put colour green'", "\"\"");
    ask(&mut session, "vm:exce 'true'", "error[vm.spec]: no method or field 'exce' on vm");
    ask(&mut session, "vm.state", "\"running\"");
    ask(&mut session, &format!("vm:snapshot('kept'):save '{saved}'"), "");
    leave(session);

    let mut session = at_terminal(state.path(), &["--snapshot", saved]);
    ask(&mut session, "vm:succeed 'get colour'", "\"green\\n\"");
    ask(&mut session, "snap.name", "\"kept\"");
    leave(session);
}

#[test]
fn a_pipe_has_no_prompt_and_a_status() {
    let input = "x = 20\nx + 1\nif x then\n  print 'whole'\nend\nhelp 'vmoon.list'";
    let ended = run_with_input(&mut vmoon(["repl"]), input, DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.starts_with("21\nwhole\nvmoon.list() -> Vm[]\n"), "{ended}");
    assert_eq!(ended.stderr, "", "{ended}");

    let ended = run_with_input(&mut vmoon(["repl"]), "error 'no'\n'on it goes'\nx = (", DEADLINE);
    ended.expect_status(1).expect_stderr(&["error: no", "(input 1):1", "unexpected symbol"]);
    assert_eq!(ended.stdout, "\"on it goes\"\n", "{ended}");
}

#[test]
fn a_script_runs_first_and_its_globals_stay() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("first.lua");
    std::fs::write(&script, "kept = { ..., arg[1] } local gone = 1").expect("it can be written");
    let mut command = vmoon(["repl"]);
    command.arg(&script).arg("word");
    let ended = run_with_input(&mut command, "kept, gone", DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "{ \"word\", \"word\" }\tnil\n", "{ended}");

    std::fs::write(&script, "kept = 1 error 'halfway'").expect("it can be written");
    let ended = run_with_input(&mut command, "kept", DEADLINE);
    ended.expect_status(1).expect_stderr(&["halfway", "first.lua:1"]);
    assert_eq!(ended.stdout, "1\n", "{ended}");
}

#[test]
fn a_history_that_cannot_be_written_is_no_end() {
    let state = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(state.path().join("vmoon"), "in the way").expect("it can be written");
    let mut session = at_terminal(state.path(), &[]);
    ask(&mut session, "1 + 1", "2");
    leave(session);
}
