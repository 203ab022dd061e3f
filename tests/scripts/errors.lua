-- Structured errors: every bad description of a machine, every unknown key.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local function file_with(content)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "wb"))
  file:write(content)
  return path
end

--- Boots with a bad spec: an error of one of these codes that has a hint and names `words`.
local function refused(codes, spec, ...)
  local before = #vmoon.list()
  local err = t.raises(codes, vmoon.boot, spec)
  for _, word in ipairs { ... } do
    assert(t.words(err):find(word, 1, true), ("%q is not named: %s"):format(word, t.words(err)))
  end
  assert(type(err.hint) == "string" and #err.hint > 0, "no hint: " .. tostring(err))
  t.same(#vmoon.list(), before, "machines left behind")
  return err
end

t.case("an unknown key of the spec is named, with the valid ones", function()
  local err = t.raises("vm.spec", vmoon.boot, { cpuz = 2 })
  assert(t.words(err):find("cpuz", 1, true), t.words(err))
  for _, key in ipairs { "cpus", "memory", "kernel", "vsock" } do
    assert(t.words(err):find(key, 1, true), key .. " is not listed: " .. t.words(err))
  end
  t.raises("vm.spec", vmoon.create, { Memory = "64MiB" })
end)

t.case("an unknown key of any options is named", function()
  local vm <close> = vmoon.boot { memory = "32MiB" }
  local snap <close> = vm:snapshot "s"
  local calls = {
    exec = function() vm:exec("true", { timeuot = 1 }) end,
    spawn = function() vm:spawn("true", { timeuot = 1 }) end,
    connect = function() vm:connect(5000, { timeuot = 1 }) end,
    wait = function() vm:wait("running", { timeuot = 1 }) end,
    stop = function() vm:stop { timeuot = 1 } end,
    restore = function() vm:restore(snap, { timeuot = 1 }) end,
    snapshot = function() vm:snapshot("x", { timeuot = 1 }) end,
    wait_until = function() vm:wait_until("true", { timeuot = 1 }) end,
    wait_port = function() vm:wait_port(1024, { timeuot = 1 }) end,
    forward = function() vm:forward { port = 1, unix = "/tmp/x", timeuot = 1 } end,
    balloon = function() vm.balloon:set("16MiB", { timeuot = 1 }) end,
    console = function() vm.console:wait("x", { timeuot = 1 }) end,
    map = function() vmoon.task.map({}, print, { timeuot = 1 }) end,
    disks = function() vmoon.create { disks = { { path = "/dev/null", timeuot = 1 } } } end,
    vsock = function() vmoon.create { vsock = { timeuot = 1 } } end,
  }
  local wrong = {}
  for name, call in pairs(calls) do
    local ok, err = pcall(call)
    if ok or type(err) ~= "table" or not err.code or not t.words(err):find("timeuot", 1, true) then
      wrong[#wrong + 1] = name .. ": " .. tostring(err)
    end
  end
  table.sort(wrong)
  t.same(table.concat(wrong, "\n"), "", "calls that do not name the key")
  t.same(vm.state, "running", "the machine")
end)

t.case("cpus: none, too many, and what is no number", function()
  refused("vm.spec", { cpus = 0 }, "cpus")
  refused("vm.spec", { cpus = -1 }, "cpus")
  refused({ "vm.spec", "backend.unsupported" }, { cpus = 100000 }, "100000")
  for _, cpus in ipairs { 1.5, "two", true } do
    local err = t.raises("vm.spec", vmoon.boot, { cpus = cpus })
    assert(t.words(err):find("cpus", 1, true), t.words(err))
  end
end)

t.case("memory: nothing, too little, a fruit, more than the host has", function()
  refused("vm.spec", { memory = "0" }, "memory")
  refused("vm.spec", { memory = 0 }, "memory")
  refused("vm.spec", { memory = "12" }, "memory")
  refused("vm.spec", { memory = "banana" }, "banana")
  refused("vm.spec", { memory = "900TiB" }, "memory")
  refused("vm.spec", { memory = "512GiB" }, "memory")
  for _, memory in ipairs { -1, 1.5, true, "" } do
    t.raises("vm.spec", vmoon.boot, { memory = memory })
  end
end)

t.case("durations that are none", function()
  for _, timeout in ipairs { "soon", -1, "10 parsecs" } do
    t.raises("vm.spec", vmoon.boot, { timeout = timeout })
  end
end)

t.case("kernels: missing, empty, truncated, a directory, something else", function()
  refused({ "file.not_found", "vm.spec" }, { kernel = "/no/such/kernel" }, "/no/such/kernel")
  local empty = file_with ""
  refused("vm.spec", { kernel = empty }, empty)
  local text = file_with(("this is not a kernel\n"):rep(5000))
  refused("vm.spec", { kernel = text }, text)
  local noise = file_with(("\x7fELF"):rep(20000))
  refused("vm.spec", { kernel = noise }, noise)
  -- A boot sector with the signatures of a bzImage, and nothing behind it.
  local setup = ("\0"):rep(0x1f1) .. "\4" .. ("\0"):rep(12) .. "\x55\xaa\xeb\x66HdrS\x0f\x02" .. ("\0"):rep(2000)
  local truncated = file_with(setup)
  refused("vm.spec", { kernel = truncated }, truncated)
  refused({ "vm.spec", "file.io", "file.permission" }, { kernel = "/tmp" }, "/tmp")
  for _, path in ipairs { empty, text, noise, truncated } do os.remove(path) end
end)

t.case("initrds: missing, empty, a directory", function()
  -- A kernel that passes for one, so that the initrd is looked at.
  local handle <close> = io.popen "ls /boot/vmlinuz-* 2>/dev/null"
  local kernel = handle:read "l"
  if not kernel then return print "    no kernel in /boot: not tried" end
  refused({ "file.not_found", "vm.spec" }, { kernel = kernel, initrd = "/no/such/initrd" }, "/no/such/initrd")
  local empty = file_with ""
  refused("vm.spec", { kernel = kernel, initrd = empty }, empty)
  refused("vm.spec", { kernel = kernel, initrd = "/tmp" }, "/tmp")
  os.remove(empty)
end)

t.case("disks: missing files are named", function()
  refused({ "file.not_found", "vm.spec" }, { disks = { { path = "/no/such/disk" } } }, "/no/such/disk")
end)

t.case("two machines with one CID: the second is refused, the first goes on", function()
  local one <close> = vmoon.boot { memory = "32MiB", vsock = { cid = 77 } }
  t.same(one.cid, 77, "cid")
  refused("vm.spec", { memory = "32MiB", vsock = { cid = 77 } }, "77")
  t.same(one:succeed "echo here", "here\n", "the first machine")
  one:close()
  local again <close> = vmoon.boot { memory = "32MiB", vsock = { cid = 77 } }
  t.same(again.cid, 77, "cid, free again")
end)

t.case("CIDs that are reserved or none", function()
  for _, cid in ipairs { 0, 1, 2, -5, 1 << 32 } do
    local err = t.raises("vm.spec", vmoon.create, { vsock = { cid = cid } })
    assert(t.words(err):find("cid", 1, true) or t.words(err):find("CID", 1, true), t.words(err))
  end
end)

t.case("two machines with one name: the second is refused", function()
  local one <close> = vmoon.create { name = "twin", memory = "32MiB" }
  local err = t.raises("vm.spec", vmoon.create, { name = "twin", memory = "32MiB" })
  assert(t.words(err):find("twin", 1, true), t.words(err))
end)

t.case("a backend that does not exist, or not here", function()
  local err = t.raises({ "backend.unavailable", "vm.spec" }, vmoon.boot, { backend = "hypervisor9000" })
  assert(t.words(err):find("hypervisor9000", 1, true), t.words(err))
  t.raises({ "backend.unavailable", "backend.unsupported" }, vmoon.boot, { backend = "vz" })
  local err = t.raises("backend.unsupported", vmoon.boot, { backend = "kvm", rosetta = true })
  assert(t.words(err):lower():find("rosetta", 1, true), t.words(err))
end)

t.case("a guest that does not exist", function()
  local err = t.raises("vm.spec", vmoon.boot, { guest = "windows" })
  assert(t.words(err):find("windows", 1, true) and t.words(err):find("micro", 1, true), t.words(err))
end)

t.case("a boot that does not get ready in time leaves no machine behind", function()
  local before = #vmoon.list()
  t.raises("vm.timeout", vmoon.boot, { memory = "32MiB", ready = "never on this console", timeout = "300ms" })
  t.same(#vmoon.list(), before, "machines")
end)

t.case("exec on a machine without an agent", function()
  local vm <close> = vmoon.boot { memory = "32MiB", agent = false, ready = false }
  local ok, err = pcall(vm.exec, vm, "true", { timeout = "2s" })
  assert(not ok and err.code == "agent.unavailable", tostring(err))
end)

t.case("an error is a table that prints itself, and can be raised again", function()
  local ok, err = pcall(function()
    local ok, err = pcall(vmoon.boot, { cpus = 0 })
    assert(not ok)
    error(err)
  end)
  assert(not ok)
  t.same(type(err), "table", "type")
  t.same(err.code, "vm.spec", "code")
  assert(tostring(err):find("vm.spec", 1, true), tostring(err))
end)

t.case("a method that does not exist is an error that names it", function()
  local vm <close> = vmoon.create { memory = "32MiB" }
  local ok, err = pcall(function() vm:fly() end)
  assert(not ok and tostring(err):find("fly", 1, true), tostring(err))
end)

t.finish()
