local vmoon = require "vmoon"

vmoon.bot { memory = "32MiB" }
