local vmoon = require "vmoon"

local vm = vmoon.boot { memory = "32MiB" }
vm:close()
vm:close()
vm:exec "true"
