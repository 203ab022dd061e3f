-- Waits that the guest's agent announces: ports, names, and how they end when they do not come true.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")
local task = vmoon.task

local vm <close> = vmoon.boot { memory = "32MiB" }

t.case("a port is announced when somebody listens, also one beyond TCP's", function()
  for _, port in ipairs { 5001, 70001 } do
    local waiting = task.spawn(function() vm:wait_port(port) end)
    local server <close> = vm:spawn("echo-server " .. port)
    waiting:join()
    vm:wait_port(port)
  end
end)

t.case("a timeout says what the guest saw last", function()
  local server <close> = vm:spawn "echo-server 5002"
  vm:wait_port(5002)
  local err = t.raises("vm.timeout", vm.wait_port, vm, 5003, { timeout = "100ms" })
  assert(err.message:find("port 5003", 1, true), err.message)
  assert(err.observed:find("5002", 1, true), "observed: " .. tostring(err.observed))
  assert(err.message:find(err.observed, 1, true), err.message)
end)

t.case("what is seen changes while it is waited for", function()
  local waiting = task.spawn(function() return pcall(vm.wait_ready, vm, "db", { timeout = "1s" }) end)
  vm:succeed "ready cache"
  local ok, err = waiting:join()
  assert(not ok and err.code == "vm.timeout", tostring(err))
  t.same(err.observed, "the guest has declared cache", "observed")
end)

t.case("the guest declares that it is ready, before or after it is asked", function()
  local waiting = task.spawn(function() vm:wait_ready "web" end)
  vm:succeed "ready web"
  waiting:join()
  vm:wait_ready "web"
  t.same(vm:exec("ready").code, 2, "without a name")
  t.same(vm:exec("ready " .. ("x"):rep(64)).code, 2, "with one that is too long")
end)

t.case("a declaration goes with a restore and comes with a fork", function()
  local before <close> = vm:snapshot()
  vm:succeed "ready late"
  local after <close> = vm:snapshot()
  vm:restore(before)
  vm:wait_ready "web"
  t.raises("vm.timeout", vm.wait_ready, vm, "late", { timeout = "50ms" })
  local fork <close> = after:fork()
  fork:wait_ready "late"
  vm:restore(after)
  vm:wait_ready "late"
end)

t.case("what the micro guest has not is refused, and says so", function()
  for _, wait in ipairs {
    function() vm:wait_file "/etc/passwd" end,
    function() vm:wait_file("/etc/passwd", { gone = true }) end,
    function() vm:wait_socket "/run/x" end,
    function() vm:wait_exit "sh" end,
    function() vm:wait_exit(1) end,
    function() vm:wait_unit "ssh" end,
    function() vm:wait_unit("ssh", { state = "failed" }) end,
  } do
    local err = t.raises("backend.unsupported", wait)
    assert(err.message:find("micro", 1, true), err.message)
  end
end)

t.case("wrong arguments are explained", function()
  t.raises("vm.spec", vm.wait_port, vm, 0)
  t.raises("vm.spec", vm.wait_port, vm, "ssh")
  t.raises("vm.spec", vm.wait_exit, vm, 0)
  t.raises("vm.spec", vm.wait_exit, vm, "")
  t.raises("vm.spec", vm.wait_ready, vm)
  t.raises("vm.spec", vm.wait_file, vm, "/x", { vanished = true })
end)

t.case("wait_until tells of its last attempt, and reacts soon", function()
  local err = t.raises("vm.timeout", vm.wait_until, vm, "get missing", { timeout = "100ms" })
  t.same(err.status, 1, "the last code")
  local waiting = task.spawn(function() return vm:wait_until "get key" end)
  vm:succeed "put key value"
  t.same(waiting:join(), "value\n", "its output")
end)

t.case("the console's timeout shows its last line", function()
  local err = t.raises("vm.timeout", vm.console.wait, vm.console, "never printed", { timeout = "50ms" })
  assert(err.observed:find(t.trim(vm.console:tail(1)), 1, true), tostring(err.observed))
end)

t.case("a restore ends the waits of the life before", function()
  local snap <close> = vm:snapshot()
  local waiting = task.spawn(function() return pcall(vm.wait_port, vm, 5999) end)
  vmoon.sleep "50ms"
  vm:restore(snap)
  local ok, err = waiting:join()
  assert(not ok and err.code == "vsock.reset", tostring(err))
  vm:succeed "true"
end)

t.case("a guest that crashes or stops ends a wait at once", function()
  for command, code in pairs { panic = "guest.panic", poweroff = "guest.stopped" } do
    local own <close> = vmoon.boot { memory = "32MiB" }
    local waits = {
      function() own:wait_port(5999, { timeout = "5m" }) end,
      function() own:wait_ready("never", { timeout = "5m" }) end,
      function() own:wait_until("get never", { timeout = "5m" }) end,
      function() own.console:wait("never printed", { timeout = "5m" }) end,
    }
    local waiting = {}
    for index, wait in ipairs(waits) do
      waiting[index] = task.spawn(function() return pcall(wait) end)
    end
    vmoon.sleep "20ms"
    pcall(own.exec, own, command)
    for index, wait in ipairs(waiting) do
      local ok, err = wait:join()
      assert(not ok, "wait " .. index .. " came true")
      assert(err.code == code, ("wait %d: %s"):format(index, tostring(err)))
    end
  end
end)

t.finish()
