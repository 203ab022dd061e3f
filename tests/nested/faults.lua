-- What can be broken on purpose in a stock Linux, what Linux says of it, and that a restore mends it.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local image <const> = os.tmpname()
assert(os.execute("truncate -s 8M " .. image))
local remove <close> = setmetatable({}, { __close = function() os.remove(image) end })

local vm <close> = vmoon.boot {
  guest = "linux", cpus = 2, memory = "256MiB", timeout = "3m", disks = { { path = image } },
}
local PATIENCE <const> = { timeout = "60s" }
vm:succeed "mke2fs -q /dev/vda && mkdir /disk && mount -t ext4 /dev/vda /disk && echo kept > /disk/file"
vm:succeed "sync"
local server <close> = vm:spawn "vmoon-agent echo-server 5000"
vm:wait_port(5000, PATIENCE)
local healthy <close> = vm:snapshot "healthy"

--- A case that ends with what it broke undone by a restore.
local function broken(name, break_it)
  t.case(name, function()
    break_it()
    vm:restore(healthy)
    t.same(vm:succeed("cat /disk/file; echo more > /disk/more && sync && echo written"), "kept\nwritten\n", "the disk")
    local stream <close> = vm:connect(5000)
    stream:write "hello\n"
    t.same(stream:read_line(), "hello", "the sockets")
    local off = math.abs(tonumber(vm:succeed "date +%s") - os.time())
    assert(off < 60, "the clock is off by " .. off .. " s")
    t.same(#vm:succeed("nproc"):gsub("%s", ""), 1, "the vCPUs")
    for cpu = 0, 1 do vm:succeed(("taskset %d true"):format(1 << cpu), PATIENCE) end
  end)
end

broken("a block error is EIO to a program, and in the kernel's log", function()
  local fault = vm.faults:block { op = "read", sectors = { 8192, 8199 }, error = true }
  vm:succeed "echo 3 > /proc/sys/vm/drop_caches"
  local read = "dd if=/dev/vda of=/dev/null bs=4k count=1 skip="
  t.same(vm:exec(read .. 512).ok, true, "elsewhere")
  local result = vm:exec(read .. 1024)
  t.same(result.ok, false, "the bad sector")
  assert(result.stderr:find "Input/output error", result.stderr)
  assert(fault.hits >= 1, "hits")
  assert(vm:succeed("dmesg"):find "I/O error, dev vda, sector 8192", "the kernel's log")
end)

broken("writes that fail make ext4 say so", function()
  vm.faults:block { op = "write", error = true }
  local result = vm:exec "echo lost | dd of=/disk/file conv=fsync"
  t.same(result.ok, false, "a write that is waited for")
  assert(result.stderr:find "Input/output error", result.stderr)
  local log = vm:succeed "dmesg"
  assert(log:find "EXT4%-fs" and log:find "I/O error, dev vda", log:sub(-400))
end)

broken("a slow disk is waited for, and nothing else", function()
  vm:succeed "echo 3 > /proc/sys/vm/drop_caches"
  local fault <close> = vm.faults:block { op = "read", delay = "1h" }
  local reading = vmoon.task.spawn(function()
    return vm:exec "dd if=/dev/vda of=/dev/null bs=4k count=1 skip=1024"
  end)
  t.eventually(60, "the request waits", function() return fault.hits >= 1 end)
  t.same(vm:succeed("echo beside", PATIENCE), "beside\n", "a command")
  fault:close()
  t.same(reading:join().ok, true, "the read")
end)

broken("a connection that is cut is reset on both sides", function()
  local stream <close> = vm:connect(5000)
  stream:write "first\n"
  t.same(stream:read_line(), "first", "before")
  vm.faults:vsock { port = 5000, cut = true }
  t.raises("vsock.reset", stream.read_line, stream)
  t.raises("vsock.reset", vm.connect, vm, 5000)
  t.same(vm:exec("true").ok, true, "the agent")
end)

broken("a slow connection is late by its delay, and the agent's is not", function()
  local stream <close> = vm:connect(5000)
  local fault = vm.faults:vsock { port = 5000, delay = "1h" }
  stream:write "late\n"
  local reading = vmoon.task.spawn(function() return stream:read_line() end)
  t.eventually(60, "the bytes are under way", function() return fault.hits >= 1 end)
  t.same(vm:succeed("echo beside", PATIENCE), "beside\n", "a command")
  fault:close()
  t.same(reading:join(), "late", "the echo")
end)

broken("the wall clock jumps", function()
  vm.faults:clock { jump = "24h" }
  local ahead = tonumber(vm:succeed "date +%s") - os.time()
  assert(math.abs(ahead - 86400) < 60, "ahead by " .. ahead)
end)

broken("a vCPU that is held stops what runs on it, and the other goes on", function()
  -- Who holds a lock for the kernel may be held with it: only what needs nothing of it is asked.
  local fault = vm.faults:vcpu { index = 1, pause = true }
  t.same(vm.state, "running", "state")
  local ended = false
  local waiting = vmoon.task.spawn(function()
    local result = vm:exec "taskset 2 true"
    ended = true
    return result
  end)
  vmoon.sleep "500ms"
  assert(not ended, "it ran on a processor that makes no progress")
  fault:close()
  t.same(waiting:join().ok, true, "after the end")
end)

broken("an NMI reaches Linux", function()
  local function count()
    local sum = 0
    for number in vm:succeed("grep NMI: /proc/interrupts"):gmatch "%d+" do sum = sum + tonumber(number) end
    return sum
  end
  local before = count()
  vm:nmi()
  t.eventually(60, "the interrupt is counted", function() return count() > before end)
end)

broken("a crash ends what waits", function()
  local waiting = vmoon.task.spawn(function() return pcall(vm.wait_port, vm, 5999) end)
  vmoon.sleep "100ms"
  vm:crash()
  t.same(vm.state, "crashed", "state")
  local ok, err = waiting:join()
  t.same(not ok and err.code, "guest.panic", "the wait")
end)

t.finish()
