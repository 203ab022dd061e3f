//! The command line: how scripts get in, how errors look, and how vmoon ends.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use vmoon_tests::process::{Running, run, run_with_input, start, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_secs(30);

fn folder_with(name: &str, script: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, script).expect("the script can be written");
    let path = path.to_str().expect("the path is text").to_owned();
    (folder, path)
}

#[test]
fn a_script_runs_with_and_without_the_word_run() {
    let (_folder, path) = folder_with("hello.lua", "print('hello', arg[0], arg[1], arg[2], #arg)");
    for first in [&["run"][..], &[]] {
        let arguments = first.iter().copied().chain([path.as_str(), "one", "--two"]);
        let ended = run(&mut vmoon(arguments), DEADLINE);
        ended.expect_status(0);
        assert_eq!(ended.stdout, format!("hello\t{path}\tone\t--two\t2\n"), "{ended}");
        assert_eq!(ended.stderr, "", "{ended}");
    }
}

#[test]
fn a_script_may_start_with_a_hash_bang() {
    let (_folder, path) = folder_with("bang.lua", "#!/usr/bin/env vmoon\nprint 'fine'\n");
    let ended = run(&mut vmoon(["run", &path]), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "fine\n");
}

#[test]
fn a_chunk_comes_from_the_command_line_or_from_standard_input() {
    let ended = run(&mut vmoon(["run", "-e", "print(arg[1])", "x"]), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "x\n");
    let ended = run_with_input(&mut vmoon(["run", "-", "y"]), "print(arg[1])", DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "y\n");
}

#[test]
fn modules_are_found_beside_the_script() {
    let (folder, path) =
        folder_with("main.lua", "local m = require 'helper.words' print(m.word, ...)");
    std::fs::create_dir(folder.path().join("helper")).expect("a folder can be made");
    std::fs::write(folder.path().join("helper/words.lua"), "return { word = 'found' }")
        .expect("a module can be written");
    let ended = run(&mut vmoon(["run", &path, "extra"]), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "found\textra\n");
}

#[test]
fn nothing_but_vmoon_and_arg_is_added_to_lua() {
    let code = "
        assert(require 'vmoon' == vmoon and type(arg) == 'table')
        local standard = {}
        for name in ([[_G _VERSION assert collectgarbage coroutine debug dofile error getmetatable
            io ipairs load loadfile math next os package pairs pcall print rawequal rawget rawlen
            rawset require select setmetatable string table tonumber tostring type utf8 warn
            xpcall vmoon arg]]):gmatch '%S+' do standard[name] = true end
        for name in pairs(_G) do assert(standard[name], 'a global too many: ' .. name) end
        assert(require 'vmoon.task' == vmoon.task)
        print(_VERSION)";
    let ended = run(&mut vmoon(["run", "-e", code]), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "Lua 5.4\n");
}

#[test]
fn an_error_is_shown_with_its_line_and_its_traceback() {
    let script = "local function inner()\n  error 'what a pity'\nend\nlocal function outer()\n  \
                  inner()\nend\nouter()\n";
    let (_folder, path) = folder_with("pity.lua", script);
    let ended = run(&mut vmoon(["run", &path]), DEADLINE);
    ended.expect_status(1).expect_stderr(&["what a pity", "pity.lua:2", "pity.lua:5"]);
    assert!(!ended.stderr.contains("[C]"), "frames of the host are shown\n{ended}");
    assert!(!ended.stderr.contains(".rs"), "frames of the host are shown\n{ended}");
}

#[test]
fn a_structured_error_is_a_picture() {
    let script = "local vmoon = require 'vmoon'\n\nvmoon.boot { cpuz = 2 }\n";
    let (_folder, path) = folder_with("picture.lua", script);
    let ended = run(&mut vmoon(["run", &path]), DEADLINE);
    ended.expect_status(1).expect_stderr(&[
        "error[vm.spec]: ",
        "picture.lua:3",
        "vmoon.boot { cpuz = 2 }",
        "^",
        "help: ",
    ]);
}

