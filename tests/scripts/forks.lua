-- Forks: a hundred of them, each a machine of its own that has the same memory.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local folder <close> = t.folder()
local vm <close> = vmoon.boot { memory = "64MiB" }
vm:succeed "put colour green"
vm:succeed "dirty 100 1"
local sum = vm:succeed "checksum"
local snap <close> = vm:snapshot "base"

local function close(machines)
  for _, machine in ipairs(machines) do machine:close() end
end

--- How many different values there are.
local function different(values)
  local seen, count = {}, 0
  for _, value in ipairs(values) do
    if not seen[value] then seen[value], count = true, count + 1 end
  end
  return count
end

local function each(machines, what)
  return vmoon.task.map(machines, what, { limit = 8 })
end

t.case("100 forks draw 100 different random numbers and have 100 equal checksums", function()
  local forks = snap:fork(100)
  t.same(#forks, 100, "forks")
  local random = each(forks, function(fork) return fork:succeed "random 16" end)
  t.same(different(random), 100, "different random numbers")
  local sums = each(forks, function(fork) return fork:succeed "checksum" end)
  t.same(different(sums), 1, "different checksums")
  t.same(sums[1], sum, "the checksum")
  for _, field in ipairs { "id", "name", "cid", "mac" } do
    local values = {}
    for index, fork in ipairs(forks) do values[index] = fork[field] end
    t.same(different(values), 100, "different values of " .. field)
  end
  close(forks)
end)

t.case("what one fork does is nobody else's", function()
  local forks = snap:fork(4)
  for index, fork in ipairs(forks) do fork:succeed { "put", "colour", "red" .. index } end
  for index, fork in ipairs(forks) do
    t.same(fork:succeed "get colour", "red" .. index .. "\n", "the value")
  end
  t.same(vm:succeed "get colour", "green\n", "the value of the first machine")
  close(forks)
end)

t.case("a fork goes back to the snapshot that it came from, again and again", function()
  local fork <close> = snap:fork()
  local drawn = {}
  for round = 1, 20 do
    fork:succeed("dirty 30 " .. round + 10)
    fork:restore(snap)
    t.same(fork:succeed "checksum", sum, "the checksum")
    drawn[round] = fork:succeed "random 16"
  end
  t.same(different(drawn), 20, "different random numbers")
  t.raises("snapshot.not_found", fork.restore, fork, "base")
end)

t.case("forks may be held paused", function()
  local fork <close> = snap:fork { paused = true }
  t.same(fork.state, "paused", "state")
  fork:resume()
  t.same(fork:succeed "checksum", sum, "the checksum")
  local two = snap:fork(2, { paused = true })
  t.same(two[1].state .. two[2].state, "pausedpaused", "states")
  close(two)
  t.raises("vm.spec", snap.fork, snap, 2, { pause = true })
  t.raises("vm.spec", snap.fork, snap, { pause = true })
  t.same(#snap:fork(0), 0, "no forks")
end)

t.case("with deterministic, all runs from a snapshot are the same: restores, forks and loads", function()
  local function run(machine)
    return table.concat {
      machine:succeed "random 16", machine:succeed "dirty 10 99",
      machine:succeed "random 8", machine:succeed "checksum",
    }
  end
  local runs = {}
  for _ = 1, 3 do
    vm:restore(snap, { deterministic = true })
    runs[#runs + 1] = run(vm)
    for _, fork in ipairs(snap:fork(2, { deterministic = true })) do
      runs[#runs + 1] = run(fork)
      fork:restore(snap, { deterministic = true })
      runs[#runs + 1] = run(fork)
      fork:close()
    end
    snap:save(folder.path .. "/saved")
    local loaded <close> = vmoon.load(folder.path .. "/saved", { deterministic = true })
    local fork <close> = loaded:fork()
    runs[#runs + 1] = run(fork)
    fork:restore(loaded)
    runs[#runs + 1] = run(fork)
  end
  t.same(different(runs), 1, "different runs of " .. #runs)
  local other <close> = snap:fork()
  assert(run(other) ~= runs[1], "a fork that is not deterministic ran the same")
end)

t.finish()
