local vmoon = require "vmoon"

vmoon.boot { memory = 512 }
