local vmoon = require "vmoon"

vmoon.boot { cpus = "two" }
