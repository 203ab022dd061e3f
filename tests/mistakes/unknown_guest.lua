local vmoon = require "vmoon"

vmoon.boot { guest = "ubuntu" }
