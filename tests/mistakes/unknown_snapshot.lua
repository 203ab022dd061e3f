local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
local snap <close> = vm:snapshot "clean"
vm:restore "claen"
