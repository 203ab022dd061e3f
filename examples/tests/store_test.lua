-- The words of busted, and a machine for every test: `vmoon test examples/tests`
local test = require "vmoon.test"
local describe, it, pending, expect = test.describe, test.it, test.pending, test.expect

describe("the store of the built-in guest", function()
  -- Booted and set up once, then snapshotted: each test starts from the snapshot.
  local machine = test.fixture {
    memory = "64MiB",
    setup = function(vm) vm:succeed "put colour green" end,
  }

  it("keeps what was put", function()
    expect.equal("green\n", machine():succeed "get colour")
  end)

  it("can be wrecked", function()
    local vm = machine()
    vm:succeed("put colour red", "dirty 200")
    expect.equal("red\n", vm:succeed "get colour")
    expect.error(function() vm:succeed "panic" end, "guest")
    expect.equal("crashed", vm.state)
  end)

  it("is as it was, all the same", function()
    expect.equal("green\n", machine():succeed "get colour")
  end)

  it("exits with 1 for what is not there", function()
    local result = machine():exec "get size"
    expect.equal(1, result.code)
    expect.falsy(result.ok)
  end)

  describe("with more in it", function()
    test.before_each(function()
      machine():succeed("put size small", "put shape round")
    end)

    it("lists its keys", function()
      local keys = {}
      for key in machine():succeed("keys"):gmatch "%S+" do keys[#keys + 1] = key end
      table.sort(keys)
      expect.same({ "colour", "shape", "size" }, keys)
    end)

    it("overwrites", function()
      machine():succeed "put size large"
      expect.contains("large", machine():succeed "get size")
    end)
  end)

  pending("forgets a key")
end)
