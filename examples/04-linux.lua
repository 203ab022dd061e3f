#!/usr/bin/env vmoon
-- The same, with Linux: boot a stock kernel, break the system, and have it back.
--
-- `guest = "linux"` takes a kernel that is installed on this host (Debian's and Ubuntu's packages
-- will do) and starts it with an initramfs that vmoon puts together itself: its agent and
-- busybox. There is no image to build, and nothing to configure.
local vmoon = require "vmoon"

local vm <close> = vmoon.boot { guest = "linux", memory = "256MiB", timeout = "2m" }
print("running " .. vm:succeed("uname -sr"):gsub("\n", ""))

-- A string is for the guest's shell. Output, errors and the exit code come back apart.
local result = vm:exec "echo to the host; echo to whom it may concern >&2; exit 3"
print(("code %d, stdout %q, stderr %q"):format(result.code, result.stdout, result.stderr))

-- Files, processes, kernel: all of it is in the snapshot.
vm:succeed "mkdir -p /data && echo precious > /data/file"
local clean <close> = vm:snapshot "clean"

vm:succeed "rm -rf /data"
assert(not vm:exec("test -e /data/file").ok)
print "the data is gone"

vm:restore(clean)
io.write("and back: ", vm:succeed "cat /data/file")

-- Even a kernel panic is only a state. Writing `c` here makes Linux panic at once.
pcall(vm.exec, vm, "echo c > /proc/sysrq-trigger", { timeout = "30s" })
vm:wait("crashed", { timeout = "30s" })
print("the kernel panicked: the machine is " .. vm.state)

vm:restore(clean)
io.write("and back: ", vm:succeed "cat /data/file")

-- A clean shutdown: the agent asks the guest, and the guest powers off.
print("stopped, " .. vm:stop { timeout = "30s" })
