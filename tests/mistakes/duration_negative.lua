local vmoon = require "vmoon"

vmoon.sleep(-1)
