local test = require "vmoon.test"
local describe, it, expect = test.describe, test.it, test.expect
local machine = require "services"

local page <const>, url <const> = "/var/www/html/index.html", "http://localhost/index.html"

--- The page's tag, which a browser that has the page may come back with.
local function etag()
  local tag = expect.matches('ETag: ("[^"\n]+")', machine():succeed("curl -sSI " .. url))
  local again = { "curl", "-sSI", "-H", "If-None-Match: " .. tag, url }
  expect.contains("304 Not Modified", machine():succeed(again))
  return tag
end

local function journal() return machine():succeed "journalctl -u nginx" end

describe("nginx", function()
  test.before_all(function()
    machine():write_file(page, "hello world\n")
    machine():succeed "systemctl start nginx"
    machine():wait_port(80)
  end)

  it("has another tag for another content", function()
    local old = etag()
    machine():write_file(page, "content changed\n")
    expect.truthy(etag() ~= old)
  end)

  it("takes a new configuration without a stop", function()
    machine():write_file("/etc/nginx/sites-enabled/more", "server { listen 127.0.0.1:8080; }\n")
    machine():succeed "systemctl reload nginx"
    machine():wait_port(8080)
    expect.contains("Reloaded", journal())
    expect.falsy((journal():find "Stopped"))
  end)

  it("stops where it is restarted", function()
    machine():succeed "systemctl restart nginx"
    machine():wait_port(80)
    expect.contains("Stopped", journal())
  end)

  it("refuses a configuration with errors, each time, and serves on", function()
    machine():write_file("/etc/nginx/sites-enabled/broken", "server { proxy_pass ;;; }\n")
    for _ = 1, 2 do
      machine():fail "systemctl reload nginx"
      expect.equal("active\n", machine():succeed "systemctl is-active nginx")
      etag()
    end
  end)
end)
