-- The words that describe tests: they note what is to be run, and run nothing.

local native, state = ...
local ipairs, type = ipairs, type

local HOOKS = { "before_all", "before_each", "after_each", "after_all" }

local function block(parent, name, options)
  local made = { parent = parent, name = name, options = options, children = {}, invariants = {} }
  for _, hook in ipairs(HOOKS) do made[hook] = {} end
  return made
end

state.root = block(nil, nil, {})
state.block = state.root

--- Refuses a word that stands where nothing can be described.
local function describing(word)
  if not state.block then
    native.misuse(("%s is called while a test runs"):format(word),
      "describe all tests first; test.subtest(name, fn) divides a test")
  end
  return state.block
end

--- The options and the function of `word(name, options?, fn)`.
local function parts(word, options, fn)
  if fn == nil and type(options) == "function" then options, fn = nil, options end
  return native.options(word, options), fn
end

local words = {}

function words.describe(name, options, fn)
  local parent = describing "describe"
  native.text("describe", 1, name)
  options, fn = parts("describe", options, fn)
  native.callback("describe", options and 3 or 2, fn)
  local inner = block(parent, name, options or {})
  parent.children[#parent.children + 1] = inner
  state.block = inner
  -- An error in here ends the file, so nobody sees a block that stays open.
  fn()
  state.block = parent
end

local function add(word, name, options, fn)
  local parent = describing(word)
  native.text(word, 1, name)
  options, fn = parts(word, options, fn)
  local test = { parent = parent, name = name, options = options or {}, line = native.line() }
  parent.children[#parent.children + 1] = test
  return test, fn
end

--- A test without a function is one that is still to be written.
function words.it(name, options, fn)
  local test, body = add("it", name, options, fn)
  if body == nil then
    test.pending = "not written yet"
  else
    native.callback("it", options and fn and 3 or 2, body)
    test.body = body
  end
end

--- Outside of tests: a test that is still to be written. Inside: ends the test as skipped.
function words.pending(reason, options, fn)
  if state.test then
    if reason ~= nil then native.text("pending", 1, reason) end
    native.skip(reason or "pending")
  end
  add("pending", reason, options, fn).pending = "pending"
end

for _, hook in ipairs(HOOKS) do
  words[hook] = function(fn)
    local hooks = describing(hook)[hook]
    native.callback(hook, 1, fn)
    hooks[#hooks + 1] = fn
  end
end

return words
