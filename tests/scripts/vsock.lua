-- vsock, both ways: streams, refusals, deadlines and backpressure.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local vm <close> = vmoon.boot { memory = "32MiB" }
local server <close> = vm:spawn "echo-server 5000"
vm:wait_port(5000, { timeout = "5s" })

t.case("the host connects to a server in the guest", function()
  local stream <close> = vm:connect(5000)
  stream:write "hello\n"
  t.same(stream:read_line(), "hello", "the echo")
  stream:write "and "
  stream:write "again\n"
  t.same(stream:read_line(), "and again", "the second echo")
end)

t.case("read takes a count, and lines iterates", function()
  local stream <close> = vm:connect(5000)
  stream:write "abcdef"
  t.same(t.read_exactly(stream, 2), "ab", "two bytes")
  t.same(t.read_exactly(stream, 4), "cdef", "four bytes")
  stream:write "one\ntwo\nthree"
  stream:shutdown()
  local lines = {}
  for line in stream:lines() do lines[#lines + 1] = line end
  t.same(table.concat(lines, "|"), "one|two|three", "lines")
end)

t.case("after shutdown the other direction goes on, then ends", function()
  local stream <close> = vm:connect(5000)
  stream:write "last words"
  stream:shutdown()
  t.same(t.read_exactly(stream, 10), "last words", "the echo after shutdown")
  t.same(stream:read(), nil, "the end")
  t.same(stream:read_line(), nil, "the end, by line")
end)

t.case("binary data, all 256 bytes", function()
  local bytes = {}
  for byte = 0, 255 do bytes[#bytes + 1] = string.char(byte) end
  local data = table.concat(bytes):rep(64)
  local stream <close> = vm:connect(5000)
  local writer = vmoon.task.spawn(function() stream:write(data) end)
  t.same(t.read_exactly(stream, #data), data, "the echo")
  writer:join()
end)

t.case("many connections at once keep their data apart", function()
  local results = vmoon.task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function(n)
    local stream <close> = vm:connect(5000, { timeout = "10s" })
    for round = 1, 5 do
      local line = ("connection %d round %d"):format(n, round)
      stream:write(line .. "\n")
      t.same(stream:read_line(), line, "the echo")
    end
    return n
  end, { limit = 8 })
  t.same(#results, 8, "connections")
end)

t.case("100 connections, one after the other", function()
  for n = 1, 100 do
    local stream <close> = vm:connect(5000, { timeout = "5s" })
    stream:write(n .. "\n")
    t.same(stream:read_line(), tostring(n), "the echo")
  end
end)

t.case("a port without a listener refuses", function()
  local err = t.raises("vsock.refused", vm.connect, vm, 5999)
  assert(t.words(err):find("5999", 1, true), "the port is not named: " .. t.words(err))
  assert(err.hint and #err.hint > 0, "no hint")
  local stream <close> = vm:connect(5000)
  stream:write "fine\n"
  t.same(stream:read_line(), "fine", "others go on")
end)

t.case("the guest connects to a listener on the host", function()
  local listener <close> = vm:listen(6000)
  local host = vmoon.task.spawn(function()
    local stream <close> = listener:accept { timeout = "5s" }
    local line = stream:read_line()
    stream:write("you said " .. line .. "\n")
    return line
  end)
  local reply = vm:succeed "connect 6000 good-morning"
  t.same(host:join(), "good-morning", "what the host read")
  t.same(t.trim(reply), "you said good-morning", "what the guest read")
end)

t.case("incoming iterates over connections", function()
  local listener <close> = vm:listen(6001)
  local served = 0
  local host = vmoon.task.spawn(function()
    for stream in listener:incoming() do
      local stream <close> = stream
      stream:write(stream:read_line() .. " " .. served + 1 .. "\n")
      served = served + 1
      if served == 3 then return served end
    end
  end)
  for n = 1, 3 do
    t.same(t.trim(vm:succeed "connect 6001 number"), "number " .. n, "the reply")
  end
  t.same(host:join(), 3, "served")
end)

t.case("accept raises vsock.timeout when nobody comes", function()
  local listener <close> = vm:listen(6002)
  t.raises("vsock.timeout", listener.accept, listener, { timeout = "150ms" })
end)

t.case("a guest that connects where the host does not listen fails, and goes on", function()
  local result = vm:exec("connect 6999 hello", { timeout = "10s" })
  assert(not result.ok, "connect to a port without a listener")
  t.same(vm:exec("true").code, 0, "the next command")
end)

t.case("a port can be listened on again after close, and only once at a time", function()
  do
    local listener <close> = vm:listen(6003)
    local ok, err = pcall(vm.listen, vm, 6003)
    assert(not ok and type(err) == "table" and err.code, "a second listener on one port")
    assert(t.words(err):find("6003", 1, true), "the port is not named: " .. t.words(err))
  end
  local listener <close> = vm:listen(6003)
end)

t.case("ports that are no ports are refused", function()
  for _, port in ipairs { -1, 1 << 32, 1.5, "http" } do
    local ok, err = pcall(vm.connect, vm, port)
    assert(not ok, "port " .. tostring(port) .. " was accepted")
    assert(type(err) == "table" and err.code, "not a structured error: " .. tostring(err))
  end
end)

t.case("a slow reader stops the writer, and nothing is lost", function()
  local stream <close> = vm:connect(5000)
  local block = ("0123456789abcdef"):rep(4096)
  local total, written = 64, 0
  local writer = vmoon.task.spawn(function()
    for n = 1, total do
      stream:write(block)
      written = n
    end
    stream:shutdown()
  end)
  vmoon.sleep "500ms"
  assert(written < total, "4 MiB vanished into a connection that nobody reads")
  for n = 1, total do t.same(t.read_exactly(stream, #block), block, "block " .. n) end
  writer:join()
  t.same(stream:read(), nil, "the end")
end)

t.case("closing a stream with unread data is no trouble for the next", function()
  do
    local stream <close> = vm:connect(5000)
    stream:write(("x"):rep(10000))
  end
  local stream <close> = vm:connect(5000)
  stream:write "after\n"
  t.same(stream:read_line(), "after", "the echo")
end)

t.case("a stream whose server was killed ends or is reset", function()
  local short <close> = vm:spawn "echo-server 5001"
  vm:wait_port(5001, { timeout = "5s" })
  local stream <close> = vm:connect(5001)
  stream:write "x\n"
  t.same(stream:read_line(), "x", "the echo")
  short:kill()
  short:wait()
  local ok, result = pcall(vmoon.timeout, "5s", function() return stream:read() end)
  assert((ok and result == nil) or (not ok and result.code == "vsock.reset"), tostring(result))
end)

t.case("a stream of a killed machine is reset", function()
  local other <close> = vmoon.boot { memory = "32MiB" }
  local echo = other:spawn "echo-server 5000"
  other:wait_port(5000, { timeout = "5s" })
  local stream <close> = other:connect(5000)
  other:kill()
  t.raises("vsock.reset", function() stream:write "x\n" return assert(stream:read(), "the end") end)
end)

t.case("a guest that hangs makes connect run into its timeout", function()
  local other <close> = vmoon.boot { memory = "32MiB" }
  pcall(other.exec, other, "hang", { timeout = "200ms" })
  t.raises("vsock.timeout", other.connect, other, 5000, { timeout = "300ms" })
end)

t.finish()
