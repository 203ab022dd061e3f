-- The balloon: memory that the guest gives up and gets back.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local MiB <const> = 1 << 20

local function available(vm)
  return tonumber(vm:succeed("meminfo"):match "MemAvailable:%s*(%d+)") * 1024
end

t.case("to half and back: the guest's figures follow", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  t.same(vm.balloon.actual, 64 * MiB, "actual at first")
  local before = available(vm)
  vm.balloon:set("32MiB", { wait = true, timeout = "20s" })
  t.same(vm.balloon.target, 32 * MiB, "target")
  t.same(vm.balloon.actual, 32 * MiB, "actual")
  local half = available(vm)
  assert(before - half >= 31 * MiB, ("MemAvailable fell by %d KiB only"):format((before - half) // 1024))
  vm.balloon:set("64MiB", { wait = true, timeout = "20s" })
  t.same(vm.balloon.actual, 64 * MiB, "actual at the end")
  assert(math.abs(available(vm) - before) <= 1 * MiB, "MemAvailable is back")
end)

t.case("sizes may be numbers, and set without wait returns at once", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  vm.balloon:set(48 * MiB)
  t.same(vm.balloon.target, 48 * MiB, "target")
  t.eventually(20, "the balloon reaches its target", function() return vm.balloon.actual == 48 * MiB end)
end)

t.case("stats tell of the guest and of the host", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  local stats = vm.balloon:stats()
  assert(math.type(stats.host_rss) == "integer" and stats.host_rss > 0, "host_rss: " .. tostring(stats.host_rss))
  assert(stats.host_rss <= 64 * MiB, "host_rss is more than the guest has: " .. stats.host_rss)
end)

t.case("memory that was used and given up is freed on the host", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  -- Everything that the balloon takes and gives back has been touched by the guest or not: what
  -- counts is that the host holds no more than the target afterwards.
  vm:succeed "dirty 500 1"
  vm.balloon:set("24MiB", { wait = true, timeout = "20s" })
  local stats = vm.balloon:stats()
  assert(stats.host_rss <= 24 * MiB, "host_rss beside a target of 24 MiB: " .. stats.host_rss)
  t.same(vmoon.capabilities().balloon_reclaims_host_memory and true, true, "what the capabilities say")
end)

t.case("what the guest keeps is not touched", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  vm:succeed "dirty 500 3"
  local sum = vm:succeed "checksum"
  vm.balloon:set("32MiB", { wait = true, timeout = "20s" })
  t.same(vm:succeed "checksum", sum, "checksum at half")
  vm.balloon:set("64MiB", { wait = true, timeout = "20s" })
  t.same(vm:succeed "checksum", sum, "checksum after")
end)

t.case("a guest that does not answer is a timeout", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  vm:pause()
  local err = t.raises("balloon.timeout", vm.balloon.set, vm.balloon, "32MiB", { wait = true, timeout = "200ms" })
  assert(#t.words(err) > 0, "words")
  vm:resume()
  t.eventually(20, "the balloon goes on after resume", function() return vm.balloon.actual == 32 * MiB end)
end)

t.case("a target that makes no sense is refused", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  for _, target in ipairs { "banana", "128MiB", -1 } do
    local ok, err = pcall(vm.balloon.set, vm.balloon, target, { wait = true, timeout = "1s" })
    assert(not ok and type(err) == "table" and err.code, tostring(target) .. ": " .. tostring(err))
    assert(err.code ~= "balloon.timeout", tostring(target) .. " was sent to the guest")
  end
  t.same(vm:exec("true").code, 0, "the machine goes on")
end)

t.case("restore brings the balloon back, and the memory with it", function()
  local vm <close> = vmoon.boot { memory = "64MiB" }
  vm:succeed "dirty 300 7"
  local sum = vm:succeed "checksum"
  local full <close> = vm:snapshot "full"
  vm.balloon:set("32MiB", { wait = true, timeout = "20s" })
  local half <close> = vm:snapshot "half"
  for _ = 1, 3 do
    vm:restore(full)
    t.same(vm.balloon.actual, 64 * MiB, "actual at full")
    t.same(vm:succeed "checksum", sum, "checksum at full")
    vm:restore(half)
    t.same(vm.balloon.actual, 32 * MiB, "actual at half")
    t.same(vm:succeed "checksum", sum, "checksum at half")
  end
  vm.balloon:set("64MiB", { wait = true, timeout = "20s" })
  t.same(vm:succeed "checksum", sum, "checksum after")
end)

t.case("a machine without a balloon says so", function()
  local vm <close> = vmoon.boot { memory = "32MiB", balloon = false }
  local ok, err = pcall(function() vm.balloon:set "16MiB" end)
  assert(not ok and type(err) == "table" and err.code, tostring(err))
end)

t.finish()
