local vmoon = require "vmoon"

local machine <close> = vmoon.create { memory = "32MiB" }
machne:start()
