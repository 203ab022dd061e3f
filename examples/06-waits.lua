#!/usr/bin/env vmoon
-- Wait for the guest, not for the clock: it says when something has happened.
local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "64MiB" }

-- Somebody will listen on port 5000; `wait_port` returns as soon as they do. In Linux the same goes
-- for TCP, and there are `wait_file`, `wait_socket`, `wait_exit` and `wait_unit` as well.
local listening = vmoon.task.spawn(function() vm:wait_port(5000) end)
local server <close> = vm:spawn "echo-server 5000"
listening:join()
print "port 5000 is listened on"

-- A guest knows best when it is ready, so let it say so: `ready NAME` here, `vmoon-agent ready NAME`
-- in Linux. What is declared stays declared, so it does not matter who comes first.
vm:succeed "ready database"
vm:wait_ready "database"
print "the database is ready"

-- That is the moment for a snapshot. A declaration is part of the guest's state: a restore takes
-- back those that came later, and a fork begins with those of its snapshot.
local set_up <close> = vm:snapshot "set up"
local fork <close> = set_up:fork()
fork:wait_ready "database"
print "and so is its fork's"

-- A wait that comes to nothing tells what the guest saw last.
local _, err = pcall(vm.wait_port, vm, 5432, { timeout = "50ms" })
---@cast err any
assert(err.code == "vm.timeout")
print("port 5432: " .. err.observed)

-- And nobody waits for a guest that has crashed.
local waiting = vmoon.task.spawn(function()
  local _, err = pcall(vm.wait_ready, vm, "cache", { timeout = "1h" })
  return err
end)
pcall(vm.exec, vm, "panic")
print("the cache: " .. waiting:join().code)
