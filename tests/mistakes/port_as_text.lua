local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
vm:wait_port "http"
