-- Saved snapshots: written to a directory, read by this process and by another.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

-- The second process: this script with a directory.
if arg[1] then
  local snap <close> = vmoon.load(arg[1])
  local vm <close> = snap:fork()
  io.write(vm:succeed "get colour", vm:succeed "checksum", vm:succeed "random 16", vm.id, "\n")
  return
end

local folder = os.tmpname()
os.remove(folder)
local function at(name) return folder .. "/" .. name end
local cleanup <close> = setmetatable({}, { __close = function() os.execute("rm -rf '" .. folder .. "'") end })

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

local sum, id, vm_id
do
  local vm <close> = vmoon.boot { name = "saved", memory = "32MiB" }
  vm:succeed "put colour blue"
  local below <close> = vm:snapshot "below"
  vm:succeed "put colour green"
  vm:succeed "dirty 200 3"
  sum = vm:succeed "checksum"
  local snap <close> = vm:snapshot "good"
  id, vm_id = snap.id, vm.id

  t.case("a snapshot is saved while its machine lives, and loaded beside it", function()
    vm:succeed "put colour red"
    snap:save(at "a/good")
    local loaded <close> = vmoon.load(at "a/good")
    for _, field in ipairs { "id", "name", "vm_id", "parent", "memory" } do
      t.same(loaded[field], snap[field], field)
    end
    assert(math.abs(loaded.created - snap.created) < 1e-3, "created")
    assert(loaded.dirty_pages >= 200 and loaded.bytes >= 200 * 4096, "figures")
    -- It is one of this machine's own.
    vm:restore(loaded)
    t.same(vm:succeed "get colour", "green\n", "the value")
    t.same(vm:succeed "checksum", sum, "the checksum")
    local other <close> = vmoon.boot { memory = "32MiB" }
    t.raises("snapshot.foreign", other.restore, other, loaded)
  end)

  t.case("the snapshot beneath is saved as it was, whatever came later", function()
    below:save(at "below")
    local loaded <close> = vmoon.load(at "below")
    local fork <close> = loaded:fork()
    t.same(fork:succeed "get colour", "blue\n", "the value")
  end)

  t.case("a deleted snapshot is not saved", function()
    local brief = vm:snapshot "brief"
    brief:delete()
    t.raises("snapshot.not_found", brief.save, brief, at "brief")
    t.raises("snapshot.not_found", vmoon.load, at "brief")
  end)
end

t.case("machines are forked from a loaded snapshot whose machine is gone", function()
  local snap <close> = vmoon.load(at "a/good")
  t.same(snap.vm_id, vm_id, "vm_id")
  local forks = snap:fork(3)
  local seen = {}
  for _, vm in ipairs(forks) do
    t.same(vm.state, "running", "state")
    t.same(vm:succeed "get colour", "green\n", "the value")
    t.same(vm:succeed "checksum", sum, "the checksum")
    local random = vm:succeed "random 16"
    assert(not seen[random] and not seen[vm.id] and not seen[vm.cid] and vm.id ~= vm_id, "each is of its own")
    seen[random], seen[vm.id], seen[vm.cid] = true, true, true
  end
  for _, vm in ipairs(forks) do vm:close() end
end)

t.case("a fork goes back to the loaded snapshot, and to its own", function()
  local snap <close> = vmoon.load(at "a/good")
  local vm <close> = snap:fork()
  for round = 1, 20 do
    vm:succeed("put colour red", "dirty 50 " .. round)
    vm:restore(snap)
    t.same(vm:succeed "checksum", sum, "the checksum in round " .. round)
  end
  vm:succeed "put colour red"
  local own <close> = vm:snapshot "own"
  t.same(own.parent, snap.id, "parent")
  vm:restore(snap)
  vm:restore(own)
  t.same(vm:succeed "get colour", "red\n", "the value")
  -- A second handle to the same snapshot is as good.
  local again <close> = vmoon.load(at "a/good")
  vm:restore(again)
  t.same(vm:succeed "checksum", sum, "the checksum")
  own:save(at "own")
  local of_own <close> = vmoon.load(at "own")
  local fork <close> = of_own:fork()
  t.same(fork:succeed "get colour", "red\n", "the value of the fork's snapshot")
end)