#[test]
fn errors_that_are_no_strings_are_shown_too() {
    for (code, expected) in [
        ("error { code = 'my.own', message = 'own words', hint = 'own hint' }", "own words"),
        ("error(setmetatable({}, { __tostring = function() return 'shown' end }))", "shown"),
        ("error(42)", "42"),
        ("error()", "nil"),
    ] {
        run(&mut vmoon(["run", "-e", code]), DEADLINE).expect_status(1).expect_stderr(&[expected]);
    }
}

#[test]
fn a_syntax_error_names_the_line() {
    let (_folder, path) = folder_with("broken.lua", "print 'fine'\nlocal x = = 1\n");
    let ended = run(&mut vmoon(["run", &path]), DEADLINE);
    ended.expect_status(1).expect_stderr(&["broken.lua:2", "local x = = 1", "near '='"]);
    assert_eq!(ended.stdout, "", "nothing of it ran");
}

#[test]
fn usage_errors_are_exit_status_2() {
    for arguments in [&["run", "--no-such-flag", "x.lua"][..], &["run", "--timeout", "soon", "-"]] {
        run(&mut vmoon(arguments), DEADLINE).expect_status(2).expect_stderr(&["usage"]);
    }
    run(&mut vmoon(["run"]), DEADLINE).expect_status(2);
}

#[test]
fn a_script_that_is_not_there() {
    let ended = run(&mut vmoon(["run", "/no/such/script.lua"]), DEADLINE);
    assert!([1, 2].contains(&ended.status), "{ended}");
    ended.expect_stderr(&["/no/such/script.lua"]);
}

#[test]
fn help_and_version() {
    let ended = run(&mut vmoon(["--help"]), DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.contains("run"), "{ended}");
    run(&mut vmoon(["--version"]), DEADLINE).expect_status(0);
}

#[test]
fn os_exit_sets_the_status_and_closes_machines() {
    let ended = run(&mut vmoon(["run", "-e", "os.exit(7)"]), DEADLINE);
    ended.expect_status(7);
    if skip::without_kvm().is_none() {
        let code = "local vm = require('vmoon').boot {} os.exit(5, true)";
        run(&mut vmoon(["run", "-e", code]), DEADLINE).expect_status(5);
    }
}

#[test]
fn a_timeout_ends_a_script_that_spins() {
    let mut command = vmoon(["run", "--timeout", "1s", "-e", "while true do end"]);
    let ended = run(&mut command, DEADLINE);
    ended.expect_status(124).expect_stderr(&["1s"]);
    assert!(ended.duration < Duration::from_secs(4), "{ended}");
}

#[test]
fn a_timeout_ends_a_script_that_catches_everything() {
    for code in [
        "while true do pcall(function() while true do end end) end",
        "while true do pcall(require('vmoon').sleep, 100) end",
        "local co = coroutine.wrap(function() while true do end end) co()",
        "string.rep('x', 1 << 20):find(('.-'):rep(30) .. 'b')",
    ] {
        let ended = run(&mut vmoon(["run", "--timeout", "1s", "-e", code]), DEADLINE);
        ended.expect_status(124);
        assert!(ended.duration < Duration::from_secs(6), "{code}\n{ended}");
    }
}

#[test]
fn a_timeout_closes_what_is_open() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("a timeout closes what is open", &missing);
    }
    let code = "
        local vmoon = require 'vmoon'
        local guard <close> = setmetatable({}, { __close = function() print 'closed' end })
        local vm <close> = vmoon.boot { memory = '32MiB' }
        vm:exec 'sleep 60000'";
    let ended = run(&mut vmoon(["run", "--timeout", "2s", "-e", code]), DEADLINE);
    ended.expect_status(124);
    assert_eq!(ended.stdout, "closed\n", "{ended}");
}

