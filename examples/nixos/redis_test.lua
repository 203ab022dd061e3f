local test = require "vmoon.test"
local describe, it, expect = test.describe, test.it, test.expect
local machine = require "services"

-- One server with a port and a socket, and one with nothing but a socket.
local sockets <const> = { [""] = "/run/redis/redis.sock", ["-test"] = "/run/redis-test/redis.sock" }

describe("redis", function()
  test.before_all(function()
    local vm = machine()
    vm:succeed [[
      cd /etc/redis
      sed 's|^port .*|port 0|; s|/run/redis/|/run/redis-test/|' redis.conf > redis-test.conf
      echo 'unixsocket /run/redis/redis.sock' >> redis.conf
      echo 'unixsocket /run/redis-test/redis.sock' >> redis-test.conf
      printf 'unixsocketperm 770\n' | tee -a redis.conf >> redis-test.conf
      chown redis: redis-test.conf
      useradd --groups redis member
      useradd stranger
      systemctl start redis-server redis-server@test
    ]]
    vm:wait_port(6379)
    for _, socket in pairs(sockets) do vm:wait_socket(socket) end
  end)

  it("answers on its port", function()
    expect.equal("PONG\n", machine():succeed "redis-cli ping")
  end)

  for name, socket in pairs(sockets) do
    it("redis" .. name .. " answers its group on its socket, and nobody else", function()
      local ping = { "redis-cli", "-s", socket, "ping" }
      for _, user in ipairs { "root", "member" } do
        expect.equal("PONG\n", machine():succeed(ping, { user = user }))
      end
      expect.falsy((machine():exec(ping, { user = "stranger" }).stdout:find "PONG"))
    end)
  end
end)
