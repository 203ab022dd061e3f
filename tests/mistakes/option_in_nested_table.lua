local vmoon = require "vmoon"

vmoon.boot {
  memory = "32MiB",
  disks = {
    { path = "/dev/null", read_only = true },
  },
}
