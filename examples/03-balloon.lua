#!/usr/bin/env vmoon
-- Take memory back from a running guest, and give it again.
--
-- A balloon is a device that the guest's own driver inflates: it hands pages that it does not
-- need to the host, which really frees them. Deflating returns them, as zeroes.
local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "128MiB" }

local function show(when)
  local available = vm:succeed("meminfo"):match "MemAvailable:%s*(%d+)"
  print(("%-9s left to the guest %3d MiB, available in it %3d MiB, held by the host %3d MiB"):format(
    when,
    vm.balloon.actual >> 20,
    available // 1024,
    vm.balloon:stats().host_rss >> 20
  ))
end

show "at first"

-- `set` names the memory that the guest should be left with. With `wait` it returns once the
-- guest has done so; a guest that cannot is a `balloon.timeout`.
vm.balloon:set("64MiB", { wait = true, timeout = "20s" })
show "at half"
assert(vm.balloon.actual == 64 << 20)

-- The balloon is part of a snapshot like everything else.
local half <close> = vm:snapshot "half"

vm.balloon:set("128MiB", { wait = true, timeout = "20s" })
show "at full"

vm:restore(half)
show "restored"
assert(vm.balloon.actual == 64 << 20)
