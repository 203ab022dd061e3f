local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
local stream <close> = vm:connect(5000)
