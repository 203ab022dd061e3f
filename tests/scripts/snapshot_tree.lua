-- A tree of 50 snapshots, taken, restored and deleted in random order, against a model. Each run
-- takes another seed, which it prints; `snapshot_tree.lua SEED` repeats one.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local seed = tonumber(arg[1]) or os.time()
math.randomseed(seed)
print("seed " .. seed)

local vm <close> = vmoon.boot { memory = "32MiB" }

-- The model: what the guest's memory should hold, now and in each snapshot.
local now = { values = {}, checksum = nil, id = nil }
local snapshots = {}

local function copy(values)
  local result = {}
  for key, value in pairs(values) do result[key] = value end
  return result
end

local function check()
  for n = 1, 6 do
    local key = "key" .. n
    local result = vm:exec("get " .. key)
    if now.values[key] then
      t.same(t.trim(result.stdout), now.values[key], key)
    else
      t.same(result.code, 1, "code of the missing " .. key)
    end
  end
  if now.checksum then t.same(vm:succeed "checksum", now.checksum, "checksum") end
end

local counts = { change = 0, snapshot = 0, restore = 0, delete = 0 }

local function change()
  counts.change = counts.change + 1
  local key = "key" .. math.random(6)
  local value = "v" .. math.random(1000000)
  vm:succeed { "put", key, value }
  vm:succeed(("dirty %d %d"):format(math.random(40), math.random(1000)))
  now.values[key] = value
  now.checksum = vm:succeed "checksum"
end

local function snapshot()
  counts.snapshot = counts.snapshot + 1
  local snap = vm:snapshot("s" .. counts.snapshot)
  t.same(snap.parent, now.id, "parent")
  snapshots[#snapshots + 1] = { snap = snap, values = copy(now.values), checksum = now.checksum }
  now.id = snap.id
end

local function restore()
  counts.restore = counts.restore + 1
  local chosen = snapshots[math.random(#snapshots)]
  vm:restore(chosen.snap)
  now = { values = copy(chosen.values), checksum = chosen.checksum, id = chosen.snap.id }
  check()
end

local function delete()
  -- The snapshot that the machine stands on stays, so that the model knows the next one's parent.
  local index = math.random(#snapshots)
  local chosen = snapshots[index]
  if chosen.snap.id == now.id then return end
  for _, other in ipairs(snapshots) do
    if other.snap.parent == chosen.snap.id then return end
  end
  counts.delete = counts.delete + 1
  chosen.snap:delete()
  table.remove(snapshots, index)
  t.raises("snapshot.not_found", vm.restore, vm, chosen.snap)
end

t.case("a random walk over a tree of snapshots agrees with the model", function()
  change()
  snapshot()
  -- Snapshots without a change between them are snapshots too.
  while counts.snapshot < 50 do
    local dice = math.random(10)
    if dice <= 3 then change()
    elseif dice <= 6 then snapshot()
    elseif dice <= 9 then restore()
    else delete() end
  end
  check()
end)

t.case("100 restores in random order over the tree, with deletions", function()
  for round = 1, 100 do
    if round % 3 == 0 then change() end
    restore()
    if round % 20 == 0 then delete() end
  end
end)

t.case("every snapshot that is left can be restored, in any order", function()
  for round = 1, 2 do
    for _, chosen in ipairs(snapshots) do
      vm:restore(chosen.snap)
      now = { values = copy(chosen.values), checksum = chosen.checksum, id = chosen.snap.id }
      check()
    end
  end
  t.same(#vm:snapshots(), #snapshots, "snapshots")
end)

print(("%d changes, %d snapshots, %d restores, %d deletions"):format(
  counts.change, counts.snapshot, counts.restore, counts.delete))
t.finish()
