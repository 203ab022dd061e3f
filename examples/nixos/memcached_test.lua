local test = require "vmoon.test"
local machine = require "services"

test.it("memcached keeps what it is given", function()
  local vm = machine()
  vm:succeed "systemctl start memcached"
  vm:wait_port(11211)
  local answer = vm:succeed { "bash", "-c", [[
    exec 3<>/dev/tcp/127.0.0.1/11211
    printf '%s\r\n' 'set key 0 0 5' value 'get key' quit >&3
    cat <&3
  ]] }
  test.expect.equal("STORED\r\nVALUE key 0 5\r\nvalue\r\nEND\r\n", answer)
end)
