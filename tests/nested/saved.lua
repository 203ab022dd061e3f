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

--- Asserts that a machine's next command sees the host's time, however long the command takes.
local function has_the_time(machine)
  local before = os.time()
  local guest = tonumber(machine:succeed "date +%s")
  local after = os.time()
  assert(guest >= before - 1 and guest <= after + 1,
    ("the guest says %d between %d and %d"):format(guest, before, after))
end

-- The clock that the guest must not go on from.
vmoon.sleep(3)
local snap <close> = vmoon.load(directory)
local vm <close> = snap:fork()

t.case("the first command after a load sees the host's time", function()
  has_the_time(vm)
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

t.case("forks at once: the same files, other randomness, the host's time", function()
  local forks = snap:fork(3)
  local seen = {}
  for _, fork in ipairs(forks) do
    has_the_time(fork)
    local random = fork:succeed "head -c 16 /dev/urandom | sha256sum"
    assert(not seen[random], "the same randomness")
    seen[random] = true
    t.same(fork:exec("sha256sum -c /tmp/sum").code, 0, "the blob")
    fork:close()
  end
end)

t.case("a tree of snapshots, restored in random order, agrees with a model", function()
  local seed = os.time()
  math.randomseed(seed)
  print("    seed " .. seed)
  local tree = {}
  for n = 1, 8 do
    if n > 1 then vm:restore(tree[math.random(#tree)].snap) end
    vm:succeed(("echo %d > /tmp/number; head -c %d /dev/urandom > /tmp/noise"):format(n, n * 20000))
    local state = { number = n .. "\n", sum = vm:succeed "sha256sum /tmp/noise" }
    state.snap = vm:snapshot("tree " .. n)
    tree[n] = state
  end
  tree[3].snap:delete()
  table.remove(tree, 3)
  for round = 1, 30 do
    local chosen = tree[math.random(#tree)]
    if round % 3 == 0 then vm:succeed "head -c 300000 /dev/urandom > /tmp/noise; echo 0 > /tmp/number" end
    vm:restore(chosen.snap)
    t.same(vm:succeed "cat /tmp/number", chosen.number, "the number, round " .. round)
    t.same(vm:succeed "sha256sum /tmp/noise", chosen.sum, "the checksum, round " .. round)
    has_the_time(vm)
  end
  for _, state in ipairs(tree) do state.snap:delete() end
end)

t.case("a fork goes back to the loaded snapshot, and its clock is right again", function()
  vm:succeed "rm /tmp/file; echo 3 > /proc/sys/vm/drop_caches"
  vmoon.sleep(2)
  vm:restore(snap)
  has_the_time(vm)
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
