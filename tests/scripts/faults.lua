-- What can be broken on purpose, and that a restore mends it.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local image <const> = os.tmpname()
do
  local file <close> = assert(io.open(image, "wb"))
  file:write(("\0"):rep(64 * 512))
end

local remove <close> = setmetatable({}, { __close = function() os.remove(image) end })
local vm <close> = vmoon.boot { memory = "32MiB", disks = { { path = image } } }

local function write(sector) return vm:exec(("blk write %d %s"):format(sector, ("ab"):rep(512))) end
local function read(sector) return vm:exec(("blk read %d 1"):format(sector)) end

t.case("KVM's machines can be broken", function()
  t.same(vmoon.capabilities(vm.backend).faults, vm.backend == "kvm", "faults")
end)

if not vmoon.capabilities(vm.backend).faults then
  t.case("where there are no faults, that is said", function()
    local reason = vmoon.capabilities(vm.backend).reasons.faults
    for _, break_it in ipairs {
      function() vm.faults:block { error = true } end,
      function() vm.faults:vsock { cut = true } end,
      function() vm.faults:vcpu { pause = true } end,
      function() vm:crash() end,
      function() vm:nmi() end,
    } do
      local err = t.raises("backend.unsupported", break_it)
      assert(err.message:find(reason, 1, true), err.message)
    end
    t.same(vm:exec("true").ok, true, "exec")
  end)
  t.finish()
  return
end

t.case("a disk fails by operation, sector and count, until the fault is closed", function()
  do
    local fault <close> = vm.faults:block { op = "write", sectors = { 8, 15 }, after = 1, times = 2, error = true }
    t.same(write(7).ok, true, "a sector beside")
    t.same(write(8).ok, true, "the one before")
    t.same(fault.hits, 0, "hits")
    t.same(write(8).ok, false, "the first that fails")
    t.same(read(8).ok, true, "a read")
    t.same(write(15).ok, false, "the second")
    t.same(fault.hits, 2, "hits")
    t.same(write(8).ok, true, "those after")
  end
  local fault <close> = vm.faults:block { disk = 1, error = true }
  t.same(read(0).ok, false, "any request")
  fault:close()
  t.same(fault.active, false, "active")
  t.same(fault.hits, nil, "hits of a closed one")
  t.same(read(0).ok, true, "after the end")
end)

t.case("a slow disk is waited for, and a fault that is closed lets go at once", function()
  local slow = vm.faults:block { op = "read", delay = "30ms" }
  t.same(read(0).ok, true, "a slow read")
  t.same(slow.hits, 1, "hits")
  slow:close()
  local stuck = vm.faults:block { op = "read", delay = "1h" }
  local waiting = vmoon.task.spawn(function() return read(0) end)
  t.eventually(20, "the request waits", function() return stuck.hits == 1 end)
  t.same(vm:exec("true").ok, true, "the rest of the machine goes on")
  stuck:close()
  t.same(waiting:join().ok, true, "the read")
end)

t.case("connections are cut, and not made, by port", function()
  local server <close> = vm:spawn "echo-server 5000"
  local other <close> = vm:spawn "echo-server 5001"
  vm:wait_port(5000)
  vm:wait_port(5001)
  local cut, kept = vm:connect(5000), vm:connect(5001)
  do
    local fault <close> = vm.faults:vsock { port = 5000, cut = true }
    t.raises("vsock.reset", cut.read_line, cut)
    t.raises("vsock.reset", vm.connect, vm, 5000)
    kept:write "hello\n"
    t.same(kept:read_line(), "hello", "another port")
    t.same(vm:exec("true").ok, true, "the agent")
    assert(fault.hits >= 2, "hits: " .. tostring(fault.hits))
  end
  local stream <close> = vm:connect(5000)
  local fault <close> = vm.faults:vsock { port = 5000, cut = true, after = 12 }
  stream:write "first\n"
  t.same(stream:read_line(), "first", "what passes before")
  t.raises("vsock.reset", function() while true do stream:write "more\n"; stream:read_line() end end)
end)

t.case("guests cannot connect to a port that is cut", function()
  local listener <close> = vm:listen(6000)
  local fault <close> = vm.faults:vsock { port = 6000, cut = true }
  t.same(vm:exec("connect 6000 hello").ok, false, "connect")
end)

