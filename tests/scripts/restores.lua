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

t.case("every restore brings the memory back", function()
  local mismatches, first = 0, nil
  for round = 1, rounds do
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
  print(("    %d restores, 0 mismatches"):format(rounds))
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
