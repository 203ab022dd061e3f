-- Every state, every transition, and every operation that a state forbids.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

--- Asserts that the state forbids the call, and that the error names the state and those allowed.
local function forbidden(vm, state, allowed, fn, ...)
  t.same(vm.state, state, "state")
  local err = t.raises("vm.state", fn, vm, ...)
  local words = t.words(err)
  assert(words:find(state, 1, true), "the state is not named: " .. words)
  for _, name in ipairs(allowed) do
    assert(words:find(name, 1, true), name .. " is not named as allowed: " .. words)
  end
  t.same(vm.state, state, "state after the refusal")
end

t.case("create makes a machine that has not started", function()
  local vm <close> = vmoon.create { name = "newborn", memory = "32MiB" }
  t.same(vm.state, "created", "state")
  t.same(vm.name, "newborn", "name")
  t.same(vm.memory, 32 << 20, "memory")
  t.same(vm.cpus, 1, "cpus")
  assert(vm.id:match "^%x+%-%x+%-%x+%-%x+%-%x+$", "id is not a UUID: " .. tostring(vm.id))
  assert(math.type(vm.cid) == "integer" and vm.cid > 2, "cid")
  assert(vm.mac:match "^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$", "mac: " .. tostring(vm.mac))
  assert(type(vm.backend) == "string" and #vm.backend > 0, "backend")
end)

t.case("created allows start, and neither pause, resume, stop, exec, connect, snapshot nor restore", function()
  local vm <close> = vmoon.create { memory = "32MiB" }
  forbidden(vm, "created", { "running" }, vm.pause)
  forbidden(vm, "created", { "paused" }, vm.resume)
  forbidden(vm, "created", { "running", "paused" }, vm.stop)
  forbidden(vm, "created", { "running" }, vm.exec, "true")
  forbidden(vm, "created", { "running" }, vm.connect, 5000)
  forbidden(vm, "created", { "running", "paused" }, vm.snapshot, "early")
  vm:start()
  t.same(vm.state, "running", "state")
end)

t.case("running allows pause, and neither start nor resume nor remove", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  forbidden(vm, "running", { "created" }, vm.start)
  forbidden(vm, "running", { "paused" }, vm.resume)
  forbidden(vm, "running", { "stopped" }, vm.remove)
  t.same(vm:exec("true").code, 0, "exec afterwards")
end)

t.case("paused allows resume, and neither start, pause, exec nor connect; resume goes on", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put where before"
  vm:pause()
  t.same(vm.state, "paused", "state")
  forbidden(vm, "paused", { "created" }, vm.start)
  forbidden(vm, "paused", { "running" }, vm.pause)
  forbidden(vm, "paused", { "running" }, vm.exec, "true")
  forbidden(vm, "paused", { "running" }, vm.connect, 5000)
  forbidden(vm, "paused", { "stopped" }, vm.remove)
  vm:resume()
  t.same(vm.state, "running", "state")
  t.same(t.trim(vm:succeed "get where"), "before", "the value put before the pause")
end)

t.case("no guest code runs while paused", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local before = tonumber(vm:succeed("uptime"):match "[%d.]+")
  local sleeper <close> = vm:spawn "sleep 100"
  vm:pause()
  vmoon.sleep "300ms"
  vm:resume()
  assert(sleeper:wait().ok, "a command that slept across the pause")
  assert(before, "uptime prints a number")
end)

t.case("stop is graceful with an agent, and stopped forbids what needs a running guest", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  t.same(vm:stop(), "graceful", "stop")
  t.same(vm.state, "stopped", "state")
  forbidden(vm, "stopped", { "running" }, vm.exec, "true")
  forbidden(vm, "stopped", { "running" }, vm.connect, 5000)
  forbidden(vm, "stopped", { "running" }, vm.pause)
  forbidden(vm, "stopped", { "paused" }, vm.resume)
  forbidden(vm, "stopped", { "running", "paused" }, vm.snapshot, "late")
  vm:remove()
end)

t.case("stop of a guest that does not answer is forced at its timeout", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  pcall(vm.exec, vm, "hang", { timeout = "200ms" })
  t.same(vm:stop { timeout = "300ms" }, "forced", "stop")
  t.same(vm.state, "stopped", "state")
end)

t.case("stop works from paused", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:pause()
  local how = vm:stop { timeout = "5s" }
  assert(how == "graceful" or how == "forced", how)
  t.same(vm.state, "stopped", "state")
end)

t.case("kill ends a machine at once", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:kill()
  t.same(vm.state, "stopped", "state")
  forbidden(vm, "stopped", { "running" }, vm.exec, "true")
end)

t.case("a power-off from inside ends in stopped", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local ok, err = pcall(vm.exec, vm, "poweroff")
  assert(ok or err.code == "guest.stopped", tostring(err))
  vm:wait("stopped", { timeout = "5s" })
  t.same(vm.state, "stopped", "state")
end)

t.case("a panic inside ends in crashed, and the command that caused it says so", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  t.raises("guest.panic", vm.exec, vm, "panic")
  vm:wait("crashed", { timeout = "5s" })
  t.same(vm.state, "crashed", "state")
  forbidden(vm, "crashed", { "running" }, vm.exec, "true")
  forbidden(vm, "crashed", { "running" }, vm.pause)
  forbidden(vm, "crashed", { "running", "paused" }, vm.snapshot, "late")
end)

t.case("wait for a state that is there returns at once; one that does not come is a timeout", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:wait "running"
  t.raises("vm.timeout", vm.wait, vm, "stopped", { timeout = "100ms" })
  local ok, err = pcall(vm.wait, vm, "asleep")
  assert(not ok, "a state that does not exist was accepted")
  assert(t.words(err):find("asleep", 1, true), "the state is not named: " .. t.words(err))
end)

t.case("a wait ends when the state comes, in another task", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local waiter = vmoon.task.spawn(function() vm:wait("stopped", { timeout = "10s" }) return "seen" end)
  vmoon.sleep "50ms"
  vm:kill()
  t.same(waiter:join(), "seen", "the waiting task")
end)

t.case("a failed start goes back to created and can be tried again", function()
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "w"))
  file:write(("not a kernel\n"):rep(1000))
  file:close()
  local made, vm = pcall(vmoon.create, { kernel = path, memory = "64MiB", agent = false, ready = false })
  if made then
    local vm <close> = vm
    for _ = 1, 2 do
      local ok = pcall(vm.start, vm)
      assert(not ok, "a file that is no kernel was started")
      t.same(vm.state, "created", "state after the failed start")
    end
  else
    -- Refused even earlier: nothing to retry.
    assert(vm.code == "vm.spec", tostring(vm))
  end
  os.remove(path)