t.case("a slow connection is late in both directions, in order, and holds up nothing else", function()
  local server <close> = vm:spawn "echo-server 5000"
  local other <close> = vm:spawn "echo-server 5001"
  vm:wait_port(5000)
  vm:wait_port(5001)
  local function late(kind, work)
    local begun = t.now()
    local result = work()
    local took = t.now() - begun
    -- The clock counts in steps of 10 ms.
    assert(took >= 0.029, ("%s took %.3f s"):format(kind, took))
    return result
  end
  do
    local fault <close> = vm.faults:vsock { port = 5000, delay = "40ms" }
    local stream <close> = late("to connect", function() return vm:connect(5000) end)
    for n = 1, 3 do
      t.same(late("a line", function()
        stream:write("line " .. n .. "\n")
        return stream:read_line()
      end), "line " .. n, "the echo")
    end
    assert(fault.hits >= 7, "hits: " .. fault.hits)
    -- More than fits: the writer waits for its reader, and nothing is lost or swapped.
    local data = {}
    for n = 1, 1 << 15 do data[n] = ("%08x\n"):format(n):rep(4) end
    local text = table.concat(data)
    local writing = vmoon.task.spawn(function() stream:write(text) end)
    assert(t.read_exactly(stream, #text) == text, "what came back is something else")
    writing:join()
  end
  local slow, quick = vm:connect(5000), vm:connect(5001)
  local fault = vm.faults:vsock { port = 5000, delay = "1h" }
  slow:write "late\n"
  local reading = vmoon.task.spawn(function() return slow:read_line() end)
  t.eventually(20, "the line is under way", function() return fault.hits >= 1 end)
  quick:write "at once\n"
  t.same(quick:read_line(), "at once", "another connection")
  t.same(vm:exec("true").ok, true, "the agent")
  fault:close()
  t.same(reading:join(), "late", "after the end")
end)

t.case("the delay of a connection is undone by a restore", function()
  local server <close> = vm:spawn "echo-server 5000"
  vm:wait_port(5000)
  local stream <close> = vm:connect(5000)
  local clean <close> = vm:snapshot()
  local fault = vm.faults:vsock { delay = "1h" }
  stream:write "lost\n"
  vm:restore(clean)
  t.same(fault.active, false, "active")
  stream:write "hello\n"
  t.same(stream:read_line(), "hello", "the echo")
end)

t.case("a vCPU that is held makes no progress, though the machine runs", function()
  do
    local fault <close> = vm.faults:vcpu { index = 0, pause = true }
    t.same(vm.state, "running", "state")
    local ended = false
    local waiting = vmoon.task.spawn(function()
      local result = vm:exec "echo late"
      ended = true
      return result
    end)
    vmoon.sleep "50ms"
    assert(not ended, "it ran")
    vm:pause()
    vm:resume()
    fault:close()
    t.same(waiting:join().stdout, "late\n", "after the end")
  end
  t.same(vm:exec("true").ok, true, "and on")
end)

t.case("the wall clock jumps, both ways", function()
  local function off() return tonumber(vm:succeed "date") - os.time() end
  for jump, seconds in pairs { ["1h"] = 3600, ["-1h"] = -3600, [7200] = 7200, [-60] = -60 } do
    vm.faults:clock { jump = jump }
    assert(math.abs(off() - seconds) < 30, ("jump %s: %s"):format(jump, off()))
  end
end)

t.case("a restore undoes every fault, and brings back those of its snapshot", function()
  vm.faults:clear()
  local clean <close> = vm:snapshot()
  local fault = vm.faults:block { op = "write", error = true }
  local broken <close> = vm:snapshot()
  vm.faults:vcpu { pause = true }
  vm.faults:vsock { port = 1024, cut = true }
  vm:restore(clean)
  t.same(fault.active, false, "active")
  t.same(write(0).ok, true, "a write")
  assert(math.abs(tonumber(vm:succeed "date") - os.time()) < 30, "the clock")
  vm:restore(broken)
  t.same(fault.active, true, "active again")
  t.same(write(0).ok, false, "a write")
  local fork <close> = broken:fork()
  t.same(fork:exec("blk write 0 " .. ("ab"):rep(512)).ok, false, "a fork's write")
  fork.faults:clear()
  t.same(fork:exec("blk write 0 " .. ("ab"):rep(512)).ok, true, "a mended fork's")
  t.same(write(0).ok, false, "and still not the machine's")
  vm.faults:clear()
  t.same(write(0).ok, true, "a mended write")
end)

t.case("a crash on purpose ends what waits, and a restore brings the machine back", function()
  local snap <close> = vm:snapshot()
  local waiting = vmoon.task.spawn(function() return pcall(vm.wait_port, vm, 5999) end)
  vmoon.sleep "20ms"
  vm:crash()
  t.same(vm.state, "crashed", "state")
  local ok, err = waiting:join()
  t.same(not ok and err.code, "guest.panic", "the wait")
  t.raises("vm.state", vm.crash, vm)
  t.raises("vm.state", vm.nmi, vm)
  t.raises("vm.state", vm.faults.block, vm.faults, { error = true })
  vm:restore(snap)
  t.same(vm:exec("true").ok, true, "exec")
end)

t.case("what cannot be is explained", function()
  local faults = vm.faults
  local err = t.raises("vm.spec", faults.block, faults, { disk = 2, error = true })
  assert(err.message:find("disk 2", 1, true), err.message)
  t.raises("vm.spec", faults.vcpu, faults, { index = 1, pause = true })
  t.raises("vm.spec", faults.vcpu, faults, { index = 0 })
  t.raises("vm.spec", faults.vsock, faults, { port = 5000 })
  t.raises("vm.spec", faults.vsock, faults, { cut = true, delay = "1s" })
  t.raises("vm.spec", faults.vsock, faults, { delay = -1 })
  t.raises("vm.spec", faults.block, faults, {})
  t.raises("vm.spec", faults.block, faults, { error = true, delay = "1s" })
  t.raises("vm.spec", faults.block, faults, { error = true, op = "trim" })
  t.raises("vm.spec", faults.block, faults, { error = true, sectors = { 9, 1 } })
  t.raises("vm.spec", faults.clock, faults, {})
  t.raises("vm.spec", faults.clock, faults, { jump = "soon" })
end)

t.case("a non-maskable interrupt reaches the guest", function()
  vm:nmi()
  vm:wait("crashed", { timeout = "20s" })
  assert(vm.console:text():find "exception 02", vm.console:tail(3))
end)

t.finish()
