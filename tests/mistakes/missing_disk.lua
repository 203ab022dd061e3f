local vmoon = require "vmoon"

vmoon.boot { disks = { { path = "/no/such/disk.img" } } }
