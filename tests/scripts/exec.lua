-- Commands in the guest: their results, their failures, and their streams.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local vm <close> = vmoon.boot { memory = "32MiB" }

t.case("exec returns the output, the code and the time", function()
  local result = vm:exec "echo hello world"
  t.same(result.stdout, "hello world\n", "stdout")
  t.same(result.stderr, "", "stderr")
  t.same(result.code, 0, "code")
  t.same(result.ok, true, "ok")
  t.same(result.signal, nil, "signal")
  assert(type(result.duration) == "number" and result.duration >= 0, "duration")
end)

t.case("exec takes an argv table", function()
  t.same(vm:exec({ "echo", "one", "two" }).stdout, "one two\n", "stdout")
end)

t.case("a non-zero exit is data, not an error", function()
  for _, code in ipairs { 1, 7, 42, 255 } do
    local result = vm:exec("exit " .. code)
    t.same(result.code, code, "code")
    t.same(result.ok, false, "ok")
  end
  t.same(vm:exec("false").code, 1, "false")
  t.same(vm:exec("true").code, 0, "true")
  t.same(vm:exec("exit 0").ok, true, "exit 0")
end)

t.case("an unknown command exits 127 with a message on stderr", function()
  local result = vm:exec "no-such-command at all"
  t.same(result.code, 127, "code")
  t.same(result.stdout, "", "stdout")
  assert(result.stderr:find("no-such-command", 1, true), "stderr: " .. result.stderr)
end)

t.case("put, get and keys keep what they are given", function()
  vm:succeed "put colour green"
  vm:succeed { "put", "shape", "round" }
  t.same(t.trim(vm:succeed "get colour"), "green", "get")
  vm:succeed "put colour blue"
  t.same(t.trim(vm:succeed "get colour"), "blue", "get after another put")
  local keys = vm:succeed "keys"
  assert(keys:find("colour", 1, true) and keys:find("shape", 1, true), "keys: " .. keys)
  t.same(vm:exec("get nothing-there").code, 1, "a missing key")
end)

t.case("succeed returns stdout and raises exec.status with the command and its code", function()
  t.same(vm:succeed "echo fine", "fine\n", "stdout")
  local err = t.raises("exec.status", vm.succeed, vm, "exit 9")
  assert(t.words(err):find("exit 9", 1, true), "the command is not named: " .. t.words(err))
  assert(t.words(err):find("9", 1, true), "the code is not named: " .. t.words(err))
  local err = t.raises("exec.status", vm.succeed, vm, "no-such-command")
  assert(tostring(err):find("127", 1, true) or err.result and err.result.code == 127, tostring(err))
end)

t.case("fail returns stdout and raises exec.status when the command succeeds", function()
  t.same(vm:fail "exit 3", "", "stdout")
  t.raises("exec.status", vm.fail, vm, "true")
end)

t.case("a command that runs too long raises exec.timeout, and the guest goes on", function()
  local err = t.raises("exec.timeout", vm.exec, vm, "sleep 30000", { timeout = "200ms" })
  assert(t.words(err):find("sleep 30000", 1, true), "the command is not named: " .. t.words(err))
  t.same(vm:exec("echo still here").stdout, "still here\n", "the next exec")
end)

t.case("sleep takes as long as it says", function()
  local result = vm:exec "sleep 150"
  assert(result.ok, "sleep")
  assert(result.duration >= 0.14 and result.duration < 2, "duration: " .. result.duration)
end)

t.case("commands run side by side", function()
  local results = vmoon.task.map({ 1, 2, 3, 4, 5, 6 }, function(n)
    return vm:exec("sleep 300").duration
  end, { limit = 6 })
  t.same(#results, 6, "results")
  local finished = vm:exec("sleep 1")
  assert(finished.ok, "and one more")
end)

t.case("each result belongs to its command", function()
  local results = vmoon.task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function(n)
    return vm:exec("echo number " .. n).stdout
  end, { limit = 4 })
  for n, stdout in ipairs(results) do t.same(stdout, "number " .. n .. "\n", "stdout") end
end)

