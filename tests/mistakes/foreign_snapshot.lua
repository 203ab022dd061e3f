local vmoon = require "vmoon"

local one <close> = vmoon.boot { name = "one", memory = "32MiB" }
local two <close> = vmoon.boot { name = "two", memory = "32MiB" }
local snap <close> = one:snapshot "clean"
two:restore(snap)