end)

t.case("list and get know the machines that are open, by id and by name", function()
  local before = #vmoon.list()
  do
    local vm <close> = vmoon.create { name = "findable", memory = "32MiB" }
    t.same(#vmoon.list(), before + 1, "machines")
    t.same(vmoon.get("findable").id, vm.id, "by name")
    t.same(vmoon.get(vm.id).name, "findable", "by id")
  end
  t.same(#vmoon.list(), before, "machines after close")
  t.same(vmoon.get "findable", nil, "by name after close")
end)

t.case("close may be called twice, and a closed machine refuses with a structured error", function()
  local vm = vmoon.boot { memory = "32MiB" }
  vm:close()
  vm:close()
  local ok, err = pcall(vm.exec, vm, "true")
  assert(not ok and type(err) == "table" and err.code, "exec after close: " .. tostring(err))
end)

t.case("info tells people how the machine is", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local info = vm:info()
  t.same(info.state, "running", "state")
  assert(type(info.uptime) == "number" and info.uptime > 0, "uptime")
end)

t.case("the backend that runs machines is among the available ones", function()
  local vm <close> = vmoon.create { memory = "32MiB" }
  local found
  for _, backend in ipairs(vmoon.backends()) do
    if backend.name == vm.backend then found = backend end
    assert(backend.available or (backend.reason and #backend.reason > 0), backend.name .. " gives no reason")
  end
  assert(found and found.available, vm.backend .. " is not available")
  t.same(type(vmoon.capabilities()), "table", "capabilities")
  t.same(type(vmoon.capabilities(vm.backend)), "table", "capabilities of " .. vm.backend)
end)

t.finish()
