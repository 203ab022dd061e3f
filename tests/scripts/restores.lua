-- Thousands of restores, with a checksum of the guest's memory after each. VMOON_RESTORES says how
-- many: `VMOON_RESTORES=100000 vmoon run tests/scripts/restores.lua` is the long run.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local rounds = math.tointeger(tonumber(os.getenv "VMOON_RESTORES" or 3000))
local seed = os.time()
math.randomseed(seed)
print(("%d restores, seed %d"):format(rounds, seed))

local folder <close> = t.folder()
local vm <close> = vmoon.boot { memory = "64MiB" }
vm:succeed "put colour green"
vm:succeed "dirty 50 1"

-- Two above each other, so that restores go up and down as well as back.
local lower <close> = vm:snapshot "lower"
local sums = { [lower] = vm:succeed "checksum" }
vm:succeed "dirty 30 2"
local upper <close> = vm:snapshot "upper"
sums[upper] = vm:succeed "checksum"
assert(sums[lower] ~= sums[upper], "the snapshots are alike")

t.case("every restore brings the memory back, and none leaves anything behind", function()
  local mismatches, first = 0, nil
  local memory, descriptors
  for round = 1, rounds do
    -- What is kept for reuse is there by then.
    if round == rounds // 2 + 1 then
      memory, descriptors = t.usage()
    end
    vm:succeed(("dirty %d %d"):format(math.random(20), round + 2))
    local snap = math.random(4) == 1 and lower or upper
    vm:restore(snap)
    local sum = vm:succeed "checksum"
    if sum ~= sums[snap] then
      mismatches = mismatches + 1
      first = first or round
    end
  end
  t.same(mismatches, 0, ("mismatches in %d restores, the first in round %s"):format(rounds, first))
  local memory_after, descriptors_after = t.usage()
  local grown = memory_after - memory
  print(("    %d restores, 0 mismatches, %d KiB grown in the second half"):format(rounds, grown >> 10))
  -- One or two come and go, and allocators grow in steps; a leak would be there for each restore.
  assert(descriptors_after < descriptors + 5, descriptors .. " descriptors became " .. descriptors_after)
  -- On KVM the guest's own pages are this process's.
  local bound = (8 << 20) + (vm.backend == "kvm" and vm.memory or 0)
  assert(grown < bound, ("%d bytes became %d"):format(memory, memory_after))
end)

t.case("not only what the checksum covers: all of memory is back, byte by byte", function()
  for name, snap in pairs { lower = lower, upper = upper } do
    vm:restore(snap, { paused = true })
    local again <close> = vm:snapshot "again"
    snap:save(folder.path .. "/" .. name)
    again:save(folder.path .. "/again")
    t.same_memory(folder.path .. "/again", folder.path .. "/" .. name)
  end
end)

t.finish()
