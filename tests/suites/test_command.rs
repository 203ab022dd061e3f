//! `vmoon test`: what is run, in what order, and how it ends.

use std::time::{Duration, Instant};

use vmoon_tests::process::{run, start, vmoon};
use vmoon_tests::suite::{DEADLINE, Suite, expect_figures, expect_lines, machines};

#[test]
fn the_examples_pass() {
    if !machines("examples/tests") {
        return;
    }
    for arguments in [&["test", "examples/tests"][..], &["test", "examples/tests", "--jobs", "2"]] {
        let ended = run(&mut vmoon(arguments), DEADLINE);
        ended.expect_status(0);
        expect_figures(&ended, "10 passed, 0 failed, 1 skipped");
    }
    let ended = run(&mut vmoon(["run", "examples/tests/store_test.lua"]), DEADLINE);
    ended.expect_status(0);
    expect_figures(&ended, "6 passed, 0 failed, 1 skipped");
}

#[test]
fn exit_statuses_and_the_last_line() {
    let suite = Suite::new(&[
        ("good_test.lua", "it('passes', function() end) test.pending 'later'"),
        ("bad_spec.lua", "it('fails', function() expect.equal(1, 2) end)"),
        ("sub/good_test.lua", "it('passes too', function() end)"),
        ("other.lua", "error 'this is no test'"),
        ("broken/broken_test.lua", "local x = = 1"),
        ("raises/raises_test.lua", "it('is never run', function() end) error 'while it is read'"),
        ("exits/exits_test.lua", "it('exits', function() os.exit(0) end)"),
        ("empty/readme.txt", ""),
        ("none/none_test.lua", "-- no tests yet"),
    ]);
    for (arguments, status, figures) in [
        (&["good_test.lua"][..], 0, "1 passed, 0 failed, 1 skipped"),
        (&["good_test.lua", "sub", "./good_test.lua"], 0, "2 passed, 0 failed, 1 skipped"),
        (&["bad_spec.lua"], 1, "0 passed, 1 failed, 0 skipped"),
        (&[], 1, "2 passed, 4 failed, 1 skipped"),
        (&["broken"], 1, "0 passed, 1 failed, 0 skipped"),
        (&["raises"], 1, "0 passed, 1 failed, 0 skipped"),
        (&["exits"], 1, "0 passed, 1 failed, 0 skipped"),
    ] {
        let ended = suite.run(arguments);
        ended.expect_status(status);
        expect_figures(&ended, figures);
    }
    for arguments in [&["empty"][..], &["none"]] {
        suite.run(arguments).expect_status(2).expect_stderr(&["no tests found in"]);
    }
    suite.run(&["nowhere"]).expect_status(2).expect_stderr(&["nowhere"]);
    suite
        .run(&["--filter", "nothing like it", "good_test.lua"])
        .expect_status(2)
        .expect_stderr(&["none of the 2 tests", "--list"]);
    suite.run(&["--shard", "3/2"]).expect_status(2).expect_stderr(&["2/3"]);
    suite.run(&["--no-such-flag"]).expect_status(2).expect_stderr(&["usage"]);
}

#[test]
fn a_run_without_any_backend_has_its_own_status() {
    let suite = Suite::new(&[(
        "backend_test.lua",
        "local machine = test.fixture { backend = 'vz' }
         it('needs vz', function() machine() end)
         it('needs it too', function() machine() end)",
    )]);
    suite.run(&[]).expect_status(3);
}

#[test]
fn a_failure_tells_all_that_helps() {
    let suite = Suite::new(&[(
        "words_test.lua",
        "describe('words', function()
           it('differ', function()
             print('printed', 1)
             expect.same({ a = 1, list = { 'x', 'a long text so that it takes several lines' } },
               { a = 2, list = { 'x', 'a long text so that it takes several lines' } })
           end)
           it('raise', function() error 'what a pity' end)
         end)",
    )]);
    let ended = suite.run(&[]);
    ended.expect_status(1);
    expect_lines(
        &ended,
        &[
            "words > differ",
            "words_test.lua:7",
            "expect.same(",
            "^^^^",
            "-   a = 1,",
            "+   a = 2,",
            "│ printed\t1",
            "vmoon test words_test.lua --filter 'words differ'",
            "what a pity",
        ],
    );
    assert!(!ended.stdout.contains("[vmoon"), "frames of vmoon's own are shown\n{ended}");
}

