local vmoon = require "vmoon"

local vm <close> = vmoon.boot { memory = "32MiB" }
vm.balloon:set("1GiB")
