-- Snapshots, faults and sockets in tests; invariants, subtests and options.
local vmoon = require "vmoon"
local test = require "vmoon.test"
local describe, it, expect = test.describe, test.it, test.expect

local machine = test.fixture { memory = "64MiB" }

describe("a machine", function()
  -- Checked whenever a test begins, uses the machine, begins a subtest, or ends.
  test.invariant("memory is left", function()
    local free = machine():succeed("meminfo"):match "MemAvailable:%s*(%d+)"
    expect.truthy(tonumber(free) > 1024)
  end)

  it("goes back to a snapshot of its own", function()
    local vm = machine()
    vm:succeed "put n 1"
    local checksum = vm:succeed "checksum"
    local snapshot <close> = vm:snapshot "one"
    vm:succeed("put n 2", "dirty 100")
    expect.truthy(vm:succeed "checksum" ~= checksum)
    vm:restore(snapshot)
    expect.equal(checksum, vm:succeed "checksum")
  end)

  it("answers on vsock", { timeout = "20s", tags = "vsock" }, function()
    local vm = machine()
    local server = vm:spawn "echo-server 7000"
    vm:wait_port(7000)
    local stream <close> = vm:connect(7000)
    for _, word in ipairs { "good", "morning" } do
      test.subtest("echoes " .. word, function()
        stream:write(word .. "\n")
        expect.equal(word, stream:read_line())
      end)
    end
    server:kill()
  end)

  it("forks", { skip_unless = "fork" }, function()
    local vm = machine()
    vm:succeed "put who parent"
    local snapshot <close> = vm:snapshot()
    local child <close> = snapshot:fork()
    child:succeed "put who child"
    expect.equal("parent\n", vm:succeed "get who")
    expect.equal("child\n", child:succeed "get who")
  end)

  it("uses little time for nothing", function()
    local started = os.clock()
    vmoon.sleep "20ms"
    expect.near(0, os.clock() - started, 5)
  end)
end)
