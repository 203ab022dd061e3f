-- The console: what the guest printed, and waiting for it.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

t.case("text is all that the guest printed, tail its last lines", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local text = vm.console:text()
  t.same(type(text), "string", "text")
  t.same(type(vm.console:tail(1)), "string", "tail")
  local last = vm.console:tail(1)
  assert(text:find(t.trim(last), 1, true), "the tail is part of the text")
end)

t.case("wait raises vm.timeout for what the guest does not print", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local err = t.raises("vm.timeout", vm.console.wait, vm.console, "never printed %d+", { timeout = "150ms" })
  assert(t.words(err):find("never printed", 1, true), "the pattern is not named: " .. t.words(err))
end)

t.case("a panic is seen on the console", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local waiter = vmoon.task.spawn(function()
    return vm.console:wait("[Pp]anic", { timeout = "5s" })
  end)
  pcall(vm.exec, vm, "panic")
  assert(waiter:join():match "^[Pp]anic$", "wait returns the match")
  assert(vm.console:text():find "[Pp]anic", "text after the crash")
end)

t.case("lines follows the console and ends with the machine", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local follower = vmoon.task.spawn(function()
    local lines = {}
    for line in vm.console:lines() do
      assert(not line:find "\n", "a line without its newline")
      lines[#lines + 1] = line
    end
    return lines
  end)
  vmoon.sleep "20ms"
  pcall(vm.exec, vm, "panic")
  vm:close()
  assert(#follower:join() > 0, "the console's lines")
end)

t.case("boot waits for a console pattern when asked to", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local line = vm.console:text():match "[%w]+"
  if line then
    local other <close> = vmoon.boot { memory = "32MiB", ready = line }
    t.same(other.state, "running", "state")
  end
  local err = t.raises("vm.timeout", vmoon.boot, { memory = "32MiB", ready = "never printed", timeout = "300ms" })
  assert(t.words(err):find("never printed", 1, true), "the pattern is not named: " .. t.words(err))
end)

t.case("ready = false returns as soon as the guest runs", function()
  local vm <close> = vmoon.boot { memory = "32MiB", ready = false }
  t.same(vm.state, "running", "state")
end)

t.finish()
