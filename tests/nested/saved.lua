-- A saved snapshot of stock Linux: loaded, forked, and its clock right after.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local folder = os.tmpname()
os.remove(folder)
local directory = folder .. "/linux"
local booted

do
  local vm <close> = vmoon.boot { guest = "linux", memory = "192MiB", cpus = 2, timeout = "3m" }
  vm:succeed "echo precious > /tmp/file && dd if=/dev/urandom of=/tmp/blob bs=64k count=32 2>/dev/null"
  vm:succeed "sha256sum /tmp/blob > /tmp/sum"
  booted = vm:succeed "dmesg"
  local snap <close> = vm:snapshot "linux"
  local begun = os.time()
  snap:save(directory)
  print(("    saved %d MiB in %d s"):format(snap.bytes >> 20, os.time() - begun))
end

-- The clock that the guest must not go on from.
vmoon.sleep(3)
local snap <close> = vmoon.load(directory)
local vm <close> = snap:fork()

t.case("the first command after a load sees the host's time", function()
  local before = os.time()
  local guest = tonumber(vm:succeed "date +%s")
  local after = os.time()
  assert(guest >= before - 1 and guest <= after + 1,
    ("the guest says %d between %d and %d"):format(guest, before, after))
end)

t.case("files in memory are there", function()
  t.same(vm:succeed "cat /tmp/file", "precious\n", "the file")
  t.same(vm:exec("sha256sum -c /tmp/sum").code, 0, "the blob")
end)

t.case("forks of a loaded snapshot are apart, and draw different randomness", function()
  local draw = "head -c 16 /dev/urandom | sha256sum"
  local other <close> = snap:fork()
  other:succeed "echo changed > /tmp/file"
  t.same(vm:succeed "cat /tmp/file", "precious\n", "the file")
  assert(vm:succeed(draw) ~= other:succeed(draw), "the same randomness")
end)

t.case("a fork goes back to the loaded snapshot, and its clock is right again", function()
  vm:succeed "rm /tmp/file; echo 3 > /proc/sys/vm/drop_caches"
  vmoon.sleep(2)
  vm:restore(snap)
  local before = os.time()
  local guest = tonumber(vm:succeed "date +%s")
  local after = os.time()
  assert(guest >= before - 1 and guest <= after + 1,
    ("the guest says %d between %d and %d"):format(guest, before, after))
  t.same(vm:succeed "cat /tmp/file", "precious\n", "the file")
end)

t.case("the kernel has nothing to complain of", function()
  -- What it said while it booted is not about this.
  local log = vm:succeed("dmesg"):sub(#booted + 1)
  for _, word in ipairs { "soft lockup", "rcu_sched detected", "self%-detected stall", "Call Trace" } do
    assert(not log:find(word), word .. " in the kernel's log:\n" .. log)
  end
  t.same(t.trim(vm:succeed "nproc"), "2", "CPUs")
end)

os.execute("rm -rf '" .. folder .. "'")
t.finish()