#[test]
fn an_error_inside_close_is_shown_and_everything_else_closes() {
    let code = "
        local first <close> = setmetatable({}, { __close = function() print 'first' end })
        local second <close> = setmetatable({}, { __close = function() error 'no way' end })
        local third <close> = setmetatable({}, { __close = function() print 'third' end })
        print 'body'";
    let ended = run(&mut vmoon(["run", "-e", code]), DEADLINE);
    ended.expect_status(1).expect_stderr(&["no way"]);
    assert_eq!(ended.stdout, "body\nthird\nfirst\n", "{ended}");
}

#[test]
fn an_error_inside_close_of_a_script_with_a_machine() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("an error inside close", &missing);
    }
    let code = "
        local vm <close> = require('vmoon').boot { memory = '32MiB' }
        local guard <close> = setmetatable({}, { __close = function()
          print(vm:succeed 'echo still here')
          error 'no way'
        end })
        error 'the first error'";
    let ended = run(&mut vmoon(["run", "-e", code]), DEADLINE);
    ended.expect_status(1).expect_stderr(&["no way"]);
}

/// A script that has everything open, in a folder of its own for temporary files.
const EVERYTHING_OPEN: &str = "
    local vmoon = require 'vmoon'
    local guard <close> = setmetatable({}, { __close = function() print 'closed' end })
    local vm <close> = vmoon.boot { memory = '32MiB' }
    local server <close> = vm:spawn 'echo-server 5000'
    vm:wait_port(5000)
    local stream <close> = vm:connect(5000)
    local listener <close> = vm:listen(6000)
    local forward <close> = vm:forward { port = 5000, unix = arg[1] .. '/forward.sock' }
    local snap <close> = vm:snapshot 'open'
    local task = vmoon.task.spawn(function() listener:accept() end)
    print 'ready'
    io.stdout:flush()
    while true do %BODY% end";

/// Starts it and waits until it says that it is ready.
fn everything_open(body: &str, folder: &Path) -> Running {
    let script = EVERYTHING_OPEN.replace("%BODY%", body);
    let mut command = vmoon(["run", "-e", &script]);
    command.arg(folder).env("TMPDIR", folder);
    let running = start(&mut command);
    let socket = folder.join("forward.sock");
    let started = Instant::now();
    while !socket.exists() && started.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The snapshot and the task come right after the socket.
    std::thread::sleep(Duration::from_millis(500));
    running
}

/// The processes in a process group, the one that led it included.
fn processes_of(group: i32) -> Vec<String> {
    std::fs::read_dir("/proc")
        .expect("/proc can be listed")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter(|stat| {
            let fields = stat.rsplit(')').next().unwrap_or_default();
            fields.split_whitespace().nth(2) == Some(&group.to_string())
        })
        .collect()
}

fn left_in(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder)
        .expect("the folder can be listed")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

#[test]
fn ctrl_c_closes_everything_and_leaves_nothing_behind() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("ctrl-c", &missing);
    }
    for body in ["vmoon.sleep(1)", "vm:exec 'sleep 60000'", "local x = 1"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let running = everything_open(body, folder.path());
        let group = running.id();
        let pressed = Instant::now();
        running.signal(libc::SIGINT);
        let ended = running.wait(DEADLINE);
        ended.expect_status(130);
        assert!(pressed.elapsed() < Duration::from_secs(5), "{body}\n{ended}");
        assert_eq!(ended.stdout, "ready\nclosed\n", "{body}\n{ended}");
        assert_eq!(processes_of(group), [""; 0], "processes left behind: {body}");
        assert_eq!(left_in(folder.path()), [""; 0], "files left behind: {body}");
    }
}

#[test]
fn a_timeout_leaves_nothing_behind() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("a timeout leaves nothing behind", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = EVERYTHING_OPEN.replace("%BODY%", "local x = 1");
    let mut command = vmoon(["run", "--timeout", "4s", "-e", &script]);
    let ended = run(command.arg(folder.path()).env("TMPDIR", folder.path()), DEADLINE);
    ended.expect_status(124);
    assert_eq!(ended.stdout, "ready\nclosed\n", "{ended}");
    assert_eq!(left_in(folder.path()), [""; 0], "files left behind");
}

