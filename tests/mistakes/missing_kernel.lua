local vmoon = require "vmoon"

vmoon.boot { kernel = "/no/such/vmlinuz" }
