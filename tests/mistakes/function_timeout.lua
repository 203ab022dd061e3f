local vmoon = require "vmoon"

vmoon.timeout("50ms", function()
  vmoon.sleep "1m"
end)
