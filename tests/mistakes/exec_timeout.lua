local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
vm:exec("sleep 60000", { timeout = "200ms" })
