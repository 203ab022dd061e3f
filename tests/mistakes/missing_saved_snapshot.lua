local vmoon = require "vmoon"

vmoon.load "/no/such/snapshot"
