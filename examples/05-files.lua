-- Files go in, the guest works on them, and files come out; a restore undoes what became of them.
-- The built-in guest keeps single files. `vmoon run examples/05-files.lua linux` copies whole trees too.
local vmoon = require "vmoon"

local guest = arg[1] == "linux" and "linux" or "micro"
local vm <close> = vmoon.boot { guest = guest, timeout = "2m" }

vm:write_file("/tmp/greeting", "hello from the host\n")
io.write("the guest reads: ", vm:succeed "cat /tmp/greeting")
local clean <close> = vm:snapshot "clean"

vm:write_file("/tmp/greeting", "scribble\n")
io.write("then it is:      ", vm:read_file "/tmp/greeting")
vm:restore(clean)
io.write("and again:       ", vm:read_file "/tmp/greeting")

-- Any size, in either direction; what is there is replaced at one moment, or not at all.
local copy <const> = os.tmpname()
vm:copy_out("/tmp/greeting", copy)
vm:copy_in(copy, "/tmp/copy")
print("there and back:  " .. #vm:read_file "/tmp/copy" .. " bytes")

if arg[1] == "linux" then
  os.remove(copy)
  vm:copy_out("/etc", copy)                    -- modes, links and dates are kept
  vm:copy_in(copy, "/tmp/etc")
  print("a whole tree:    " .. vm:succeed "find /tmp/etc | wc -l")
end
os.execute("rm -r '" .. copy .. "'")

-- What stands in the way is said.
local ok, err = pcall(vm.read_file, vm, "/tmp/none")
print("not there:       " .. tostring(err))
