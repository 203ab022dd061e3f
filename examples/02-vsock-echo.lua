#!/usr/bin/env vmoon
-- Talk to a program in the guest, and let it talk to you, without any network.
--
-- vsock is a socket between a host and its guest: addressed by a port number, reliable and in
-- order like TCP, with no addresses to configure and nothing that another machine can reach.
local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "64MiB" }

-- Host to guest. `spawn` starts a command that goes on running; `<close>` kills it at the end.
-- In a Linux guest the same server is `vmoon-agent echo-server 5000`.
local server <close> = vm:spawn "echo-server 5000"
vm:wait_port(5000) -- the guest announces it: no polling, no sleeping

local stream <close> = vm:connect(5000)
stream:write "hello, guest\n"
print("the guest echoes: " .. stream:read_line())

-- Guest to host. A task serves connections while this script goes on.
local listener <close> = vm:listen(6000)
local host = vmoon.task.spawn(function()
  local caller <close> = listener:accept { timeout = "5s" }
  caller:write("you said " .. caller:read_line() .. "\n")
end)
io.write("the host answers: ", vm:succeed "connect 6000 good-morning")
host:join()

-- A connection that is idle when a snapshot is taken lives on after every restore.
local snap <close> = vm:snapshot "connected"
for round = 1, 3 do
  stream:write("round " .. round .. "\n")
  print("the guest echoes: " .. stream:read_line())
  vm:restore(snap)
end

-- What goes wrong is an error with a code to compare and a hint to read.
local _, err = pcall(vm.connect, vm, 5999)
---@cast err any
assert(err.code == "vsock.refused")
print("and nobody listens on 5999: " .. err.message)
