-- The machine of all suites here: booted once, and had back as it was by every test.
local test = require "vmoon.test"

return test.fixture {
  guest = "linux",
  root = os.getenv "SERVICES_IMAGE" or "services.img",
  memory = "512MiB",
  timeout = "20m",
  setup = function(vm) vm:wait_unit("multi-user.target", { timeout = "20m" }) end,
}