t.case("200 commands in a row", function()
  for n = 1, 200 do t.same(vm:exec("echo " .. n).stdout, n .. "\n", "stdout") end
end)

t.case("spawn: lines, then the result", function()
  local proc <close> = vm:spawn "echo streamed"
  local lines = {}
  for line in proc:lines() do lines[#lines + 1] = line end
  t.same(table.concat(lines, "|"), "streamed", "lines")
  local result = proc:wait()
  t.same(result.code, 0, "code")
end)

t.case("spawn: read returns chunks, then nil", function()
  local proc <close> = vm:spawn "echo a chunk"
  local parts = {}
  while true do
    local part = proc:read()
    if not part then break end
    parts[#parts + 1] = part
  end
  t.same(table.concat(parts), "a chunk\n", "all chunks")
  t.same(proc:wait().code, 0, "code")
end)

t.case("spawn: a failing command's code", function()
  local proc <close> = vm:spawn "exit 5"
  t.same(proc:wait().code, 5, "code")
end)

t.case("spawn: kill ends a command that does not end by itself", function()
  local proc <close> = vm:spawn "echo-server 5100"
  vm:wait_port(5100, { timeout = "5s" })
  proc:kill()
  local result = proc:wait()
  assert(not result.ok, "a killed command is not ok")
  t.raises("vsock.refused", vm.connect, vm, 5100, { timeout = "5s" })
end)

t.case("spawn: closing the process ends the command", function()
  do
    local proc <close> = vm:spawn "echo-server 5101"
    vm:wait_port(5101, { timeout = "5s" })
  end
  t.eventually(5, "the port is free again", function()
    local ok, stream = pcall(vm.connect, vm, 5101, { timeout = "2s" })
    if ok then stream:close() return false end
    return stream.code == "vsock.refused"
  end)
end)

t.case("wait_until repeats a command until it succeeds", function()
  local waiter = vmoon.task.spawn(function()
    vm:wait_until("get ready-now", { timeout = "10s", interval = "50ms" })
    return true
  end)
  vmoon.sleep "150ms"
  vm:succeed "put ready-now yes"
  t.same(waiter:join(), true, "the waiting task")
end)

t.case("wait_until's timeout carries the last attempt", function()
  local err = t.raises("vm.timeout", vm.wait_until, vm, "get never", { timeout = "300ms", interval = "50ms" })
  assert(t.words(err):find("get never", 1, true), "the command is not named: " .. t.words(err))
end)

t.case("wait_port waits for a listener, and times out without one", function()
  t.raises({ "vm.timeout", "vsock.timeout" }, vm.wait_port, vm, 5102, { timeout = "200ms" })
  local waiter = vmoon.task.spawn(function() vm:wait_port(5102, { timeout = "10s" }) return "open" end)
  vmoon.sleep "50ms"
  local server <close> = vm:spawn "echo-server 5102"
  t.same(waiter:join(), "open", "the waiting task")
end)

t.case("random gives what is asked for, and never the same", function()
  local one, two = t.trim(vm:succeed "random 16"), t.trim(vm:succeed "random 16")
  assert(one:match "^%x+$" and #one == 32, "random 16: " .. one)
  assert(one ~= two, "two random numbers are equal")
end)

t.case("meminfo and uptime tell of the guest", function()
  local meminfo = vm:succeed "meminfo"
  local total = tonumber(meminfo:match "MemTotal:%s*(%d+)")
  local available = tonumber(meminfo:match "MemAvailable:%s*(%d+)")
  assert(total and total <= 32 * 1024 and total > 16 * 1024, "MemTotal: " .. meminfo)
  assert(available and available > 0 and available <= total, "MemAvailable: " .. meminfo)
  assert(vm:succeed("uptime"):match "%d", "uptime")
end)

t.case("dirty and checksum", function()
  local before = vm:succeed "checksum"
  t.same(vm:succeed "checksum", before, "a checksum of unchanged memory")
  vm:succeed "dirty 20 1"
  local one = vm:succeed "checksum"
  assert(one ~= before, "dirty changes the checksum")
  vm:succeed "dirty 20 2"
  assert(vm:succeed "checksum" ~= one, "another seed, another checksum")
end)

t.finish()
