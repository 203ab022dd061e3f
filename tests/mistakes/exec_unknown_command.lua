local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
vm:succeed "ls -l"
