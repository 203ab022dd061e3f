local vmoon = require "vmoon"

vmoon.boot { memory = "64MO" }