t.case("two loads of one snapshot draw different randomness", function()
  local drawn = {}
  for _ = 1, 2 do
    local snap <close> = vmoon.load(at "a/good")
    local vm <close> = snap:fork()
    drawn[#drawn + 1] = vm:succeed "random 16"
  end
  assert(drawn[1] ~= drawn[2], "twice " .. drawn[1])
end)

t.case("another process sees the same", function()
  local binary = vmoon_binary or arg[-1] or "/proc/" .. tostring(read("/proc/self/stat"):match "^%d+") .. "/exe"
  local pipe <close> = assert(io.popen(("'%s' run '%s' '%s'"):format(binary, arg[0], at "a/good")))
  local colour, checksum, random, other_id = pipe:read("L", "L", "L", "l")
  t.same(colour, "green\n", "the value")
  t.same(checksum, sum, "the checksum")
  assert(#random >= 32 and other_id ~= vm_id, "random " .. tostring(random))
end)

t.case("what was loaded is saved again, in place of another", function()
  local snap <close> = vmoon.load(at "a/good")
  snap:save(at "below")
  local again <close> = vmoon.load(at "below")
  t.same(again.id, id, "id")
  local vm <close> = again:fork()
  t.same(vm:succeed "checksum", sum, "the checksum")
  -- Over itself, while it is in use.
  again:save(at "below")
  local once_more <close> = vm:snapshot "once more"
  vm:restore(again)
  t.same(vm:succeed "checksum", sum, "the checksum after")
end)

t.case("delete and close forget the handle and leave the directory", function()
  local snap = vmoon.load(at "a/good")
  local vm <close> = snap:fork()
  snap:delete()
  t.raises("snapshot.not_found", snap.delete, snap)
  t.raises("snapshot.not_found", snap.fork, snap)
  t.raises("snapshot.not_found", vm.restore, vm, snap)
  snap:close()
  t.same(vm:succeed "get colour", "green\n", "the fork goes on")
  do local closed <close> = vmoon.load(at "a/good") end
  vmoon.load(at "a/good"):close()
end)

t.case("two processors are saved and loaded", function()
  local vm <close> = vmoon.boot { memory = "32MiB", cpus = 2 }
  vm:succeed "put colour mauve"
  local two <close> = vm:snapshot "two"
  two:save(at "two")
  local loaded <close> = vmoon.load(at "two")
  local fork <close> = loaded:fork()
  t.same(fork.cpus, 2, "cpus")
  t.same(fork:succeed "get colour", "mauve\n", "the value")
end)

t.case("a paused machine is saved, and forked paused", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  vm:succeed "put colour grey"
  vm:pause()
  local held <close> = vm:snapshot "held"
  held:save(at "held")
  local loaded <close> = vmoon.load(at "held")
  local fork <close> = loaded:fork()
  t.same(fork.state, "paused", "state")
  fork:resume()
  t.same(fork:succeed "get colour", "grey\n", "the value")
end)

t.case("overlay disks are part of it, and their image must be what it was", function()
  local path = at "disk.img"
  write(path, ("\0"):rep(1 << 20))
  local vm <close> = vmoon.boot { memory = "32MiB", disks = { { path = path } } }
  vm:succeed "blk write 5 c0ffee"
  local snap <close> = vm:snapshot "disk"
  snap:save(at "disk")
  do
    local loaded <close> = vmoon.load(at "disk")
    local fork <close> = loaded:fork()
    assert(fork:succeed "blk read 5 1":find "^c0ffee", "the sector")
  end
  write(path, ("\0"):rep(2 << 20))
  local err = t.raises("snapshot.incompatible", vmoon.load, at "disk")
  assert(err.message:find("disk.img", 1, true), err.message)
  os.remove(path)
  t.raises("file.not_found", vmoon.load, at "disk")
end)

t.case("damage is refused, and the part is named", function()
  os.execute(("cp -r '%s' '%s'"):format(at "a/good", at "bad"))
  local parts = { "manifest.json", "memory", "state" }
  for _, part in ipairs(parts) do
    local path = at("bad/" .. part)
    local good = read(path)
    local middle = part == "memory" and assert(good:find "[^\0]") or #good // 2
    local function refused(text)
      if text then write(path, text) else os.remove(path) end
      local err = t.raises({ "snapshot.corrupt", "snapshot.incompatible" }, vmoon.load, at "bad")
      assert(err.message:find(part, 1, true), part .. " is not named: " .. err.message)
      t.same(err.part, part, "the error's part")
      write(path, good)
    end
    refused(good:sub(1, middle - 1) .. string.char(good:byte(middle) ~ 1) .. good:sub(middle + 1))
    refused(good:sub(1, -3))
    refused(good .. "x")
    refused ""
    refused(nil)
  end
  local whole <close> = vmoon.load(at "bad")
end)

t.case("a file that is cut while it is in use is told of, and nobody else is harmed", function()
  os.execute(("cp -r '%s' '%s'"):format(at "a/good", at "cut"))
  local other <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vmoon.load(at "cut")
  local vm <close> = snap:fork()
  vm:succeed "put colour red"
  local sleeper = vmoon.task.spawn(function() return pcall(vm.exec, vm, "sleep 60000") end)
  vmoon.sleep "50ms"
  write(at "cut/memory", "")
  if vm.backend ~= "kvm" then
    -- All of it was read when it was loaded.
    local one <close> = snap:fork()
    vm:restore(snap)
    t.same(vm:succeed "checksum", one:succeed "checksum", "the checksums")
    return
  end
  for _, call in ipairs {
    function() return snap:fork() end,
    function() return vm:restore(snap) end,
    function() return snap:save(at "cut again") end,
  } do
    local err = t.raises("snapshot.corrupt", call)
    assert(err.message:find("cut/memory", 1, true), err.message)
  end
  -- Its own memory is gone, but for what it has written.
  pcall(vm.exec, vm, "checksum", { timeout = "20s" })
  t.eventually(20, "it crashes", function() return vm.state == "crashed" end)
  local _, why = sleeper:join()
  assert(t.words(why):find("was changed after it was loaded", 1, true), t.words(why))
  t.same(other:succeed "echo fine", "fine\n", "the other machine")
  t.raises("snapshot.not_found", vmoon.load, at "cut again")
end)

t.case("other places are refused in words", function()
  t.raises("snapshot.not_found", vmoon.load, at "nowhere")
  t.raises("snapshot.corrupt", vmoon.load, folder)
  t.raises("snapshot.corrupt", vmoon.load, at "a/good/state")
  t.raises("vm.spec", vmoon.load)
  t.raises("vm.spec", vmoon.load, 7)
  local snap <close> = vmoon.load(at "a/good")
  local err = t.raises("file.io", snap.save, snap, folder)
  assert(err.hint, "a hint")
  t.raises({ "file.io", "file.permission" }, snap.save, snap, "/proc/nowhere/snap")
  t.raises("vm.spec", snap.save, snap)
end)

t.case("nothing unfinished is left", function()
  local pipe <close> = assert(io.popen(("ls -A '%s' '%s'"):format(folder, at "a")))
  local listed = pipe:read "a"
  assert(not listed:find "vmoon%-saving", listed)
end)

t.finish()
