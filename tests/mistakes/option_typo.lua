local vmoon = require "vmoon"

vmoon.boot { memroy = "64MiB" }
