-- Connections across snapshot and restore: idle ones live on, all others are reset.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local function machine()
  local vm = vmoon.boot { memory = "32MiB" }
  local server = vm:spawn "echo-server 5000"
  vm:wait_port(5000, { timeout = "5s" })
  return vm, server
end

t.case("an idle connection lives on after restore, again and again", function()
  local vm <close>, server = machine()
  local stream <close> = vm:connect(5000)
  stream:write "before\n"
  t.same(stream:read_line(), "before", "the echo")
  local snap <close> = vm:snapshot "idle"
  for round = 1, 10 do
    local line = ("round %d "):format(round) .. ("x"):rep(round * 100)
    stream:write(line .. "\n")
    t.same(stream:read_line(), line, "the echo after the snapshot")
    vm:restore(snap)
    stream:write(line .. " restored\n")
    t.same(stream:read_line(), line .. " restored", "the echo after the restore")
    vm:restore(snap)
  end
end)

t.case("a connection made after the snapshot is reset by the restore", function()
  local vm <close>, server = machine()
  local snap <close> = vm:snapshot "before"
  local stream <close> = vm:connect(5000)
  stream:write "hello\n"
  t.same(stream:read_line(), "hello", "the echo")
  vm:restore(snap)
  t.raises("vsock.reset", function() return stream:read_line() or error "the end, not a reset" end)
  t.raises("vsock.reset", stream.write, stream, "more\n")
  local fresh <close> = vm:connect(5000, { timeout = "5s" })
  fresh:write "fresh\n"
  t.same(fresh:read_line(), "fresh", "a new connection")
end)

t.case("a connection with bytes in flight at the snapshot is reset by the restore", function()
  local vm <close>, server = machine()
  local stream <close> = vm:connect(5000)
  -- More than the guest can take and give back while nobody reads.
  local writer = vmoon.task.spawn(function() pcall(stream.write, stream, ("y"):rep(8 << 20)) end)
  vmoon.sleep "200ms"
  local snap <close> = vm:snapshot "busy"
  vm:restore(snap)
  t.raises("vsock.reset", function()
    for _ = 1, 100000 do
      if not stream:read() then error "the end, not a reset" end
    end
  end)
  writer:cancel()
  t.same(vm:succeed "echo on", "on\n", "the next command")
end)

t.case("a reader that waits at the restore is told", function()
  local vm <close>, server = machine()
  local snap <close> = vm:snapshot "before"
  local stream <close> = vm:connect(5000)
  local reader = vmoon.task.spawn(function()
    local ok, err = pcall(stream.read_line, stream)
    return ok, err
  end)
  vmoon.sleep "50ms"
  vm:restore(snap)
  local ok, err = reader:join()
  assert(not ok and err.code == "vsock.reset", "the waiting reader: " .. tostring(err))
end)

t.case("a reader that waits on an idle connection waits on across the restore", function()
  local vm <close>, server = machine()
  local stream <close> = vm:connect(5000)
  stream:write "warm\n"
  t.same(stream:read_line(), "warm", "the echo")
  local snap <close> = vm:snapshot "idle"
  local reader = vmoon.task.spawn(function() return stream:read_line() end)
  vmoon.sleep "50ms"
  vm:restore(snap)
  stream:write "after\n"
  t.same(reader:join(), "after", "what the waiting reader got")
end)

t.case("a connection closed after the snapshot stays closed on the host", function()
  local vm <close>, server = machine()
  local stream = vm:connect(5000)
  stream:write "a\n"
  t.same(stream:read_line(), "a", "the echo")
  local snap <close> = vm:snapshot "open"
  stream:close()
  for _ = 1, 5 do
    vm:restore(snap)
    t.same(vm:succeed "echo fine", "fine\n", "the next command")
    local fresh <close> = vm:connect(5000, { timeout = "5s" })
    fresh:write "b\n"
    t.same(fresh:read_line(), "b", "a new connection")
  end
end)

t.case("a listener on the host keeps listening across restores", function()
  local vm <close>, server = machine()
  local listener <close> = vm:listen(6000)
  local snap <close> = vm:snapshot "listening"
  for round = 1, 5 do
    vm:restore(snap)
    local host = vmoon.task.spawn(function()
      local stream <close> = listener:accept { timeout = "5s" }
      local line = stream:read_line()
      stream:write(line .. "\n")
      return line
    end)
    t.same(t.trim(vm:succeed("connect 6000 round" .. round)), "round" .. round, "the reply")
    t.same(host:join(), "round" .. round, "what the host read")
  end
end)

t.case("a connection from the guest that is idle lives on too", function()
  local vm <close>, server = machine()
  local listener <close> = vm:listen(6001)
  local client = vmoon.task.spawn(function() return pcall(vm.exec, vm, "connect 6001 hello", { timeout = "20s" }) end)
  local stream <close> = listener:accept { timeout = "5s" }
  t.same(stream:read_line(), "hello", "what the guest sent")
  -- The guest waits for the reply; nothing is in flight on this connection.
  local snap <close> = vm:snapshot "waiting"
  vm:restore(snap)
  stream:write "answer\n"
  local ok, result = client:join()
  -- The exec's own connection was idle as well: it either delivers the reply or was reset.
  if ok then t.same(t.trim(result.stdout), "answer", "the reply") else assert(result.code, tostring(result)) end
  t.same(vm:succeed "echo next", "next\n", "the next command")
end)

t.finish()
