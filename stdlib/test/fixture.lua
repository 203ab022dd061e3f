-- Machines that are booted and set up once, and given to every test as they were then.
--
-- What the machine was like is kept as a stack of snapshots: the one after `setup`, and one for
-- each block around the test whose `before_all` used the machine. A test starts from the top.
-- `life` counts what starts from there: each attempt at a test, and the hooks around a block.

local native, state, steps = ...
local error, ipairs, pcall, setmetatable, vmoon = error, ipairs, pcall, setmetatable, vmoon

--- Every fixture of this file.
local fixtures = {}

local function timed(kind, name, work, ...)
  local started = native.now()
  local result = work(...)
  native.span(kind, name, started)
  return result
end

local function boot(self)
  local vm = timed("boot", self.name, vmoon.boot, self.spec)
  if self.setup then
    local ok, err = pcall(timed, "setup", self.name, self.setup, vm)
    if not ok then
      vm:close()
      error(err, 0)
    end
  end
  return vm
end

--- A machine made from the top of the stack. It can go back to that snapshot, and to no other.
local function fork(self)
  local top = self.snapshots[#self.snapshots]
  self.vm = timed("fork", self.name, top.fork, top, self.restoring)
  self.own = { [top.id] = true }
end

--- The machine, and the snapshot to which each test goes back: taken here, or by another file
--- of this run that wanted the same.
local function acquire(self)
  -- First of all: others wait for who makes the fixture, who then waits for nobody.
  local room <close> = native.reserve(self.spec)
  local shared = native.claim(self.key)
  if shared then
    self.snapshots = { shared }
    return fork(self)
  end
  -- Others wait until it is published; after a failure the next of them tries.
  local claim <close> = native.claimed(self.key)
  local vm = boot(self)
  if native.can_snapshot(vm) then
    local snapshot = timed("snapshot", self.name, vm.snapshot, vm, "fixture")
    self.snapshots, self.own = { snapshot }, { [snapshot.id] = true }
    native.publish(self.key, snapshot)
  end
  self.vm = vm
end

--- Goes back to the top of the stack, whatever was done to the machine.
local function restore(self)
  local top = self.snapshots[#self.snapshots]
  if native.is_closed(self.vm) or not self.own[top.id] then
    self.vm:close()
    return fork(self)
  end
  timed("restore", self.name, self.vm.restore, self.vm, top, self.restoring)
  -- Snapshots that the test took would slow down those that follow.
  for _, snapshot in ipairs(self.vm:snapshots()) do
    if not self.own[snapshot.id] then snapshot:delete() end
  end
end

local function prepare(self)
  if not self.vm then
    acquire(self)
  elseif self.snapshots then
    restore(self)
  else
    self.vm:close()
    self.vm = boot(self)
  end
end

--- Makes the machine what it has to be in this life. One that could not be made is not tried
--- again but for a retry: a boot that fails takes long to do so.
local function renew(self)
  if self.failure and state.attempt == 1 then
    native.note "the fixture could not be made for an earlier test"
    error(self.failure, 0)
  end
  local ok, err = pcall(prepare, self)
  self.failure = nil
  if not ok then
    self.failure = not self.vm and err or nil
    error(err, 0)
  end
  self.life = state.life
end

--- Makes the function that gives the machine.
local function fixture(options)
  local self = { life = 0 }
  self.spec, self.setup, self.restoring = native.fixture(options)
  self.key = native.content(self.spec, self.setup)
  self.name = self.spec.name or ("fixture-%d"):format(#fixtures + 1)
  self.turn = native.turn()
  fixtures[#fixtures + 1] = self

  return function()
    if not state.life then
      native.misuse("a fixture's machine is asked for outside of a test",
        "call the function in an `it` or in a hook; no machine runs before")
    end
    if self.life ~= state.life then
      -- Tasks of one test may ask at the same time.
      native.enter(self.turn)
      local ok, err = true, nil
      if self.life ~= state.life then ok, err = pcall(renew, self) end
      native.leave(self.turn)
      if not ok then error(err, 0) end
    end
    native.used(self.vm)
    steps.check "the machine was used"
    return self.vm
  end
end

state.fixtures = {}

--- Keeps what `before_all` hooks did to machines for the tests of their block.
function state.fixtures.push(block)
  for _, self in ipairs(fixtures) do
    if self.vm and self.life == state.life and self.snapshots then
      local snapshot = timed("snapshot", self.name, self.vm.snapshot, self.vm, "before_all")
      self.snapshots[#self.snapshots + 1] = snapshot
      self.own[snapshot.id] = true
      block.kept = block.kept or {}
      block.kept[#block.kept + 1] = self
    end
  end
end

--- Forgets what `push` kept for the block.
function state.fixtures.pop(block)
  for _, self in ipairs(block.kept or {}) do
    local snapshots = self.snapshots
    local top = snapshots[#snapshots]
    snapshots[#snapshots] = nil
    if self.own[top.id] then
      self.own[top.id] = nil
      top:close()
    end
  end
end

return fixture
