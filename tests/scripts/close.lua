-- <close>: it always runs, whatever ended the block.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

t.case("a machine is gone after its block", function()
  do local vm <close> = vmoon.boot { name = "brief", memory = "32MiB" } end
  t.same(vmoon.get "brief", nil, "the machine")
end)

t.case("a machine is gone after an error in its block", function()
  local ok, err = pcall(function()
    local vm <close> = vmoon.boot { name = "unlucky", memory = "32MiB" }
    error("broken on purpose", 0)
  end)
  t.same(ok, false, "pcall")
  assert(tostring(err):find("broken on purpose", 1, true), tostring(err))
  t.same(vmoon.get "unlucky", nil, "the machine")
end)

t.case("a machine is gone after return and break", function()
  local function early()
    local vm <close> = vmoon.boot { name = "early", memory = "32MiB" }
    return vm.name
  end
  t.same(early(), "early", "what was returned")
  t.same(vmoon.get "early", nil, "the machine")
  for _ = 1, 3 do
    local vm <close> = vmoon.create { name = "loop", memory = "32MiB" }
    break
  end
  t.same(vmoon.get "loop", nil, "the machine of the loop")
end)

t.case("everything closes in reverse order, each once, though one of them raises", function()
  local order = {}
  local function guard(name, raises)
    return setmetatable({}, { __close = function(_, err)
      order[#order + 1] = name
      if raises then error(raises, 0) end
    end })
  end
  local ok, err = pcall(function()
    local a <close> = guard "a"
    local vm <close> = vmoon.boot { name = "between", memory = "32MiB" }
    local b <close> = guard("b", "b could not close")
    local c <close> = guard "c"
  end)
  t.same(ok, false, "pcall")
  assert(tostring(err):find("b could not close", 1, true), tostring(err))
  t.same(table.concat(order, " "), "c b a", "order")
  t.same(vmoon.get "between", nil, "the machine")
end)

t.case("streams, listeners, processes, forwards and snapshots are to-be-closed as well", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  do
    local server <close> = vm:spawn "echo-server 5000"
    vm:wait_port(5000, { timeout = "5s" })
    local stream <close> = vm:connect(5000)
    local listener <close> = vm:listen(6000)
    local forward <close> = vm:forward { port = 5000, unix = os.tmpname() .. ".sock" }
    local snap <close> = vm:snapshot "s"
    stream:close()
    stream:close()
    listener:close()
    listener:close()
  end
  t.same(#vm:snapshots(), 0, "snapshots")
  t.same(vm:succeed "echo on", "on\n", "the machine")
end)

t.case("a machine may be closed before what belongs to it", function()
  local vm = vmoon.boot { memory = "32MiB" }
  local server <close> = vm:spawn "echo-server 5000"
  vm:wait_port(5000, { timeout = "5s" })
  local stream <close> = vm:connect(5000)
  local listener <close> = vm:listen(6000)
  local snap <close> = vm:snapshot "s"
  vm:close()
  local ok, err = pcall(stream.read, stream)
  assert((ok and err == nil) or err.code, "reading a closed machine's stream: " .. tostring(err))
end)

t.case("a machine that nobody holds any more is closed", function()
  collectgarbage()
  collectgarbage()
  local before = #vmoon.list()
  do
    local vm = vmoon.create { name = "dropped", memory = "32MiB" }
    vm = nil
  end
  collectgarbage()
  collectgarbage()
  t.same(#vmoon.list(), before, "machines")
end)

t.case("close takes little time, whatever the guest does", function()
  local vm = vmoon.boot { memory = "32MiB" }
  pcall(vm.exec, vm, "hang", { timeout = "100ms" })
  local started = os.time()
  vm:close()
  assert(os.time() - started <= 2, "close took longer than 2 s")
end)

t.finish()
