-- What every backend must do with a stock Linux, with what each guest has: the agent alone.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local AGENT = "/bin/vmoon-agent"
local vm <close> = vmoon.boot { guest = "linux", memory = "256MiB", timeout = "2m" }
local can = vmoon.capabilities(vm.backend)

t.case("a program runs, and its code comes back", function()
  t.same(vm:exec({ AGENT, "--version" }).stdout:match "^vmoon%-agent ", "vmoon-agent ", "stdout")
  t.same(vm:exec({ AGENT }).code, 2, "code")
end)

t.case("pause and resume", function()
  vm:pause()
  t.same(vm.state, "paused", "state")
  t.raises("vm.state", vm.exec, vm, { AGENT, "--version" })
  vm:resume()
  t.same(vm:exec({ AGENT, "--version" }).code, 0, "code")
end)

t.case("vsock, both ways, and a port on which nobody listens", function()
  local server <close> = vm:spawn { AGENT, "echo-server", "7000" }
  vm:wait_port(7000, { timeout = "20s" })
  local stream <close> = vm:connect(7000, { timeout = "20s" })
  stream:write "hello\n"
  t.same(stream:read_line(), "hello", "echo")
  t.raises("vsock.refused", vm.connect, vm, 7001, { timeout = "20s" })
  local listener <close> = vm:listen(7002)
  local client <close> = vm:spawn { AGENT, "connect", "7002", "to the host" }
  local guest <close> = listener:accept { timeout = "20s" }
  t.same(guest:read_line(), "to the host", "from the guest")
  guest:write "to the guest\n"
  t.same(client:wait().stdout, "to the guest\n", "from the host")
end)

if can.snapshot then
  t.case("a restore goes back, and commands run at once", function()
    local snap <close> = vm:snapshot "clean"
    local server <close> = vm:spawn { AGENT, "echo-server", "7100" }
    vm:wait_port(7100, { timeout = "20s" })
    vm:restore(snap)
    t.raises("vsock.refused", vm.connect, vm, 7100, { timeout = "20s" })
    t.same(vm:exec({ AGENT, "--version" }).code, 0, "code")
    vm:kill()
    vm:restore(snap)
    t.same(vm:exec({ AGENT, "--version" }).code, 0, "after a kill")
  end)
else
  print("no snapshots here: " .. can.reasons.snapshot)
end

t.case("it stops when it is asked", function()
  t.same(vm:stop { timeout = "30s" }, "graceful", "stop")
  t.same(vm.state, "stopped", "state")
end)

t.finish()