#[test]
fn a_second_ctrl_c_exits_at_once() {
    let code = "
        local guard <close> = setmetatable({}, { __close = function() while true do end end })
        while true do end";
    let running = start(&mut vmoon(["run", "-e", code]));
    std::thread::sleep(Duration::from_millis(700));
    running.signal(libc::SIGINT);
    std::thread::sleep(Duration::from_millis(300));
    running.signal(libc::SIGINT);
    running.wait(Duration::from_secs(5)).expect_status(130);
}

#[test]
fn forwards_carry_data_between_host_sockets_and_the_guest() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("forwards", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unix = folder.path().join("echo.sock");
    let from_guest = folder.path().join("host.sock");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let code = "
        local vmoon = require 'vmoon'
        local vm <close> = vmoon.boot { memory = '32MiB' }
        local server <close> = vm:spawn 'echo-server 5000'
        vm:wait_port(5000)
        local one <close> = vm:forward { port = 5000, unix = arg[1] }
        local two <close> = vm:forward { port = 5000, tcp = arg[2] }
        local three <close> = vm:forward { port = 6000, unix = arg[3], from = 'guest' }
        io.stdout:write(vm:succeed 'connect 6000 from-the-guest')
        io.stdout:flush()
        vmoon.sleep(60)";
    let host = UnixListener::bind(&from_guest).expect("a socket can be bound");
    let mut command = vmoon(["run", "-e", code]);
    command.arg(&unix).arg(format!("127.0.0.1:{port}")).arg(&from_guest);
    let running = start(&mut command);

    let (mut stream, _) = host.accept().expect("the guest connects");
    let mut line = [0; 15];
    stream.read_exact(&mut line).expect("the guest's line");
    assert_eq!(&line, b"from-the-guest\n");
    stream.write_all(b"from the host\n").expect("an answer");
    drop(stream);

    let mut one = UnixStream::connect(&unix).expect("the forward listens");
    let mut two = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the forward listens");
    one.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    two.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    echo(&mut one);
    echo(&mut two);
    one.shutdown(std::net::Shutdown::Write).expect("half of the connection can be closed");
    assert_eq!(one.read(&mut [0; 16]).expect("the end"), 0);

    running.signal(libc::SIGINT);
    let ended = running.wait(DEADLINE);
    ended.expect_status(130);
    assert_eq!(ended.stdout, "from the host\n", "{ended}");
    assert!(!unix.exists(), "the forward's socket is left behind");
    assert!(from_guest.exists(), "the host's own socket was removed");
}

#[track_caller]
fn echo(stream: &mut (impl Read + Write)) {
    let data: Vec<u8> = (0..=255_u8).cycle().take(20_000).collect();
    stream.write_all(&data).expect("the data can be written");
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).expect("the echo can be read");
    assert!(back == data, "the echo differs");
}

#[test]
fn what_a_machine_prints_goes_nowhere_unless_asked_for() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("what a machine prints", &missing);
    }
    let code = "local vm <close> = require('vmoon').boot {} pcall(vm.exec, vm, 'panic')";
    let ended = run(&mut vmoon(["run", "-e", code]), DEADLINE);
    ended.expect_status(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""), "{ended}");
}

#[test]
fn an_error_tells_of_the_machine_and_its_last_console_line() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("the machine in an error", &missing);
    }
    let code = "local vm <close> = require('vmoon').boot { name = 'web-1' }\nvm:succeed 'panic'";
    let ended = run(&mut vmoon(["run", "-e", code]), DEADLINE);
    ended.expect_status(1).expect_stderr(&[
        "error[guest.panic]",
        "machine web-1",
        "last console line",
    ]);
}

#[test]
fn color_is_for_terminals_and_on_demand() {
    let plain = run(&mut vmoon(["run", "-e", "error 'x'"]), DEADLINE);
    assert!(!plain.stderr.contains('\x1b'), "{plain}");
    let colored = run(&mut vmoon(["--color", "always", "run", "-e", "error 'x'"]), DEADLINE);
    colored.expect_status(1);
    assert!(colored.stderr.contains('\x1b'), "{colored}");
}
