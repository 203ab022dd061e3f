local vmoon = require "vmoon"

vmoon.boot { kernel = "README.md" }
