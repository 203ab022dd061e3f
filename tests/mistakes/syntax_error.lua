local vmoon = require "vmoon"

local vm = vmoon.boot {
  memory = "64MiB"
  cpus = 2,
}
