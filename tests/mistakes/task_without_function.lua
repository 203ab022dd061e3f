local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
vmoon.task.spawn(vm:exec "true")
