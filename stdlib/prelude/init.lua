-- Runs before every script, and is short for that reason: most of what it stands for is loaded
-- when it is first used.

local pending, load, exit, fill, vmoon = ...
local coroutine, yield = coroutine, coroutine.yield
local rawget, resume, setmetatable = rawget, coroutine.resume, setmetatable

-- A function that is loaded at its first call.
local function lazy(name)
  local real ---@type function
  return function(...)
    real = real or load(name, pending, resume)
    return real(...)
  end
end

coroutine.resume = lazy "resume"
coroutine.wrap = lazy "wrap"
require = lazy "require"

-- Lua's own would end the process with everything still open. The runtime cancels the script
-- while it waits here.
function os.exit(code)
  exit(code)
  ---@diagnostic disable-next-line: await-in-sync
  while true do yield(pending) end
end

-- The module is filled when something is asked of it.
local function whole(module)
  setmetatable(module, nil)
  fill(module)
  return module
end
setmetatable(vmoon, {
  __index = function(module, key) return rawget(whole(module), key) end,
  __pairs = function(module) return pairs(whole(module)) end,
})
package.loaded["vmoon"] = vmoon
package.preload["vmoon.task"] = function() return vmoon.task end
package.preload["vmoon.test"] = function() return vmoon.test end
