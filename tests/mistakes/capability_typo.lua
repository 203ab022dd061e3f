local test = require "vmoon.test"

test.it("needs a network", { skip_unless = "network" }, function() end)
