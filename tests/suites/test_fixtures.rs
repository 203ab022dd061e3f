//! `vmoon test`: from what state tests start, and what they consist of.

use vmoon_tests::suite::{Suite, expect_figures, expect_lines, machines};

#[test]
fn every_test_starts_from_the_snapshot() {
    if !machines("fixtures") {
        return;
    }
    let code = "
        local setups = 0
        local machine = test.fixture { memory = '64MiB', setup = function(vm)
          setups = setups + 1
          vm:succeed 'put a clean'
        end }
        local function clean() expect.equal('clean\\n', machine():succeed 'get a') end
        it('wrecks', function() machine():succeed 'put a wrecked' end)
        it('is clean', clean)
        it('panics', function() expect.error(function() machine():succeed 'panic' end, 'guest') end)
        it('is clean after a panic', clean)
        it('takes snapshots', function()
          local vm = machine()
          for _ = 1, 3 do vm:snapshot() end
        end)
        it('has none of them', function()
          clean()
          expect.equal(1, #machine():snapshots())
        end)
        it('closes', function() machine():close() end)
        it('is clean after a close', clean)
        it('is clean after a close again', clean)
        it('asks from tasks', function()
          vmoon.task.all { clean, clean, function() expect.equal(machine().id, machine().id) end }
        end)
        describe('with more in it', function()
          test.before_all(function() machine():succeed 'put b more' end)
          it('has it', function()
            expect.equal('more\\n', machine():succeed 'get b')
            machine():succeed('put b less', 'put a less')
          end)
          it('has it again', function() clean() expect.equal('more\\n', machine():succeed 'get b') end)
        end)
        it('has no more in it', function() clean() expect.equal(1, machine():exec('get b').code) end)
        local attempts = 0
        it('is tried from the snapshot', { retries = 1 }, function()
          clean()
          machine():succeed 'put a tried'
          attempts = attempts + 1
          expect.equal(2, attempts)
        end)
        it('was set up once', function() expect.equal(1, setups) end)";
    let suite = Suite::new(&[("fixture_test.lua", code)]);
    let ended = suite.run(&[]);
    ended.expect_status(0);
    expect_figures(&ended, "15 passed, 0 failed, 0 skipped");
}

#[test]
fn files_share_the_setup_of_a_fixture() {
    if !machines("shared fixtures") {
        return;
    }
    // Each setup leaves a file behind: one for all files, whatever their number.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let code = format!(
        "local folder = '{}'
         local function make(value)
           return test.fixture {{ memory = '64MiB', setup = function(vm)
             vm:succeed('put v ' .. value)
             assert(io.open(os.tmpname():gsub('.*/', folder .. '/' .. value .. '-'), 'w')):close()
           end }}
         end
         local one, two = make 'one', make 'two'
         it('has its own', function()
           expect.equal('one\\n', one():succeed 'get v')
           expect.equal('two\\n', two():succeed 'get v')
           one():succeed 'put v wrecked'
         end)
         it('has it again', function() expect.equal('one\\n', one():succeed 'get v') end)",
        folder.path().display()
    );
    let names = ["a_test.lua", "b_test.lua", "c_test.lua", "d_test.lua"];
    // The same setup is the same wherever in its file it stands.
    let moved = format!("\n\n{code}");
    let files: Vec<(&str, &str)> = names
        .iter()
        .zip([&code, &moved].into_iter().cycle())
        .map(|(name, code)| (*name, code.as_str()))
        .collect();
    let suite = Suite::new(&files);
    for jobs in ["1", "3"] {
        let ended = suite.run(&["--jobs", jobs]);
        ended.expect_status(0);
        expect_figures(&ended, "8 passed, 0 failed, 0 skipped");
        let setups: Vec<_> =
            std::fs::read_dir(folder.path()).expect("it can be read").flatten().collect();
        assert_eq!(setups.len(), 2, "{setups:?}\n{ended}");
        for setup in setups {
            std::fs::remove_file(setup.path()).expect("it can be removed");
        }
    }
}

#[test]
fn subtests_and_invariants() {
    let code = "
        local checked, ok = 0, true
        test.invariant('all is well', function() checked = checked + 1 assert(ok, 'it is not') end)
        it('goes on after a part', function()
          test.subtest('good', function() end)
          expect.falsy(test.subtest('bad', function()
            test.subtest('deep', function() error 'deep down' end)
          end) == nil)
          test.subtest('after', function() end)
        end)
        it('counts its steps', function()
          local before = checked
          test.subtest('one', function() end)
          test.subtest('two', function() end)
          expect.equal(before + 2, checked)
        end)
        it('breaks it', function() ok = false end)
        it('begins broken', function() end)";
    let suite = Suite::new(&[("parts_test.lua", code)]);
    let ended = suite.run(&[]);
    ended.expect_status(1);
    expect_figures(&ended, "1 passed, 3 failed, 0 skipped");
    expect_lines(
        &ended,
        &[
            "✗ bad",
            "✗ deep",
            "✓ after",
            "in the subtest bad > deep",
            "all is well was checked before the end of the test",
            "all is well was checked before the test",
        ],
    );
}
