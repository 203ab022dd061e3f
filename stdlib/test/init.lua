-- The module `vmoon.test`, loaded when something is first asked of it. `native` holds what Rust
-- does for it; `load` calls another file of this folder.

local native, load = ...

-- What the files share. `block` is the block that is being described, nil once tests run;
-- `test` is the test that runs, nil while the file is being read.
local state = {}

local words = load("words", native, state)
local steps = load("steps", native, state)
local show = load("show")

local module = {
  describe = words.describe,
  it = words.it,
  pending = words.pending,
  before_all = words.before_all,
  before_each = words.before_each,
  after_each = words.after_each,
  after_all = words.after_all,
  fixture = load("fixture", native, state, steps),
  expect = load("expect", native, show),
  invariant = steps.invariant,
  subtest = steps.subtest,
}

return module, load("run", native, state, steps)
