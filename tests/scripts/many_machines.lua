-- Many machines in one process, at once and one after the other.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local function count(list)
  local n = 0
  for _ in pairs(list) do n = n + 1 end
  return n
end

t.case("12 machines at once, each its own", function()
  local names = {}
  for n = 1, 12 do names[n] = "crowd-" .. n end
  local machines = vmoon.task.map(names, function(name)
    return vmoon.boot { name = name, memory = "32MiB" }
  end, { limit = 4 })
  local ids, cids, macs = {}, {}, {}
  for n, vm in ipairs(machines) do
    ids[vm.id], cids[vm.cid], macs[vm.mac] = true, true, true
    vm:succeed("put who " .. n)
  end
  t.same(count(ids), 12, "ids")
  t.same(count(cids), 12, "CIDs")
  t.same(count(macs), 12, "MAC addresses")
  vmoon.task.map(machines, function(vm)
    local snap <close> = vm:snapshot "s"
    vm:succeed "put who nobody"
    vm:restore(snap)
  end)
  for n, vm in ipairs(machines) do t.same(t.trim(vm:succeed "get who"), tostring(n), vm.name) end
  for _, vm in ipairs(machines) do vm:close() end
  t.same(vmoon.get "crowd-1", nil, "a machine after close")
end)

t.case("one machine's crash is nobody else's", function()
  local good <close> = vmoon.boot { memory = "32MiB" }
  local bad <close> = vmoon.boot { memory = "32MiB" }
  pcall(bad.exec, bad, "panic")
  bad:wait("crashed", { timeout = "5s" })
  t.same(good.state, "running", "state of the other")
  t.same(good:succeed "echo fine", "fine\n", "exec on the other")
end)

t.case("machines with several vCPUs", function()
  local vm <close> = vmoon.boot { cpus = 4, memory = "32MiB" }
  t.same(vm.cpus, 4, "cpus")
  local snap <close> = vm:snapshot "s"
  for _ = 1, 5 do
    vm:succeed "put k v"
    vm:restore(snap)
    t.same(vm:exec("get k").code, 1, "the value is gone")
  end
end)

t.case("80 machines one after the other leave no file open", function()
  -- Once before it counts: what is opened for the whole process stays. And a while: KVM may still
  -- be forgetting the machines above.
  do local vm <close> = vmoon.boot { memory = "32MiB" } end
  vmoon.sleep "1s"
  local before = t.descriptors()
  for _ = 1, 80 do
    local vm <close> = vmoon.boot { memory = "32MiB" }
    local snap <close> = vm:snapshot "s"
    t.same(vm:exec("true").code, 0, "exec")
  end
  -- A machine is closed for its user at once, and for KVM in the background.
  local after
  local ok = pcall(t.eventually, 20, "all are forgotten", function()
    collectgarbage()
    after = t.descriptors()
    return after <= before
  end)
  assert(ok, ("%d files open before, %d after"):format(before, after))
end)

t.finish()
