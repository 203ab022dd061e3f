-- Tasks, sleeping, timeouts and cancelling.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

-- The time that passes, in seconds: os.clock counts the processor's time only.
local function elapsed(fn)
  local file = io.open "/proc/uptime"
  local before = file:read "n"
  file:close()
  fn()
  file = io.open "/proc/uptime"
  local after = file:read "n"
  file:close()
  return after - before
end

t.case("spawn and join hand results over", function()
  local task = vmoon.task.spawn(function(a, b) return a + b, "second" end, 2, 3)
  local sum, second = task:join()
  t.same(sum, 5, "first result")
  t.same(second, "second", "second result")
end)

t.case("join raises what the task raised, as it was", function()
  local task = vmoon.task.spawn(function() error { code = "my.code", message = "mine" } end)
  local ok, err = pcall(task.join, task)
  assert(not ok, "join")
  t.same(err.code, "my.code", "code")
  local task = vmoon.task.spawn(function() error("words", 0) end)
  local ok, err = pcall(task.join, task)
  assert(not ok and tostring(err):find("words", 1, true), tostring(err))
end)

t.case("all runs side by side and keeps the order", function()
  local results
  local seconds = elapsed(function()
    results = vmoon.task.all {
      function() vmoon.sleep "1s" return "slow" end,
      function() vmoon.sleep "900ms" return "quick" end,
      function() return "at once" end,
    }
  end)
  t.same(table.concat(results, ", "), "slow, quick, at once", "results")
  assert(seconds < 1.9, "as long as one after the other: " .. seconds)
end)

t.case("all raises the first error", function()
  local ok, err = pcall(vmoon.task.all, {
    function() vmoon.sleep "20ms" error("one failed", 0) end,
    function() return true end,
  })
  assert(not ok and tostring(err):find("one failed", 1, true), tostring(err))
end)

t.case("map keeps the order and its limit", function()
  local at_once, most = 0, 0
  local results = vmoon.task.map({ 1, 2, 3, 4, 5, 6 }, function(n)
    at_once = at_once + 1
    most = math.max(most, at_once)
    vmoon.sleep "30ms"
    at_once = at_once - 1
    return n * n
  end, { limit = 2 })
  t.same(table.concat(results, " "), "1 4 9 16 25 36", "results")
  t.same(most, 2, "at once")
end)

t.case("sleep takes seconds and durations", function()
  local seconds = elapsed(function() vmoon.sleep(0.15) end)
  assert(seconds >= 0.13 and seconds < 1, "sleep(0.15) took " .. seconds)
  local seconds = elapsed(function() vmoon.sleep "150ms" end)
  assert(seconds >= 0.13 and seconds < 1, 'sleep "150ms" took ' .. seconds)
  local ok, err = pcall(vmoon.sleep, "a while")
  assert(not ok and tostring(err):find("a while", 1, true), tostring(err))
end)

t.case("timeout returns the results, or ends the function", function()
  t.same(vmoon.timeout("2s", function() vmoon.sleep "10ms" return "done" end), "done", "in time")
  local reached = false
  local seconds = elapsed(function()
    local ok, err = pcall(vmoon.timeout, "100ms", function() vmoon.sleep "10s" reached = true end)
    assert(not ok and type(err) == "table" and err.code:find "timeout", tostring(err))
  end)
  assert(not reached and seconds < 2, "it took " .. seconds)
end)

t.case("timeout lets the function's own errors through", function()
  local ok, err = pcall(vmoon.timeout, "2s", function() error("own words", 0) end)
  assert(not ok and tostring(err):find("own words", 1, true), tostring(err))
end)

t.case("cancel runs <close>, and join raises task.cancelled", function()
  local closed = false
  local task = vmoon.task.spawn(function()
    local guard <close> = setmetatable({}, { __close = function() closed = true end })
    vmoon.sleep "60s"
  end)
  vmoon.sleep "20ms"
  task:cancel()
  t.raises("task.cancelled", task.join, task)
  t.same(closed, true, "closed")
end)

t.case("a timeout runs <close> too, and machines in it are gone", function()
  local closed = false
  pcall(vmoon.timeout, "300ms", function()
    local guard <close> = setmetatable({}, { __close = function() closed = true end })
    local vm <close> = vmoon.boot { name = "inside-a-timeout", memory = "32MiB" }
    vm:exec "sleep 60000"
  end)
  t.same(closed, true, "closed")
  t.same(vmoon.get "inside-a-timeout", nil, "the machine")
end)

t.case("a cancelled exec ends its command in the guest", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local task = vmoon.task.spawn(function() return vm:exec "echo-server 5000" end)
  vm:wait_port(5000, { timeout = "5s" })
  task:cancel()
  t.eventually(5, "the port is free again", function()
    local ok, stream = pcall(vm.connect, vm, 5000, { timeout = "2s" })
    if ok then stream:close() return false end
    return stream.code == "vsock.refused"
  end)
  t.same(vm:succeed "echo on", "on\n", "the next command")
end)

t.case("tasks work inside coroutines and coroutines inside tasks", function()
  local co = coroutine.wrap(function()
    for n = 1, 3 do coroutine.yield(n) end
  end)
  local sum = 0
  local task = vmoon.task.spawn(function()
    for n in co do sum = sum + n vmoon.sleep "5ms" end
    return sum
  end)
  t.same(task:join(), 6, "the sum")
  local waits = coroutine.wrap(function()
    vmoon.sleep "5ms"
    coroutine.yield "slept"
  end)
  t.same(waits(), "slept", "a coroutine that sleeps")
end)

t.case("100 tasks sleep at once", function()
  local list = {}
  for n = 1, 100 do list[n] = n end
  local seconds = elapsed(function()
    vmoon.task.map(list, function() vmoon.sleep "100ms" end)
  end)
  assert(seconds < 2, "it took " .. seconds)
end)

t.finish()
