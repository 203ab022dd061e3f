-- What happens within a test: subtests, and invariants that are checked before every step.
--
-- The steps of a test are its beginning, each use of a fixture, each subtest, and its end.

local native, state = ...
local ipairs = ipairs

local steps = {}

--- Declares what must hold at every step of the tests of this block and of those within it.
function steps.invariant(name, fn)
  if fn == nil then name, fn = nil, name end
  if not state.block then
    native.misuse("invariant is called while a test runs", "declare it beside the tests, in their block")
  end
  if name ~= nil then native.text("invariant", 1, name) end
  native.callback("invariant", name and 2 or 1, fn)
  local invariants = state.block.invariants
  invariants[#invariants + 1] = { name = name or "an invariant", check = fn }
end

--- Checks every invariant of the test that runs. One that uses a fixture does not check itself.
function steps.check(step)
  if not state.test or state.checking then return end
  state.checking = true
  for _, block in ipairs(state.test.chain) do
    for _, invariant in ipairs(block.invariants) do
      -- What an error's report says beside the error.
      native.note(("%s was checked before %s"):format(invariant.name, step))
      invariant.check()
    end
  end
  native.note(nil)
  state.checking = false
end

--- A part of a test with a result of its own. One that fails fails the test, which goes on.
function steps.subtest(name, fn)
  native.text("subtest", 1, name)
  native.callback("subtest", 2, fn)
  local siblings = state.subtests
  if not siblings then
    native.misuse("subtest is called outside of a test", "it divides a test: call it in the function of an `it`")
  end
  steps.check(("the subtest %q"):format(name))
  local own = { name = name, subtests = {}, started = native.now() }
  siblings[#siblings + 1] = own
  state.subtests = own.subtests
  own.failure, own.skipped = native.attempt(fn)
  state.subtests = siblings
  own.ended = native.now()
  return own.failure == nil and own.skipped == nil
end

return steps
