local vmoon = require "vmoon"

local vms = vmoon.list()
vms[1]:exec "true"
