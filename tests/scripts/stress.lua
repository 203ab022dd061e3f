-- Many commands, at once and in a row, and a lot of output: nothing grows, and nothing is left.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local vm <close> = vmoon.boot { memory = "32MiB" }

local host = t.usage

local function at_once(count)
  local numbers = {}
  for n = 1, count do numbers[n] = n end
  local running, most = 0, 0
  vmoon.task.map(numbers, function(n)
    local proc <close> = vm:spawn "sleep 300"
    running = running + 1
    most = math.max(most, running)
    assert(proc:wait().ok, "command " .. n)
    running = running - 1
  end, { limit = count })
  t.same(most, count, "how many ran at once")
end

t.case("256 commands at once", function()
  at_once(256)
  local memory, descriptors = host()
  at_once(256)
  local memory_after, descriptors_after = host()
  assert(descriptors_after <= descriptors, descriptors .. " descriptors became " .. descriptors_after)
  assert(memory_after < memory + (8 << 20), memory .. " bytes became " .. memory_after)
end)

--- Bytes that the guest has left.
local function guest() return tonumber(vm:succeed("meminfo"):match "MemAvailable:%s*(%d+)") * 1024 end

t.case("10,000 commands in a row leave nothing behind, on either side", function()
  for n = 1, 500 do vm:exec "true" end
  local memory, descriptors = host()
  local left = guest()
  for n = 1, 10000 do
    local result = vm:exec("echo " .. n)
    if result.stdout ~= n .. "\n" then error("command " .. n .. " printed " .. result.stdout) end
  end
  local memory_after, descriptors_after = host()
  assert(descriptors_after <= descriptors, descriptors .. " descriptors became " .. descriptors_after)
  assert(memory_after < memory + (4 << 20), memory .. " bytes became " .. memory_after)
  t.same(guest(), left, "bytes that the guest has left")
end)

t.case("and 2,000 of them on connections of their own leave nothing in the guest", function()
  -- The guest has 1024 connections and fewer buffers: each that is lost would be missed.
  for _ = 1, 2000 do
    local proc <close> = vm:spawn "sleep 60000"
  end
  at_once(256)
end)

t.case("1 GiB of output passes through, with the host's memory under a bound", function()
  local size <const> = 1 << 30
  local memory = host()
  local most, total, chunks = memory, 0, 0
  local proc <close> = vm:spawn("lines " .. size)
  for chunk in proc.read, proc do
    total = total + #chunk
    chunks = chunks + 1
    if chunks % 4000 == 0 then most = math.max(most, (host())) end
  end
  t.same(total, size, "bytes")
  t.same(proc:wait().code, 0, "code")
  assert(most < memory + (32 << 20), ("%d MiB grew"):format(most - memory >> 20))
end)

t.case("output that nobody reads stops the command, and costs nothing", function()
  local memory = host()
  local proc <close> = vm:spawn("lines " .. (1 << 30))
  vmoon.sleep "300ms"
  local waiting = host()
  assert(waiting < memory + (8 << 20), ("%d KiB wait"):format(waiting - memory >> 10))
  t.same(vm:exec("echo beside").stdout, "beside\n", "a command beside it")
  proc:kill()
end)

t.case("lines of a lot of output", function()
  local proc <close> = vm:spawn "lines 6400000"
  local count = 0
  for line in proc:lines() do
    count = count + 1
    if #line ~= 63 then error("line " .. count .. " has " .. #line .. " letters") end
  end
  t.same(count, 100000, "lines")
end)

t.finish()