#[test]
fn expectations_hold_and_fail() {
    let code = "
        local function fails(fn, words)
          local err = expect.error(fn, 'test.failed')
          expect.contains(words, err.message)
        end
        it('equal', function()
          expect.equal(1, 1.0) expect.equal('a', 'a')
          fails(function() expect.equal(1, '1') end, 'a number was expected, and a string')
          fails(function() expect.equal({}, {}) end, 'expect.same')
          fails(function() expect.equal(1, 2, 'the size') end, 'the size: ')
        end)
        it('same', function()
          local loop, other = {}, {}
          loop.own, other.own = loop, other
          expect.same(loop, other)
          expect.same({ 1, { x = 0 / 0 } }, { 1, { x = 0 / 0 } })
          fails(function() expect.same({ 1 }, { 1, 2 }) end, 'differ')
          fails(function() expect.same({ 1, 2 }, { 1 }) end, 'differ')
          fails(function() expect.same({ a = {} }, { a = 1 }) end, 'differ')
        end)
        it('truthy and falsy', function()
          expect.truthy(0) expect.falsy(nil) expect.falsy(false)
          fails(function() expect.truthy(nil) end, 'expected')
          fails(function() expect.falsy('') end, 'expected')
        end)
        it('text', function()
          expect.equal('12', expect.matches('(%d+) MiB', 'about 12 MiB'))
          expect.contains('a.b', 'is a.b here')
          expect.contains({ 2 }, { { 1 }, { 2 } })
          fails(function() expect.matches('^b', 'ab') end, 'match')
          fails(function() expect.contains('a.b', 'acb') end, 'contain')
          fails(function() expect.contains('whole', '') end, 'contain')
          fails(function() expect.contains(3, { 1, 2 }) end, 'item')
          fails(function() expect.contains('x', nil) end, 'nil')
        end)
        it('errors', function()
          expect.equal('vm.spec', expect.error(function() vmoon.boot { cpuz = 1 } end, 'vm.spec').code)
          expect.error(function() error 'in words' end, 'in words')
          fails(function() expect.error(function() end) end, 'nothing was raised')
          fails(function() expect.error(function() error 'x' end, 'y') end, 'another')
        end)
        it('near', function()
          expect.near(1, 1.05, 0.1) expect.near(1, 1)
          fails(function() expect.near(1, 1.2, 0.1) end, 'too far')
          fails(function() expect.near(1, nil) end, 'too far')
        end)
        it('eventually', function()
          local n = 0
          expect.equal(3, expect.eventually(function() n = n + 1 if n < 3 then error 'early' end return n end))
          fails(function() expect.eventually(function() error 'never' end, { timeout = '80ms' }) end, '80')
        end)
        it('misuse', function()
          expect.error(function() expect.matches(1, 'x') end, 'vm.spec')
          expect.error(function() expect.eventually(function() end, { timout = 1 }) end, 'timout')
          expect.error(function() test.describe('x', function() end) end, 'while a test runs')
          expect.error(function() test.subtest('x') end, 'a function')
        end)";
    let suite = Suite::new(&[("expect_test.lua", &code.replace("'80'", "'0.08 s'"))]);
    let ended = suite.run(&[]);
    ended.expect_status(0);
    expect_figures(&ended, "8 passed, 0 failed, 0 skipped");
}

