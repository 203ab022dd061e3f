-- Coroutines that a script makes may wait too. A call that waits yields a "pending" mark to
-- whoever drives Lua; `coroutine.resume` and `coroutine.wrap` pass that mark on instead of
-- showing it to the script.

local pending, resume = ...
local close, create, status, yield =
  coroutine.close, coroutine.create, coroutine.status, coroutine.yield
local collectgarbage, error, rawequal, select, setmetatable, type =
  collectgarbage, error, rawequal, select, setmetatable, type

-- Closes the inner coroutine when the outer one is cancelled while the inner one waits.
local guard = {
  __close = function(self)
    if self.armed and status(self.thread) == "suspended" then
      close(self.thread)
      -- What it waited for is garbage now: a command in a guest ends when it is collected.
      self.thread = nil
      collectgarbage()
    end
  end,
}

local function wait(thread)
  local cancelled <close> = setmetatable({ armed = true, thread = thread }, guard)
  -- The mark's answer (to go on, or to give up) belongs to the call that waits.
  ---@diagnostic disable-next-line: await-in-sync
  local answer = yield(pending)
  cancelled.armed = false
  return answer
end

local function drive(thread, ok, ...)
  if ok and select("#", ...) == 1 and rawequal((...), pending) and status(thread) == "suspended" then
    return drive(thread, resume(thread, wait(thread)))
  end
  return ok, ...
end

local passing = {}

function passing.resume(thread, ...)
  return drive(thread, resume(thread, ...))
end

local function unwrap(thread, ok, ...)
  if ok then return ... end
  local failure = ...
  if status(thread) == "dead" then
    local closed, closing = close(thread)
    if not closed then failure = closing end
  end
  -- Adds the caller's position to a string, as Lua's own wrap does.
  error(failure, type(failure) == "string" and 2 or 0)
end

function passing.wrap(f)
  local thread = create(f)
  return function(...)
    return unwrap(thread, drive(thread, resume(thread, ...)))
  end
end

return passing
