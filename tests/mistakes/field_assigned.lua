local vmoon = require "vmoon"

local vm <close> = vmoon.create { memory = "32MiB" }
vm.memory = "64MiB"
