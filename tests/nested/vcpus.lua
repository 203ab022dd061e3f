-- Two vCPUs under a timer-driven load, across 50 restores: no stall, no soft lockup.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local vm <close> = vmoon.boot { guest = "linux", cpus = 2, memory = "256MiB", timeout = "3m" }

-- What the kernel says while it starts is about the processor, which may be an emulated one.
local started = { log = #vm:succeed "dmesg", console = #vm.console:text() }

--- What the four loops have counted to, and on which processors they run.
local function ticks()
  local sum = 0
  for n in vm:succeed("cat /tmp/tick.*", { timeout = "30s" }):gmatch "%d+" do sum = sum + tonumber(n) end
  return sum
end

local function timers()
  local counts = {}
  for n in vm:succeed("grep LOC: /proc/interrupts", { timeout = "30s" }):gmatch "%d+" do
    counts[#counts + 1] = tonumber(n)
  end
  return counts
end

t.case("Linux sees two processors", function()
  t.same(t.trim(vm:succeed "nproc"), "2", "nproc")
  t.same(#timers(), 2, "timer interrupts")
end)

t.case("50 restores under load: every loop goes on each time", function()
  for n = 1, 4 do
    vm:succeed(([[(i=0; while :; do usleep 3000; i=$((i+1)); echo $i > /tmp/new.%d;
      mv /tmp/new.%d /tmp/tick.%d; done) >/dev/null 2>&1 </dev/null &]]):format(n, n, n))
  end
  vm:succeed "(while :; do :; done) >/dev/null 2>&1 </dev/null &"
  t.eventually(30, "the loops run", function() return vm:exec("test -e /tmp/tick.1 -a -e /tmp/tick.4").ok end)
  local base = ticks()
  local on_timer = timers()
  local snap <close> = vm:snapshot "loaded"
  for round = 1, 50 do
    vm:restore(snap)
    local first = ticks()
    assert(first >= base, "ticks went back beyond the snapshot")
    if round % 5 == 0 then
      vmoon.sleep "400ms"
      assert(ticks() > first, "the loops stand still after restore " .. round)
      local now = timers()
      for cpu = 1, 2 do
        assert(now[cpu] > on_timer[cpu], ("no timer interrupt on CPU %d after restore %d"):format(cpu - 1, round))
      end
    end
  end
end)

t.case("no stall and no soft lockup in the log", function()
  -- Long enough for a watchdog that was wound back to bite.
  vmoon.sleep "5s"
  local log = vm:succeed("dmesg", { timeout = "30s" }):sub(started.log + 1)
    .. vm.console:text():sub(started.console + 1)
  for _, pattern in ipairs { "soft lockup", "[Rr][Cc][Uu].-stall", "hung_task", "BUG:", "Call Trace", "NMI watchdog" } do
    local found = log:find(pattern)
    assert(not found, found and pattern .. " in the log: " .. log:sub(found, found + 300))
  end
end)

t.finish()
