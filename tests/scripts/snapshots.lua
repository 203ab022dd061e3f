-- Snapshots: what they bring back, from which states, and what they refuse.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

t.case("restore brings memory back", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put colour green"
  vm:succeed "dirty 30 1"
  local before = vm:succeed "checksum"
  local clean <close> = vm:snapshot "clean"
  for round = 1, 20 do
    vm:succeed("put colour red" .. round)
    vm:succeed("dirty 40 " .. round + 100)
    assert(vm:succeed "checksum" ~= before, "memory has changed")
    vm:restore(clean)
    t.same(vm.state, "running", "state")
    t.same(t.trim(vm:succeed "get colour"), "green", "the value")
    t.same(vm:succeed "checksum", before, "the checksum")
  end
end)

t.case("the machine goes on after a snapshot", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vm:snapshot "one"
  t.same(vm.state, "running", "state")
  t.same(vm:succeed "echo on", "on\n", "exec")
end)

t.case("a snapshot's fields", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local started = os.time()
  local first <close> = vm:snapshot "first"
  vm:succeed "dirty 100 5"
  local second <close> = vm:snapshot "second"
  t.same(first.name, "first", "name")
  t.same(first.vm_id, vm.id, "vm_id")
  t.same(first.parent, nil, "parent of the first")
  t.same(second.parent, first.id, "parent of the second")
  assert(first.id ~= second.id and #first.id > 0, "ids")
  t.same(first.memory, 32 << 20, "memory")
  assert(second.created >= first.created, "created, in order")
  assert(math.abs(first.created - started) <= 5, "created, in seconds since 1970")
  assert(second.dirty_pages >= 100, "dirty pages: " .. second.dirty_pages)
  assert(second.dirty_pages < 1000, "only what was dirtied: " .. second.dirty_pages)
  assert(second.bytes >= 100 * 4096 and second.bytes < 8 << 20, "bytes: " .. second.bytes)
end)

t.case("restore by name, and by handle", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put n 1"
  local one <close> = vm:snapshot "one"
  vm:succeed "put n 2"
  local two <close> = vm:snapshot "two"
  vm:restore "one"
  t.same(t.trim(vm:succeed "get n"), "1", "n at one")
  vm:restore "two"
  t.same(t.trim(vm:succeed "get n"), "2", "n at two")
  vm:restore(one)
  t.same(t.trim(vm:succeed "get n"), "1", "n at one, again")
end)

t.case("a snapshot without a name", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vm:snapshot()
  vm:succeed "put k v"
  vm:restore(snap)
  t.same(vm:exec("get k").code, 1, "the value is gone")
end)

t.case("snapshots lists newest first", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  t.same(#vm:snapshots(), 0, "none at first")
  local a <close> = vm:snapshot "a"
  local b <close> = vm:snapshot "b"
  local c <close> = vm:snapshot "c"
  local names = {}
  for i, snap in ipairs(vm:snapshots()) do names[i] = snap.name end
  t.same(table.concat(names, " "), "c b a", "names")
end)

t.case("prune keeps the newest and returns the ids of the others", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snaps = {}
  for i = 1, 5 do
    vm:succeed("put n " .. i)
    snaps[i] = vm:snapshot("s" .. i)
  end
  local deleted = vm:prune(2)
  t.same(#deleted, 3, "deleted")
  local gone = {}
  for _, id in ipairs(deleted) do gone[id] = true end
  for i = 1, 5 do t.same(gone[snaps[i].id] or false, i <= 3, "s" .. i .. " deleted") end
  t.same(#vm:snapshots(), 2, "left")
  vm:restore(snaps[4])
  t.same(t.trim(vm:succeed "get n"), "4", "n at s4, whose ancestors are gone")
  t.raises("snapshot.not_found", vm.restore, vm, snaps[1])
  t.same(t.trim(vm:succeed "get n"), "4", "n after the refusal")
end)

t.case("a deleted snapshot is refused, and nothing changes", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap = vm:snapshot "gone"
  vm:succeed "put k kept"
  snap:delete()
  t.raises("snapshot.not_found", vm.restore, vm, snap)
  t.raises("snapshot.not_found", vm.restore, vm, "gone")
  t.raises("snapshot.not_found", vm.restore, vm, "never was")
  t.same(vm.state, "running", "state")
  t.same(t.trim(vm:succeed "get k"), "kept", "the value")
  t.same(#vm:snapshots(), 0, "snapshots")
end)

t.case("deleting a snapshot leaves its children whole", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "dirty 50 1"
  local a = vm:snapshot "a"
  vm:succeed "dirty 10 2"
  local sum = vm:succeed "checksum"
  local b <close> = vm:snapshot "b"
  a:delete()
  vm:succeed "dirty 60 3"
  vm:restore(b)
  t.same(vm:succeed "checksum", sum, "the checksum at b")
end)

t.case("closing a snapshot deletes it", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  do local snap <close> = vm:snapshot "short" end
  t.same(#vm:snapshots(), 0, "snapshots")
end)

t.case("another machine's snapshot is refused, and nothing changes", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local other <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put whose mine"
  local theirs <close> = other:snapshot "theirs"
  t.raises("snapshot.foreign", vm.restore, vm, theirs)
  t.same(vm.state, "running", "state")
  t.same(t.trim(vm:succeed "get whose"), "mine", "the value")
  other:restore(theirs)
  t.same(other:exec("true").code, 0, "the other machine")
end)

t.case("restore leaves the state in which the snapshot was taken", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put k 1"
  local running <close> = vm:snapshot "running"
  vm:pause()
  local paused <close> = vm:snapshot "paused"
  t.same(vm.state, "paused", "state after a snapshot while paused")
  vm:restore(running)
  t.same(vm.state, "running", "restored from paused to running")
  t.same(t.trim(vm:succeed "get k"), "1", "exec")
  vm:restore(paused)
  t.same(vm.state, "paused", "restored to paused")
  vm:resume()
  t.same(t.trim(vm:succeed "get k"), "1", "exec after resume")
  vm:restore(running, { paused = true })
  t.same(vm.state, "paused", "held paused")
  vm:resume()
  t.same(t.trim(vm:succeed "get k"), "1", "exec after resume")
end)

t.case("restore brings back a machine that crashed", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put k alive"
  local snap <close> = vm:snapshot "alive"
  for _ = 1, 3 do
    pcall(vm.exec, vm, "panic")
    vm:wait("crashed", { timeout = "5s" })
    vm:restore(snap)
    t.same(vm.state, "running", "state")
    t.same(t.trim(vm:succeed "get k"), "alive", "the value")
  end
end)

t.case("restore brings back a machine that stopped, powered off or was killed", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put k alive"
  local snap <close> = vm:snapshot "alive"
  vm:stop()
  t.same(vm.state, "stopped", "state")
  vm:restore(snap)
  t.same(t.trim(vm:succeed "get k"), "alive", "after stop")
  pcall(vm.exec, vm, "poweroff")
  vm:wait("stopped", { timeout = "5s" })
  vm:restore(snap)
  t.same(t.trim(vm:succeed "get k"), "alive", "after a power-off")
  vm:kill()
  vm:restore(snap)
  t.same(t.trim(vm:succeed "get k"), "alive", "after kill")
end)

t.case("restore brings back a machine that hangs", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vm:snapshot "alive"
  t.raises("exec.timeout", vm.exec, vm, "hang", { timeout = "200ms" })
  vm:restore(snap)
  t.same(vm:succeed "echo back", "back\n", "exec")
end)

t.case("a command in flight at the restore ends with an error, and the next one works", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vm:snapshot "idle"
  local sleeper = vmoon.task.spawn(function() return pcall(vm.exec, vm, "sleep 60000") end)
  vmoon.sleep "100ms"
  vm:restore(snap)
  t.same(vm:succeed "echo next", "next\n", "the next command")
  local ok, err = sleeper:join()
  assert(not ok and type(err) == "table" and err.code, "the command in flight: " .. tostring(err))
end)

t.case("two runs from a snapshot get different random numbers, unless deterministic", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vm:snapshot "seeded"
  local fresh, fixed = {}, {}
  for i = 1, 3 do
    vm:restore(snap)
    fresh[i] = vm:succeed "random 16"
    vm:restore(snap, { deterministic = true })
    fixed[i] = vm:succeed "random 16"
  end
  assert(fresh[1] ~= fresh[2] and fresh[2] ~= fresh[3] and fresh[1] ~= fresh[3], "fresh entropy")
  assert(fixed[1] == fixed[2] and fixed[2] == fixed[3], "the same life each time")
end)

t.case("a disk is part of the snapshot", function()
  local path = os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(("\0"):rep(1 << 20))
  file:close()
  local vm <close> = vmoon.boot { memory = "32MiB", disks = { { path = path } } }
  vm:succeed("blk write 3 " .. ("ab"):rep(512))
  local snap <close> = vm:snapshot "written"
  vm:succeed("blk write 3 " .. ("cd"):rep(512))
  vm:succeed("blk write 9 " .. ("ef"):rep(512))
  vm:restore(snap)
  assert(vm:succeed("blk read 3 1"):lower():find "^abab", "sector 3 is back")
  assert(vm:succeed("blk read 9 1"):lower():find "^0000", "sector 9 is back")
  local image <close> = assert(io.open(path, "rb"))
  assert(not image:read("a"):find "[^\0]", "the image is untouched")
  os.remove(path)
end)

t.case("200 restores, each with a command", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "dirty 100 1"
  local sum = vm:succeed "checksum"
  local snap <close> = vm:snapshot "base"
  for round = 1, 200 do
    vm:succeed("dirty 20 " .. round + 1)
    vm:restore(snap)
    if round % 20 == 0 then t.same(vm:succeed "checksum", sum, "checksum, round " .. round) end
  end
end)

t.finish()
