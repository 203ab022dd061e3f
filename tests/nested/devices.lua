-- vsock and balloon with Linux's own drivers.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local MiB <const> = 1 << 20
local vm <close> = vmoon.boot { guest = "linux", memory = "256MiB", timeout = "2m" }

--- 16 MiB without a period that a lost or doubled buffer could hide in.
local function payload()
  local parts, state = {}, 1
  for n = 1, 16 * 1024 do
    state = (state * 6364136223846793005 + 1442695040888963407)
    parts[n] = ("%016x"):format(state):rep(64)
  end
  return table.concat(parts)
end

local function host_sha256(data)
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(data)
  file:close()
  local handle <close> = assert(io.popen("sha256sum " .. path))
  local sum = handle:read "a":match "^%x+"
  os.remove(path)
  return sum
end

local data = payload()
t.same(#data, 16 * MiB, "the payload")
local sum = host_sha256(data)

t.case("16 MiB to the guest: the hash there is the hash here", function()
  t.same(vm:succeed("sha256sum", { stdin = data, timeout = "3m" }):match "^%x+", sum, "sha256")
end)

t.case("16 MiB echoed by the guest: each way, the hash compared", function()
  local server <close> = vm:spawn "vmoon-agent echo-server 5000"
  vm:wait_port(5000, { timeout = "30s" })
  local stream <close> = vm:connect(5000)
  local writer = vmoon.task.spawn(function()
    stream:write(data)
    stream:shutdown()
  end)
  local parts = {}
  while true do
    local part = stream:read(MiB)
    if not part then break end
    parts[#parts + 1] = part
  end
  writer:join()
  local back = table.concat(parts)
  t.same(#back, #data, "length")
  t.same(host_sha256(back), sum, "sha256")
end)

t.case("16 MiB from the guest: what it hashed is what came", function()
  vm:succeed "dd if=/dev/urandom of=/tmp/out bs=1M count=16 2>/dev/null"
  local expected = vm:succeed("sha256sum /tmp/out"):match "^%x+"
  local out = vm:succeed("cat /tmp/out", { timeout = "3m" })
  t.same(#out, 16 * MiB, "length")
  t.same(host_sha256(out), expected, "sha256")
  vm:succeed "rm /tmp/out"
end)

t.case("the guest connects to the host", function()
  local listener <close> = vm:listen(6000)
  local host = vmoon.task.spawn(function()
    local stream <close> = listener:accept { timeout = "30s" }
    local line = stream:read_line()
    stream:write("you said " .. line .. "\n")
  end)
  t.same(t.trim(vm:succeed "vmoon-agent connect 6000 hello"), "you said hello", "the reply")
  host:join()
end)

t.case("a port without a listener refuses", function()
  t.raises("vsock.refused", vm.connect, vm, 5999, { timeout = "30s" })
end)

t.case("an idle connection lives on across a restore", function()
  local server <close> = vm:spawn "vmoon-agent echo-server 5001"
  vm:wait_port(5001, { timeout = "30s" })
  local stream <close> = vm:connect(5001)
  stream:write "before\n"
  t.same(stream:read_line(), "before", "the echo")
  local snap <close> = vm:snapshot "idle"
  for round = 1, 5 do
    stream:write(("after the snapshot %d\n"):format(round))
    t.same(stream:read_line(), "after the snapshot " .. round, "the echo")
    vm:restore(snap)
    stream:write(("after the restore %d\n"):format(round))
    t.same(stream:read_line(), "after the restore " .. round, "the echo")
    vm:restore(snap)
  end
end)

t.case("balloon to half and back: MemAvailable and the host's memory follow", function()
  local function available()
    return tonumber(vm:succeed("cat /proc/meminfo"):match "MemAvailable:%s*(%d+)") * 1024
  end
  -- Memory that the guest used and freed is still held by the host: the balloon gives it back.
  vm:succeed "dd if=/dev/zero of=/tmp/fill bs=1M count=100 2>/dev/null; rm /tmp/fill"
  local before, held = available(), vm.balloon:stats().host_rss
  assert(held > 100 * MiB, "the host holds what the guest wrote: " .. held // MiB .. " MiB")
  vm.balloon:set("128MiB", { wait = true, timeout = "60s" })
  t.same(vm.balloon.actual, 128 * MiB, "actual")
  local half, held_at_half = available(), vm.balloon:stats().host_rss
  print(("    MemAvailable %d, at half %d MiB; held by the host %d, at half %d MiB"):format(
    before // MiB, half // MiB, held // MiB, held_at_half // MiB))
  assert(before - half > 100 * MiB, "MemAvailable fell")
  assert(held_at_half <= 128 * MiB, "the host holds no more than the guest is left with")
  assert(held_at_half < held, "the host's memory fell")
  vm.balloon:set("256MiB", { wait = true, timeout = "60s" })
  t.same(vm.balloon.actual, 256 * MiB, "actual at the end")
  assert(math.abs(available() - before) < 16 * MiB, "MemAvailable is back")
  vm:succeed "dd if=/dev/zero of=/tmp/fill bs=1M count=100 2>/dev/null; rm /tmp/fill"
end)

t.case("a disk is read and written, and is part of the snapshot", function()
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(("\0"):rep(8 * MiB))
  file:close()
  local other <close> = vmoon.boot {
    guest = "linux", memory = "192MiB", timeout = "2m", disks = { { path = path } },
  }
  other:succeed "printf first | dd of=/dev/vda bs=512 seek=5 conv=sync 2>/dev/null; sync"
  local snap <close> = other:snapshot "first"
  other:succeed "printf second | dd of=/dev/vda bs=512 seek=5 conv=sync 2>/dev/null; sync"
  other:restore(snap)
  local read = other:succeed "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda bs=512 skip=5 count=1 2>/dev/null | tr -d '\\0'"
  t.same(read, "first", "the sector")
  os.remove(path)
end)

t.case("a root that holds none ends the guest at once, with the reason", function()
  local path = os.tmpname()
  assert(os.execute("truncate -s 8M " .. path))
  local err = t.raises("guest.stopped", vmoon.boot, {
    guest = "linux", memory = "192MiB", timeout = "5m", root = path,
  })
  os.remove(path)
  assert(err.console_tail:find "no root on /dev/vda: it cannot be mounted", err.console_tail)
end)

t.finish()
