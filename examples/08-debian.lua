#!/usr/bin/env vmoon
-- A whole distribution: Debian with systemd, from its own disk, wrecked and had back.
--
-- The disk is a raw image of an ext4 file system. To make one takes a minute, as root:
--
--   mmdebstrap --variant=minbase --include=systemd-sysv,udev,dbus stable root
--   mkfs.ext4 -d root debian.img 1G
--   vmoon run 08-debian.lua debian.img
local vmoon = require "vmoon"

local image = arg[1] or error("which image? See the first lines of " .. arg[0], 0)
local patient <const> = { timeout = "20m" } -- seconds will do, unless the processor is emulated

-- vmoon brings the kernel and its agent, so the disk needs neither. The guest's writes go into
-- memory: the image stays as it is, and any number of machines may start from it at once.
local vm <close> = vmoon.boot { guest = "linux", root = image, memory = "512MiB", timeout = "20m" }
vm:wait_unit("multi-user.target", patient)
io.write("running ", vm:succeed '. /etc/os-release && echo "$PRETTY_NAME"')

-- A service of our own, as systemd likes them.
vm:succeed("cat > /etc/systemd/system/greeter.service", { stdin = [[
[Service]
ExecStart=/bin/sh -c 'echo hello >> /var/greetings; exec sleep infinity'
]] })
vm:succeed "systemctl daemon-reload && systemctl start greeter"
vm:wait_unit("greeter.service", patient)
vm:wait_file("/var/greetings", patient)

-- Memory and disk are one snapshot, so this can do no harm.
local clean <close> = vm:snapshot "clean"
vm:succeed "rm -rf /usr /etc /var"
print("ls is " .. (pcall(vm.exec, vm, { "ls" }) and "there" or "gone"))

vm:restore(clean)
io.write("ls is back, the service is ", vm:succeed "systemctl is-active greeter")
io.write("it said ", vm:succeed "cat /var/greetings")

-- What the machine made of its disk can become an image of its own.
if arg[2] then
  vm:succeed "sync"
  vm:commit_disk(0, arg[2])
  print("written to " .. arg[2])
end

-- systemd stops everything in order, and powers off.
print("stopped, " .. vm:stop(patient))
