local vmoon = require "vmoon"

local one <close> = vmoon.create { name = "web", memory = "32MiB" }
local two <close> = vmoon.create { name = "web", memory = "32MiB" }
