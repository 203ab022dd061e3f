-- Files to and from the micro guest, which keeps single files in its store.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local vm <close> = vmoon.boot { memory = "32MiB" }

local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir '" .. folder .. "'"))

local function write(name, data)
  local file <close> = assert(io.open(folder .. "/" .. name, "wb"))
  file:write(data)
end

local function read(name)
  local file <close> = assert(io.open(folder .. "/" .. name, "rb"))
  return file:read "a"
end

t.case("a file reads back as it was written", function()
  for _, data in ipairs { "hello\n", "", "\0\1\255\n\r", ("line\n"):rep(20000) } do
    vm:write_file("/tmp/note", data)
    t.same(vm:read_file "/tmp/note" == data, true, #data .. " bytes")
  end
end)

t.case("a path may hold any bytes", function()
  for _, path in ipairs { "/with space", "/with\nnewline", "/not \xff\xfe utf-8", "relative" } do
    vm:write_file(path, path)
    t.same(vm:read_file(path), path, "contents")
  end
end)

t.case("commands see the file", function()
  vm:write_file("/etc/motd", "welcome")
  t.same(vm:succeed { "cat", "/etc/motd" }, "welcome", "cat")
  t.same(vm:exec("cat /nothing").code, 1, "cat of nothing")
end)

t.case("a file that does not exist is file.not_found, with its path", function()
  local err = t.raises("file.not_found", vm.read_file, vm, "/no/such/file")
  assert(t.words(err):find("/no/such/file", 1, true), t.words(err))
  t.raises("file.not_found", vm.write_file, vm, "", "x")
  t.raises("file.not_found", vm.copy_in, vm, folder .. "/none", "/x")
  t.raises("file.not_found", vm.copy_out, vm, "/none", folder .. "/x")
end)

t.case("a full guest is file.no_space, and the old file stays", function()
  vm:write_file("/data", "old")
  t.raises("file.no_space", vm.write_file, vm, "/data", ("x"):rep(3000000))
  t.same(vm:read_file "/data", "old", "the file")
  t.same(vm:exec("echo on").stdout, "on\n", "the next command")
end)

t.case("copy_in and copy_out carry a file", function()
  local data = ("0123456789abcdef"):rep(7000)
  write("a b", data)
  vm:copy_in(folder .. "/a b", "/copied")
  t.same(vm:read_file "/copied" == data, true, "in the guest")
  vm:copy_out("/copied", folder .. "/back")
  t.same(read "back" == data, true, "on the host")
  vm:copy_out("/copied", folder)
  t.same(read "copied" == data, true, "in a directory of the host, under its name")
end)

t.case("a directory is nothing for the micro guest", function()
  local err = t.raises("backend.unsupported", vm.copy_in, vm, folder, "/folder")
  assert(t.words(err):find("micro guest", 1, true), t.words(err))
end)

t.case("copy_out to a place that cannot be written leaves nothing", function()
  vm:write_file("/small", "small")
  t.raises("file.not_found", vm.copy_out, vm, "/small", folder .. "/no/such/folder")
  vm:copy_out("/small", folder .. "/no/such/folder", { parents = true })
  t.same(read "no/such/folder", "small", "with parents")
  t.raises("file.is_directory", function()
    assert(os.execute("mkdir -p '" .. folder .. "/taken/small'"))
    vm:copy_out("/small", folder .. "/taken")
  end)
end)

t.case("files go back with a snapshot, and the checksum sees them", function()
  vm:write_file("/state", "clean")
  local sum = vm:succeed "checksum"
  local snapshot <close> = vm:snapshot()
  vm:write_file("/state", "wrecked")
  assert(vm:succeed "checksum" ~= sum, "the checksum")
  vm:restore(snapshot)
  t.same(vm:read_file "/state", "clean", "after the restore")
  t.same(vm:succeed "checksum", sum, "the checksum after the restore")
  local fork <close> = snapshot:fork()
  t.same(fork:read_file "/state", "clean", "in a fork")
end)

t.case("many files at once", function()
  local names = {}
  for n = 1, 40 do names[n] = n end
  vmoon.task.map(names, function(n) vm:write_file("/many/" .. n, ("x"):rep(n * 100)) end, { limit = 40 })
  for n = 1, 40 do t.same(#vm:read_file("/many/" .. n), n * 100, "file " .. n) end
end)

t.case("wrong arguments are explained", function()
  t.raises("vm.spec", vm.write_file, vm, "/x")
  t.raises("vm.spec", vm.write_file, vm, "/x", "data", { mode = 755 })
  t.raises("vm.spec", vm.write_file, vm, "/x", "data", { mod = "755" })
  t.raises("vm.spec", vm.read_file, vm)
  vm:pause()
  t.raises("vm.state", vm.read_file, vm, "/state")
  vm:resume()
end)

os.execute("rm -rf '" .. folder .. "'")
t.finish()
