//! Scripts that need no machine: the language, tasks, errors, and how runs end.

use std::time::{Duration, Instant};

use vmoon_core::guest::GuestImages;
use vmoon_core::vm::Host;
use vmoon_lua::{Config, Ending, Report, Runtime, Script, Signals};

fn config() -> Config {
    let host = Host::new(Vec::new(), GuestImages { micro: None, agent: &[] });
    Config {
        host,
        backend: None,
        timeout: Some(Duration::from_secs(20)),
        signals: None,
        tests: None,
    }
}

fn run_with(config: Config, code: &str) -> Ending {
    Runtime::new(config).unwrap().run(&Script::code(code, vec![b"one".to_vec()])).unwrap()
}

#[track_caller]
fn done(code: &str) {
    match run_with(config(), code) {
        Ending::Done => {}
        Ending::Raised(reports) => panic!("{}", reports[0]),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn raised(code: &str) -> Vec<Report> {
    match run_with(config(), code) {
        Ending::Raised(reports) => reports,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn picture(code: &str) -> String {
    let reports = raised(code);
    assert_eq!(reports.len(), 1, "{reports:#?}");
    reports[0].to_string()
}

#[test]
fn the_module_is_there_by_every_name() {
    done(
        "assert(require 'vmoon' == vmoon and require 'vmoon.task' == vmoon.task)
         assert(arg[1] == 'one' and ... == 'one' and arg[0] == '-e')",
    );
}

#[test]
fn bodies_of_modules_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("slow.lua", "require 'vmoon'.sleep '5ms' return { name = ... }");
    write("loop_a.lua", "return require 'loop_b'");
    write("loop_b.lua", "return require 'loop_a'");
    write("broken.lua", "local x = = 1");
    write("nothing.lua", "loads = (loads or 0) + 1");
    write(
        "main.lua",
        "local slow, path = require 'slow'
         assert(slow.name == 'slow' and require 'slow' == slow)
         assert(path:find 'slow.lua$', path)
         assert(require 'nothing' == true and require 'nothing' == true and loads == 1)
         local ok, err = pcall(require, 'loop_a')
         assert(not ok and err:find 'a loop of requires', err)
         local ok, err = pcall(require, 'broken')
         assert(not ok and err:find 'broken.lua:1:', err)
         local ok, err = pcall(require, 'no.such.module')
         assert(not ok and err:find 'no/such/module.lua', err)",
    );
    let script = Script::file(&folder.path().join("main.lua"), Vec::new()).unwrap();
    match Runtime::new(config()).unwrap().run(&script).unwrap() {
        Ending::Done => {}
        Ending::Raised(reports) => panic!("{}", reports[0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_syntax_error_in_a_module_is_shown_in_the_module() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.lua"), "local y = 1\nlocal x = = 1\n").unwrap();
    std::fs::write(folder.path().join("main.lua"), "require 'broken'").unwrap();
    let script = Script::file(&folder.path().join("main.lua"), Vec::new()).unwrap();
    let ending = Runtime::new(config()).unwrap().run(&script).unwrap();
    let Ending::Raised(reports) = ending else { panic!("{ending:?}") };
    let text = reports[0].to_string();
    assert!(text.contains("broken.lua:2") && text.contains("local x = = 1"), "{text}");
}

#[test]
fn coroutines_may_wait_and_yield() {
    done(
        "local vmoon = require 'vmoon'
         local f = coroutine.wrap(function(a)
           vmoon.sleep '2ms'
           local b = coroutine.yield(a + 1)
           vmoon.sleep '2ms'
           return b, nil, 'end'
         end)
         assert(f(1) == 2)
         local b, none, last = f 'b'
         assert(b == 'b' and none == nil and last == 'end')
         local co = coroutine.create(function() vmoon.sleep '1ms' error { code = 'mine' } end)
         local ok, err = coroutine.resume(co)
         assert(not ok and err.code == 'mine' and coroutine.status(co) == 'dead')
         local bad = coroutine.wrap(function() error('plain', 0) end)
         local ok, err = pcall(bad)
         assert(not ok and err:find 'plain$', err)",
    );
}

#[test]
fn waiting_works_in_pcall_for_and_close() {
    done(
        "local vmoon = require 'vmoon'
         local closed
         do
           local guard <close> = setmetatable({}, { __close = function()
             vmoon.sleep '1ms'
             closed = true
           end })
         end
         assert(closed)
         for n in function(_, n) vmoon.sleep '1ms' return n < 3 and n + 1 or nil end, nil, 0 do
           assert(n <= 3)
         end
         assert(pcall(vmoon.sleep, '1ms'))",
    );
}

#[test]
fn errors_of_vmoon_are_tables_and_errors_of_scripts_are_what_they_are() {
    done(
        "local vmoon = require 'vmoon'
         local ok, err = pcall(vmoon.sleep, 'soon')
         assert(not ok and err.code == 'vm.spec' and err.message and err.hint, tostring(err))
         assert(tostring(err):find('vm.spec', 1, true))
         assert(not err.traceback)
         local ok, err = pcall(vmoon.boot, {})
         assert(not ok and err.code == 'backend.unavailable', tostring(err))
         for _, value in ipairs { 'text', 42, { 1 }, true } do
           local ok, err = pcall(vmoon.task.all, { function() error(value, 0) end })
           assert(not ok and err == value)
         end",
    );
}

#[test]
fn tasks_run_side_by_side() {
    let start = Instant::now();
    done(
        "local vmoon = require 'vmoon'
         local list = {}
         for n = 1, 50 do list[n] = n end
         local squares = vmoon.task.map(list, function(n, index)
           assert(n == index)
           vmoon.sleep '100ms'
           return n * n
         end)
         assert(#squares == 50 and squares[50] == 2500)
         local a, b = vmoon.task.spawn(function(...) vmoon.sleep '1ms' return ... end, 1, nil, 3):join()
         assert(a == 1 and b == nil)
         assert(select('#', vmoon.task.spawn(function() return 1, nil, nil end):join()) == 3)
         assert(select('#', vmoon.timeout(1, function() return nil, nil end)) == 2)
         assert(#vmoon.task.all {} == 0)",
    );
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn the_first_error_ends_the_siblings_and_their_closes_run() {
    done(
        "local vmoon = require 'vmoon'
         local closed, reached = 0, false
         local guard = { __close = function() closed = closed + 1 end }
         local ok, err = pcall(vmoon.task.all, {
           function() local g <close> = setmetatable({}, guard) vmoon.sleep(60) reached = true end,
           function() local g <close> = setmetatable({}, guard) vmoon.sleep '5ms' error 'first' end,
         })
         assert(not ok and err:find 'first' and closed == 2 and not reached)",
    );
}

#[test]
fn cancelling_runs_closes_in_nested_coroutines_too() {
    done(
        "local vmoon = require 'vmoon'
         local order = {}
         local function guard(name)
           return setmetatable({}, { __close = function() order[#order + 1] = name end })
         end
         local task = vmoon.task.spawn(function()
           local outer <close> = guard 'outer'
           coroutine.wrap(function()
             local inner <close> = guard 'inner'
             vmoon.sleep(60)
           end)()
         end)
         vmoon.sleep '5ms'
         task:cancel()
         assert(table.concat(order, ' ') == 'inner outer', table.concat(order, ' '))
         local ok, err = pcall(task.join, task)
         assert(not ok and err.code == 'task.cancelled')
         local own
         own = vmoon.task.spawn(function() vmoon.sleep '1ms' own:cancel() error 'not reached' end)
         local ok, err = pcall(own.join, own)
         assert(not ok and err.code == 'task.cancelled', tostring(err))",
    );
}

#[test]
fn timeouts_end_functions_and_busy_ones_wait_for_the_script() {
    done(
        "local vmoon = require 'vmoon'
         local ok, err = pcall(vmoon.timeout, '20ms', vmoon.sleep, 60)
         assert(not ok and err.code == 'vm.timeout' and err.timeout == 0.02, tostring(err))",
    );
}

#[test]
fn unknown_names_suggest_the_known_ones() {
    let text = picture("local t = vmoon.task.spawn(print)\nt:jion()");
    assert!(text.contains("no method or field 'jion' on task; did you mean 'join'?"), "{text}");
    assert!(text.contains("2 │ t:jion()\n  │   ^^^^"), "{text}");
    done(
        "local t = vmoon.task.spawn(function() end)
         local ok, err = pcall(function() t.x = 1 end)
         assert(not ok and err.message:find \"'x' of task cannot be set\", tostring(err))
         local ok, err = pcall(t.join)
         assert(not ok and err.message:find 'task:join was called without its task', tostring(err))
         t:join()",
    );
}

#[test]
fn an_unknown_option_is_underlined_where_it_is_written() {
    let text =
        picture("local vmoon = require 'vmoon'\nvmoon.boot {\n  cpus = 1,\n  memroy = 2,\n}");
    assert_eq!(
        text,
        "\
error[vm.spec]: unknown option 'memroy' for vmoon.boot; did you mean 'memory'?
  ┌ (command line):4
4 │   memroy = 2,
  │   ^^^^^^
  = help: valid options: name, backend, guest, kernel, initrd, cmdline, cpus, memory, root, disks, shares, net, vsock, balloon, entropy, rosetta, agent, ready, timeout"
    );
}

#[test]
fn the_picture_of_a_plain_error_has_the_users_frames_only() {
    let text = picture(
        "local function inner()\n  error 'what a pity'\nend\n\
         local function outer() inner() end\nouter()",
    );
    assert_eq!(
        text,
        "\
error: what a pity
  ┌ (command line):2
2 │   error 'what a pity'
  │   ^^^^^
  = called from (command line):4 in function 'outer'
  = called from (command line):5 in the main chunk"
    );
}

#[test]
fn an_error_raised_again_shows_where_it_came_from() {
    let text = picture("local ok, err = pcall(vmoon.sleep, 'soon')\nlocal x = 1\nerror(err)");
    assert!(text.contains("(command line):1"), "{text}");
    let text = picture(
        "local task = vmoon.task.spawn(function()\n  error 'in the task'\nend)\n\ntask:join()",
    );
    assert!(text.contains("2 │   error 'in the task'"), "{text}");
}

#[test]
fn errors_of_closes_are_shown_with_the_error_that_they_hid() {
    let reports = raised(
        "local g <close> = setmetatable({}, { __close = function(_, e)\n\
         assert(e:find 'first')\nerror 'second' end })\nerror 'first'",
    );
    assert_eq!(reports.len(), 2, "{reports:#?}");
    assert_eq!(reports[0].message, "first");
    assert_eq!(reports[1].message, "second");
    assert!(reports[1].to_string().contains("<close>"));
    let reports =
        raised("local g <close> = setmetatable({}, { __close = function() error 'alone' end })");
    assert_eq!((reports.len(), reports[0].message.as_str()), (1, "alone"));
}

#[test]
fn values_of_every_kind_are_shown() {
    for (code, expected) in [
        ("error { code = 'my.own', message = 'own', hint = 'do it' }", "error[my.own]: own"),
        ("error(setmetatable({}, { __tostring = function() return 'shown' end }))", "shown"),
        ("error(setmetatable({}, { __tostring = function() error 'no' end }))", "a table"),
        ("error(42)", "error: 42"),
        ("error()", "error: nil"),
        ("local x = nil; x.y = 1", "attempt to index a nil value (local 'x')"),
        ("local function f() return f() + 1 end f()", "stack overflow"),
    ] {
        let text = picture(code);
        assert!(text.contains(expected), "{code}\n{text}");
    }
}

#[test]
fn a_task_that_fails_unseen_fails_the_script() {
    let text = picture("vmoon.task.spawn(function() error 'unseen' end) vmoon.sleep '5ms'");
    assert!(text.contains("unseen") && text.contains("nobody joined"), "{text}");
    done("local t = vmoon.task.spawn(function() error 'seen' end) pcall(t.join, t)");
}

#[test]
fn tasks_that_are_left_are_cancelled_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("closed");
    done(&format!(
        "vmoon.task.spawn(function()
           local g <close> = setmetatable({{}}, {{ __close = function()
             io.open('{}', 'w'):close()
           end }})
           vmoon.sleep(60)
         end)
         vmoon.sleep '5ms'",
        path.display()
    ));
    assert!(path.exists());
}

#[test]
fn exit_ends_the_script_and_runs_its_closes() {
    for (code, status) in [
        ("os.exit(7)", 7),
        ("os.exit(true)", 0),
        ("os.exit(false, true)", 1),
        ("os.exit()", 0),
        ("coroutine.wrap(function() os.exit(3) end)()", 3),
        ("vmoon.task.spawn(function() os.exit(4) end) vmoon.sleep(60)", 4),
        ("table.sort({ 1, 2, 3 }, function() os.exit(5) end) while true do end", 5),
    ] {
        let ending = run_with(config(), code);
        assert!(matches!(ending, Ending::Exited(found) if found == status), "{code}: {ending:?}");
    }
}

#[test]
fn a_deadline_ends_what_waits_and_what_spins() {
    for code in [
        "vmoon.sleep(60)",
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do pcall(vmoon.sleep, 100) end",
        "local co = coroutine.wrap(function() while true do end end) co()",
        "vmoon.task.spawn(function() while true do end end):join()",
    ] {
        let start = Instant::now();
        let limit = Some(Duration::from_millis(100));
        let ending = run_with(Config { timeout: limit, ..config() }, code);
        let Ending::TimedOut(report) = ending else { panic!("{code}: {ending:?}") };
        assert!(report.message.contains("100ms"));
        assert!(start.elapsed() < Duration::from_secs(5), "{code}");
    }
}

#[test]
fn a_flag_that_a_signal_sets_ends_a_busy_script() {
    let signals = Signals::default();
    signals.interrupted.store(true, std::sync::atomic::Ordering::Relaxed);
    let ending = run_with(Config { signals: Some(signals), ..config() }, "while true do end");
    assert!(matches!(ending, Ending::Interrupted), "{ending:?}");
}
