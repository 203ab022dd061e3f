local vmoon = require "vmoon"

vmoon.boot { timeout = "30sec" }
