local vmoon = require "vmoon"

vmoon.boot "64MiB"
