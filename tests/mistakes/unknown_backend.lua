local vmoon = require "vmoon"

vmoon.boot { backend = "kmv" }
