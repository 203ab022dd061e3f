local vmoon = require "vmoon"

vmoon.boot { cpus = 0 }
