#!/usr/bin/env vmoon
-- Break things on purpose: the disk, the network, the clock, the machine. A restore mends them all.
local vmoon = require "vmoon"

-- A disk image of 64 KiB; the guest's writes stay in memory.
local image <const> = os.tmpname()
do
  local file <close> = assert(io.open(image, "wb"))
  assert(file:write(("\0"):rep(64 << 10)))
end
local remove <close> = setmetatable({}, { __close = function() os.remove(image) end })

local vm <close> = vmoon.boot { memory = "64MiB", disks = { { path = image } } }
local can <const> = vmoon.capabilities(vm.backend)
if not can.faults then return print("no faults here: " .. can.reasons.faults) end
local server <close> = vm:spawn "echo-server 5000"
vm:wait_port(5000)
local healthy <close> = vm:snapshot "healthy"

local function hours_ahead()
  return ("%.0f hours ahead"):format((assert(tonumber(vm:succeed "date")) - os.time()) / 3600)
end
local function works(command) return vm:exec(command).ok and "works" or "fails" end
local block <const> = ("5a"):rep(512)

-- The second write to the first sectors fails. A fault ends with its variable.
do
  local bad <close> = vm.faults:block { op = "write", sectors = { 0, 7 }, after = 1, error = true }
  print("first write:  " .. works("blk write 0 " .. block))
  print("second write: " .. works("blk write 0 " .. block))
  print("elsewhere:    " .. works("blk write 8 " .. block))
end
print("mended:       " .. works("blk write 0 " .. block))

-- The cable is cut after six bytes, in the middle of a conversation.
local stream <close> = vm:connect(5000)
vm.faults:vsock { port = 5000, cut = true, after = 6 }
local _, err = pcall(function()
  stream:write "hello, guest\n"
  return stream:read_line(), stream:read_line()
end)
---@cast err any
print("a cut cable:  " .. err.code)

-- The guest believes that it is tomorrow.
vm.faults:clock { jump = "24h" }
print("the clock:    " .. hours_ahead())

-- A processor that makes no progress, and in the end a power failure.
vm.faults:vcpu { index = 0, pause = true }
local _, held = pcall(vm.exec, vm, "true", { timeout = "50ms" })
---@cast held any
print("a held vCPU:  " .. held.code)
vm:crash()
print("no power:     " .. vm.state)

-- Faults are part of the machine's state, and this state had none.
vm:restore(healthy)
print("restored:     " .. works("blk write 0 " .. block))
local again <close> = vm:connect(5000)
again:write "hello again\n"
print("restored:     " .. again:read_line())
print("restored:     " .. hours_ahead())
