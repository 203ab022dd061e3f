-- Runs what was described: first a plan of what is selected, then one test after the other.

local native, state, steps = ...
local ipairs, math, table = ipairs, math, table

local function extended(list, item)
  local longer = { table.unpack(list) }
  longer[#longer + 1] = item
  return longer
end

local function united(left, right)
  local all = {}
  for _, list in ipairs { left or {}, right or {} } do
    for _, item in ipairs(list) do all[#all + 1] = item end
  end
  return all
end

--- The options of a test or a block within one that has `outer`.
local function inherited(outer, own)
  return {
    timeout = own.timeout or outer.timeout,
    retries = own.retries or outer.retries,
    tags = united(outer.tags, own.tags),
    skip_unless = united(outer.skip_unless, own.skip_unless),
  }
end

local function shuffle(items)
  for index = #items, 2, -1 do
    local other = math.random(index)
    items[index], items[other] = items[other], items[index]
  end
end

--- Gives a block its `items`: what is to be run of it, in order. `active` is whether any of it is
--- more than a note that something is skipped.
local function plan(block, path, chain, options)
  block.items, block.active = {}, false
  chain = extended(chain, block)
  -- Before anything is selected: what is run of a file keeps its order.
  local children = table.move(block.children, 1, #block.children, 1, {})
  if native.seed then shuffle(children) end
  for _, child in ipairs(children) do
    local path, options = extended(path, child.name), inherited(options, child.options)
    if child.children then
      plan(child, path, chain, options)
      child.selected = #child.items > 0
    else
      child.chain, child.options = chain, options
      child.pending = child.pending or native.lacking(options.skip_unless)
      child.active = not child.pending
      child.id = native.select(path, child.line, options.tags)
      child.selected = child.id ~= nil
    end
    if child.selected then
      block.items[#block.items + 1] = child
      block.active = block.active or child.active
    end
  end
end

local function begin_life()
  state.life = (state.life or 0) + 1
  state.checking = false
  native.begin_life()
end
--- Runs hooks in order; the first failure, or the reason why one skipped.
local function run_hooks(hooks, phase, failures)
  for _, hook in ipairs(hooks) do
    local failure, skipped = native.attempt(hook, nil, phase)
    if failure then failures[#failures + 1] = failure end
    if failure or skipped then return false, skipped end
  end
  return true
end

local function body(test)
  return function()
    steps.check "the test"
    test.body()
    steps.check "the end of the test"
  end
end

--- One attempt at a test, with its hooks.
local function try(test, result, last)
  begin_life()
  state.test, state.subtests = test, {}
  local failures, passed, skipped = {}, true, nil
  for _, block in ipairs(test.chain) do
    if passed then passed, skipped = run_hooks(block.before_each, "before_each", failures) end
  end
  if passed then
    local failure, reason = native.attempt(body(test), test.options.timeout, "test")
    if failure then failures[#failures + 1] = failure end
    skipped = reason
  end
  local subtests = state.subtests
  result.tries[#result.tries + 1] = { failures = failures, subtests = subtests }
  if last and (#failures > 0 or native.any_failed(subtests)) then
    -- While the machines are as they failed: hooks and the next test change them.
    native.keep(test.id, failures, subtests)
    if native.talk then
      local began = native.now()
      native.talk(test.id, result)
      -- Looking around is no part of the test.
      result.held = native.now() - began
    end
  end
  for index = #test.chain, 1, -1 do
    for _, hook in ipairs(test.chain[index].after_each) do run_hooks({ hook }, "after_each", failures) end
  end
  state.test, state.subtests = nil, nil
  result.skipped = skipped
  return #failures == 0 and not native.any_failed(subtests)
end

local function run_test(test, obstacle)
  native.started(test.id)
  local result = { started = native.now(), attempts = 0, tries = {}, skipped = test.pending }
  if obstacle and not test.pending then
    result.attempts, result.tries, result.skipped = 1, { obstacle }, obstacle.skipped
  elseif not test.pending then
    local most = 1 + (test.options.retries or native.retries)
    repeat
      result.attempts = result.attempts + 1
      state.attempt = result.attempts
      result.passed = try(test, result, result.attempts == most)
    until result.passed or result.attempts == most or native.stopping()
  end
  native.finished(test.id, result)
end

--- What keeps the tests of a block from running, if anything does.
local function enter(block)
  if #block.before_all == 0 then return nil end
  begin_life()
  state.attempt = 1
  local failures = {}
  local passed, skipped = run_hooks(block.before_all, "before_all", failures)
  if passed then
    passed, skipped = run_hooks({ function() state.fixtures.push(block) end }, "before_all", failures)
  end
  return not passed and { failures = failures, skipped = skipped } or nil
end

local function leave(block, path)
  local failures, started = {}, native.now()
  if #block.after_all > 0 then
    begin_life()
    for _, hook in ipairs(block.after_all) do run_hooks({ hook }, "after_all", failures) end
  end
  local passed = run_hooks({ function() state.fixtures.pop(block) end }, "after_all", failures)
  if #failures == 0 and passed then return end
  -- The tests of the block have been told of: this is a result of its own.
  local id = native.extra(extended(path, "after_all"))
  native.started(id)
  native.finished(id, { started = started, attempts = 1, tries = { { failures = failures } } })
end

local function run_block(block, path, obstacle)
  local entered = false
  for _, item in ipairs(block.items) do
    if native.stopping() then break end
    if item.active and not entered and not obstacle then
      entered = true
      obstacle = enter(block)
    end
    if item.items then
      run_block(item, extended(path, item.name), obstacle)
    else
      run_test(item, obstacle)
    end
  end
  if entered then leave(block, path) end
end

return function()
  state.block = nil
  if native.seed then math.randomseed(native.seed) end
  plan(state.root, {}, {}, {})
  if native.planned() then run_block(state.root, {}) end
end
