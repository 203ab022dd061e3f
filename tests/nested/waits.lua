-- What a Linux guest announces: ports, files, sockets, ends of processes, names that it declares.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")
local task = vmoon.task

local vm <close> = vmoon.boot { guest = "linux", memory = "256MiB", timeout = "2m" }
local PATIENCE = { timeout = "60s" }

--- Begins a wait, sees that it waits, and lets the guest do what ends it.
local function heard(wait, cause)
  local ended = false
  local waiting = task.spawn(function() wait(); ended = true end)
  vmoon.sleep "300ms"
  assert(not ended, "it was true before")
  cause()
  waiting:join()
end

t.case("the kernel's word is used, and let go with the wait", function()
  local function words() return select(2, vm:succeed("ls -l /proc/[0-9]*/fd"):gsub("perf_event", "")) end
  local waiting = task.spawn(function() pcall(vm.wait_port, vm, 7999, { timeout = "5s" }) end)
  t.eventually(20, "the trace event is open", function() return words() > 0 end)
  waiting:join()
  t.eventually(20, "the trace event is closed", function() return words() == 0 end)
end)

t.case("ports: TCP over IPv4 and IPv6, and vsock", function()
  for port, address in pairs { [7001] = "127.0.0.1", [7010] = "[::1]" } do
    heard(function() vm:wait_port(port, PATIENCE) end, function()
      vm:succeed(("httpd -p %s:%d -h /tmp"):format(address, port))
    end)
  end
  local server <close> = vm:spawn "vmoon-agent echo-server 70000"
  vm:wait_port(70000, PATIENCE)
  local err = t.raises("vm.timeout", vm.wait_port, vm, 9, { timeout = "300ms" })
  assert(err.observed:find "7001.*7010.*70000", "observed: " .. tostring(err.observed))
end)

t.case("a file whose directories come later, and its end", function()
  heard(function() vm:wait_file("/tmp/a new/sub/file", PATIENCE) end, function()
    vm:succeed "mkdir -p '/tmp/a new/sub' && : > '/tmp/a new/sub/file'"
  end)
  heard(function() vm:wait_file("/tmp/a new/sub/file", { gone = true, timeout = "60s" }) end, function()
    vm:succeed "rm -r '/tmp/a new'"
  end)
  local err = t.raises("vm.timeout", vm.wait_file, vm, "/tmp/none/file", { timeout = "300ms" })
  t.same(err.observed, "/tmp/none does not exist", "observed")
end)

t.case("a file that a mount brings", function()
  vm:succeed "mkdir -p /tmp/at && mkdir -p /tmp/from && : > /tmp/from/file"
  heard(function() vm:wait_file("/tmp/at/file", PATIENCE) end, function()
    vm:succeed "mount -o bind /tmp/from /tmp/at"
  end)
end)

t.case("a Unix socket", function()
  heard(function() vm:wait_socket("/dev/log", PATIENCE) end, function() vm:succeed "syslogd" end)
end)

t.case("the end of a process, by its name and by its number", function()
  vm:succeed "for i in 1 2; do sleep 1000 </dev/null >/dev/null 2>&1 & done"
  heard(function() vm:wait_exit("sleep", PATIENCE) end, function() vm:succeed "killall -9 sleep" end)
  local pid = math.tointeger(t.trim(vm:succeed "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"))
  local err = t.raises("vm.timeout", vm.wait_exit, vm, pid, { timeout = "300ms" })
  t.same(err.observed, ("process %d (sleep) runs"):format(pid), "observed")
  heard(function() vm:wait_exit(pid, PATIENCE) end, function() vm:succeed("kill " .. pid) end)
  vm:wait_exit(pid)
  vm:wait_exit "no-such-program"
end)

t.case("units need systemd, and the error says so", function()
  local err = t.raises("backend.unsupported", vm.wait_unit, vm, "ssh", { state = "failed" })
  assert(err.message:find("systemd", 1, true), err.message)
end)

t.case("any user's program declares that it is ready; a restore takes it back, a fork has it", function()
  heard(function() vm:wait_ready("early", PATIENCE) end, function()
    t.same(vm:exec("vmoon-agent ready early", { user = 1000 }).stderr, "", "stderr")
  end)
  local before <close> = vm:snapshot()
  vm:succeed "vmoon-agent ready late"
  vm:wait_ready "late"
  local after <close> = vm:snapshot()
  vm:restore(before)
  local err = t.raises("vm.timeout", vm.wait_ready, vm, "late", { timeout = "500ms" })
  t.same(err.observed, "the guest has declared early", "observed")
  local fork <close> = after:fork()
  fork:wait_ready("late", PATIENCE)
end)

t.case("a kernel that panics ends every wait at once", function()
  local waits = {
    function() vm:wait_port(9, { timeout = "10m" }) end,
    function() vm:wait_file("/never", { timeout = "10m" }) end,
    function() vm:wait_exit("init", { timeout = "10m" }) end,
    function() vm:wait_exit(1, { timeout = "10m" }) end,
  }
  local waiting = {}
  for index, wait in ipairs(waits) do waiting[index] = task.spawn(function() return pcall(wait) end) end
  vmoon.sleep "300ms"
  pcall(vm.exec, vm, "echo c > /proc/sysrq-trigger", { timeout = "60s" })
  for index, wait in ipairs(waiting) do
    local ok, err = wait:join()
    -- There is no process called `init` here.
    if index ~= 3 then t.same(not ok and err.code, "guest.panic", "wait " .. index) end
  end
end)

t.finish()