#[test]
fn hooks_run_in_order_and_a_failing_one_fails_its_test() {
    let code = "
        local log = {}
        local function note(word) return function() log[#log + 1] = word end end
        describe('outer', function()
          test.before_all(note 'A') test.before_each(note 'b') test.after_each(note 'y')
          test.after_all(note 'Z')
          it('one', note '1')
          describe('inner', function()
            test.before_all(note 'C') test.before_each(note 'd') test.after_each(note 'w')
            test.after_all(note 'X')
            it('two', function() note '2' () error 'two' end)
          end)
          it('three', note '3')
        end)
        describe('broken', function()
          describe('before_all', function()
            test.before_all(function() error 'no' end)
            it('fails', note 'not run') it('fails too', note 'not run')
          end)
          describe('before_each', function()
            test.before_each(function() error 'no' end)
            it('fails', note 'not run')
          end)
          describe('after_each', function()
            test.after_each(function() error 'no' end)
            it('fails', note 'run')
          end)
          describe('after_all', function()
            test.after_all(function() error 'no' end)
            it('passes', note 'run')
          end)
          describe('skipped', function()
            test.before_all(note 'not run')
            test.pending 'later'
          end)
        end)
        it('sees all of it', function()
          expect.equal('A b 1 y C b d 2 w y X b 3 y Z run run', table.concat(log, ' '))
        end)";
    let suite = Suite::new(&[("hooks_test.lua", code)]);
    let ended = suite.run(&[]);
    ended.expect_status(1);
    expect_figures(&ended, "4 passed, 6 failed, 1 skipped");
    expect_lines(&ended, &["✓ sees all of it", "in before_all", "in after_each", "✗ after_all"]);
}

#[test]
fn tests_are_selected_shuffled_and_shared_out() {
    let cases = "for n = 1, 40 do it('case ' .. n, { tags = n % 2 == 0 and 'even' or 'odd' }, function() end) end
        it('is slow #slow', function() end)";
    let suite = Suite::new(&[
        ("a_test.lua", cases),
        ("b_test.lua", "describe('b', { tags = 'odd' }, function() it('one', function() end) end)"),
    ]);
    let list = |arguments: &[&str]| {
        let ended = suite.run(arguments);
        ended.expect_status(0);
        ended.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = list(&["--list"]);
    assert_eq!((all.len(), all[0].as_str()), (42, "a_test.lua:4: case 1"));
    assert_eq!(all[41], "b_test.lua:4: b one");
    assert_eq!(list(&["--list", "--tag", "even"]).len(), 20);
    assert_eq!(list(&["--list", "--tag", "odd"]).len(), 21);
    assert_eq!(list(&["--list", "--tag", "slow"]).len(), 1);
    assert_eq!(list(&["--list", "--filter", "case 4"]).len(), 2);
    assert_eq!(list(&["--list", "--filter", "case 4", "--tag", "even"]).len(), 2);
    let shuffled = list(&["--list", "--seed", "5"]);
    assert_ne!(shuffled, all);
    assert_eq!(shuffled, list(&["--list", "--seed", "5"]));
    assert_ne!(shuffled, list(&["--list", "--seed", "6"]));
    let sorted = |mut list: Vec<String>| {
        list.sort_unstable();
        list
    };
    assert_eq!(sorted(shuffled), sorted(all.clone()));
    let mut parts: Vec<String> =
        (1..=3).flat_map(|part| list(&["--list", "--shard", &format!("{part}/3")])).collect();
    parts = sorted(parts);
    assert_eq!(parts, sorted(all));
    let ended = suite.run(&["--seed", "77"]);
    expect_lines(&ended, &["--seed 77"]);
}

#[test]
fn retries_tell_flaky_tests_and_fail_fast_stops() {
    let code = "
        local tries = 0
        it('passes at last', { retries = 2 }, function() tries = tries + 1 expect.equal(3, tries) end)
        it('never passes', function() error 'never' end)
        it('is late', { timeout = '50ms' }, function() vmoon.sleep(60) end)
        it('comes last', function() end)";
    let suite = Suite::new(&[("flaky_test.lua", code)]);
    let ended = suite.run(&["--retries", "1"]);
    ended.expect_status(1);
    expect_figures(&ended, "2 passed, 2 failed, 0 skipped");
    expect_lines(
        &ended,
        &[
            "passes at last flaky",
            "attempt 2 of 3",
            "1 of the passed are flaky",
            "did not end within 50ms",
        ],
    );
    let ended = suite.run(&["--fail-fast"]);
    ended.expect_status(1);
    expect_figures(&ended, "1 passed, 1 failed, 0 skipped");
    expect_lines(&ended, &["stopped after the first failure; 2 selected tests did not end"]);
}

#[test]
fn the_deadline_and_signals_end_a_run() {
    let code = "it('passes', function() end)
        it('takes long', function() vmoon.sleep(600) end)
        it('is never begun', function() end)";
    let suite = Suite::new(&[("long_test.lua", code)]);
    let ended = suite.run(&["--timeout", "300ms"]);
    ended.expect_status(124);
    expect_figures(&ended, "1 passed, 1 failed, 0 skipped");
    expect_lines(&ended, &["deadline"]);
    let running = start(vmoon(["test", "--jobs", "2"]).current_dir(suite.path()));
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    running.signal(libc::SIGINT);
    let ended = running.wait(DEADLINE);
    ended.expect_status(130);
    assert!(begun.elapsed() < Duration::from_mins(1), "{ended}");
    expect_lines(&ended, &["interrupted", "1 passed, 0 failed, 0 skipped"]);
}

#[test]
fn a_script_with_tests_runs_them_when_it_has_ended() {
    let suite =
        Suite::new(&[("script.lua", "it('fails', function() error 'x' end) print 'the script'")]);
    let ended = run(vmoon(["run", "script.lua"]).current_dir(suite.path()), DEADLINE);
    ended.expect_status(1);
    assert!(ended.stdout.starts_with("the script\n"), "{ended}");
    expect_figures(&ended, "0 passed, 1 failed, 0 skipped");
}
