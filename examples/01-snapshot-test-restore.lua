#!/usr/bin/env vmoon
-- Boot a machine, set it up once, and give every test the same clean start.
local vmoon = require "vmoon"

-- vmoon brings a guest of its own: nothing to download, and it starts in milliseconds.
-- `<close>` ends the machine when this script does, however it does.
local vm <close> = vmoon.boot { memory = "64MiB" }
print(("booted %s on %s"):format(vm.name, vm.backend))

-- Set up once. `succeed` runs a command in the guest and raises an error if it fails.
vm:succeed "put colour green"

-- A snapshot is the whole machine: memory, processor, devices, disks. The machine goes on.
local clean <close> = vm:snapshot "clean"
print(("snapshot %q holds %d pages"):format(clean.name, clean.dirty_pages))

-- Each test may wreck what it likes, even the guest itself: `restore` puts back the pages that
-- changed, and the very next command runs in the past.
local function test(name, body)
  local ok, err = pcall(body)
  vm:restore(clean)
  assert(vm:succeed "get colour" == "green\n", "not as clean as it was")
  print(("%-8s %s"):format(ok and "passed" or "failed", name))
  return ok, err
end

assert(test("a test that paints everything red", function()
  vm:succeed "put colour red"
  assert(vm:succeed "get colour" == "red\n")
end))

assert(test("a test that scribbles over memory", function()
  vm:succeed "dirty 200"
end))

-- This one crashes the guest. The error says what happened, and `restore` undoes even that.
local ok, err = test("a test that panics", function() vm:succeed "panic" end)
assert(not ok and err.code == "guest.panic")
print("         " .. err.message)

print "and the machine is clean again"
