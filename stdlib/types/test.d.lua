---@meta vmoon.test

---Tests with machines. `vmoon test` finds them in `*_test.lua` and `*_spec.lua`; a script with tests
---that `vmoon run` runs runs them when it has ended.
---@class vmoon.test
---@field expect vmoon.test.expect
local test = {}

---The options of a test, or of all tests of a block.
---@class vmoon.test.Options
---@field timeout? vmoon.Duration how long the function of a test may take; no limit by default
---@field retries? integer how often a failed test is tried again, each time from the snapshot
---@field tags? string|string[] what `--tag` selects by; a `#word` in a name is a tag too
---@field skip_unless? string|string[] capabilities of the backend without which the test is skipped

---What a fixture's machine is: a spec, and how it is set up.
---@class vmoon.test.FixtureOptions: vmoon.Spec
---@field setup? fun(vm: vmoon.Vm) runs once, before the snapshot
---@field deterministic? boolean restores give the guest neither fresh entropy nor the time

---Describes a block of tests.
---@param name string
---@param options? vmoon.test.Options
---@param fn fun()
---@overload fun(name: string, fn: fun())
function test.describe(name, options, fn) end

---Describes a test. Without a function, it is one that is still to be written.
---@param name string
---@param options? vmoon.test.Options
---@param fn? fun()
---@overload fun(name: string, fn?: fun())
function test.it(name, options, fn) end

---Outside of a test: a test that is skipped. Inside: ends the test as skipped, for this reason.
---@param name_or_reason? string
---@param options? vmoon.test.Options
---@param fn? fun()
---@overload fun(name: string, fn?: fun())
function test.pending(name_or_reason, options, fn) end

---Runs before the first test of the block. What it does to a fixture's machine stays, for all tests
---of the block.
---@param fn fun()
function test.before_all(fn) end

---Runs before each test of the block.
---@param fn fun()
function test.before_each(fn) end

---Runs after each test of the block, failed ones too.
---@param fn fun()
function test.after_each(fn) end

---Runs after the last test of the block.
---@param fn fun()
function test.after_all(fn) end

---A machine that is booted and set up once, when it is first asked for, and snapshotted. The function
---that it returns gives the machine in tests and hooks; every test finds it as it was at the snapshot.
---Files that are run together and describe the same fixture share the boot and the setup.
---@param options? vmoon.test.FixtureOptions
---@return fun(): vmoon.Vm
function test.fixture(options) end

---What must hold at every step of each test of the block: when the test begins, each time that a
---fixture gives its machine, before each subtest, and at the end.
---@param name string
---@param fn fun()
---@overload fun(fn: fun())
function test.invariant(name, fn) end

---A part of a test with a result of its own. If it fails the test fails, but goes on after it.
---@param name string
---@param fn fun()
---@return boolean passed
function test.subtest(name, fn) end

---What is expected comes first, what was observed second; a last argument says what it is about.
---@class vmoon.test.expect
local expect = {}

---The same value; for tables, the same table.
---@generic T
---@param expected any
---@param observed T
---@param about? string
---@return T observed
function expect.equal(expected, observed, about) end

---The same content, however deep. A failure shows the lines that differ.
---@generic T
---@param expected any
---@param observed T
---@param about? string
---@return T observed
function expect.same(expected, observed, about) end

---Neither nil nor false.
---@generic T
---@param observed T
---@param about? string
---@return T observed
function expect.truthy(observed, about) end

---Nil or false.
---@param observed any
---@param about? string
function expect.falsy(observed, about) end

---Text that a Lua pattern matches; returns what the pattern captures, or the match.
---@param pattern string
---@param observed string
---@param about? string
---@return string ...
function expect.matches(pattern, observed, about) end

---Text that holds another, as it is written, or a table with an item of this content.
---@generic T
---@param part any
---@param observed T
---@param about? string
---@return T observed
function expect.contains(part, observed, about) end

---A function that raises; with a code, an error of that code or with that text in its message.
---@param fn fun()
---@param code? vmoon.Code|string
---@param about? string
---@return any error
function expect.error(fn, code, about) end

---A number at most `tolerance` away; by default a millionth of the expected one.
---@param expected number
---@param observed number
---@param tolerance? number
---@param about? string
---@return number observed
function expect.near(expected, observed, tolerance, about) end

---Calls the function until it returns something true without raising; for 5 s by default.
---@generic T
---@param fn fun(): T
---@param options? { timeout: vmoon.Duration?, interval: vmoon.Duration? }
---@param about? string
---@return T result
function expect.eventually(fn, options, about) end

return test
