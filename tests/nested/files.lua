-- Files to and from a stock Linux: contents, trees, sparse files, and what stands in their way.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local vm <close> = vmoon.boot { guest = "linux", memory = "256MiB", timeout = "2m" }

local host <close> = t.folder()
local folder <const> = host.path

local function sh(script)
  local pipe = io.popen("cd '" .. folder .. "' && " .. script)
  local out = pipe:read "a"
  assert(pipe:close(), script)
  return out
end

-- Names, kinds, modes and dates of a tree, and what its files hold: the same on both sides.
local LIST = [[find . | sort | while IFS= read -r f; do
  stat -c '%A %F %Y' "$f"; if [ -L "$f" ]; then readlink "$f"; elif [ -f "$f" ]; then md5sum <"$f"; fi; done]]

t.case("contents of any kind and size", function()
  for _, data in ipairs { "hello\n", "", "\0\1\255", ("0123456789abcdef"):rep(500000) } do
    vm:write_file("/tmp/with space\nand more \xff", data)
    t.same(vm:read_file "/tmp/with space\nand more \xff" == data, true, #data .. " bytes")
  end
  t.same(vm:succeed "ls -A /tmp | grep -c vmoon; true", "0\n", "nothing temporary is left")
end)

t.case("modes are set, kept and usual", function()
  vm:write_file("/tmp/run", "#!/bin/sh\necho ran\n", { mode = "755" })
  t.same(vm:succeed "/tmp/run", "ran\n", "a script")
  vm:write_file("/tmp/run", "#!/bin/sh\necho again\n")
  t.same(vm:succeed "/tmp/run", "again\n", "its replacement")
  vm:write_file("/tmp/plain", "x")
  t.same(vm:succeed "stat -c %a /tmp/plain", "644\n", "a new file")
end)

t.case("links are written through, and /proc and devices in place", function()
  vm:succeed "ln -s real /tmp/link; ln -s nothing-yet /tmp/dangling"
  vm:write_file("/tmp/link", "through")
  vm:write_file("/tmp/dangling", "made")
  t.same(vm:succeed "cat /tmp/real /tmp/nothing-yet; test -L /tmp/link && echo", "throughmade\n", "links")
  vm:write_file("/proc/sys/kernel/hostname", "renamed\n")
  t.same(vm:read_file "/proc/sys/kernel/hostname", "renamed\n", "/proc")
  vm:write_file("/dev/null", "gone")
  t.same(vm:succeed "test -c /dev/null && echo still", "still\n", "a device")
end)

t.case("what stands in the way is said", function()
  local err = t.raises("file.not_found", vm.read_file, vm, "/no/such file")
  assert(t.words(err):find("/no/such file", 1, true), t.words(err))
  t.raises("file.not_found", vm.write_file, vm, "/no/such/file", "x")
  t.raises("file.is_directory", vm.write_file, vm, "/tmp", "x")
  t.raises("file.is_directory", vm.read_file, vm, "/tmp")
  t.raises("file.not_directory", vm.read_file, vm, "/dev/null/x")
  t.raises("file.not_found", vm.copy_in, vm, folder .. "/none", "/tmp")
  t.raises("file.not_found", vm.copy_out, vm, "/none", folder)
  vm:write_file("/tmp/deep/er/file", "x", { parents = true })
  t.same(vm:read_file "/tmp/deep/er/file", "x", "with parents")
end)

t.case("a full disk of the guest is file.no_space, and leaves what was there", function()
  vm:succeed "mkdir /small && mount -t tmpfs -o size=1m none /small"
  vm:write_file("/small/file", "old")
  local data = ("x"):rep(4 << 20)
  local err = t.raises("file.no_space", vm.write_file, vm, "/small/file", data)
  assert(t.words(err):find("/small/file", 1, true), t.words(err))
  sh "mkdir big && head -c 4000000 /dev/zero | tr '\\0' x >big/file"
  t.raises("file.no_space", vm.copy_in, vm, folder .. "/big", "/small/big")
  t.same(vm:succeed "cat /small/file; ls -A /small", "oldfile\n", "what is there")
  vm:succeed "umount /small"
end)

t.case("a tree comes and goes with its modes, dates and links", function()
  sh [[mkdir -p tree/sub/empty tree/'a b' && echo '#!' >tree/sub/run && chmod 754 tree/sub/run &&
    ln -s /etc/passwd tree/link && head -c 300000 /dev/urandom >tree/'a b'/data && touch -d '2001-02-03' tree/sub]]
  vm:copy_in(folder .. "/tree", "/tmp/tree")
  local here = sh("cd tree && " .. LIST)
  t.same(vm:succeed("cd /tmp/tree && " .. LIST), here, "in the guest")
  vm:copy_out("/tmp/tree", folder .. "/back")
  t.same(sh("cd back && " .. LIST), here, "back on the host")
  -- Into a directory that is there, under its own name.
  vm:succeed "mkdir /tmp/inbox"
  vm:copy_in(folder .. "/tree", "/tmp/inbox")
  t.same(vm:succeed("cd /tmp/inbox/tree && " .. LIST), here, "in a directory")
  t.raises("file.exists", vm.copy_in, vm, folder .. "/tree", "/tmp/inbox")
end)

t.case("sparse files stay sparse", function()
  sh "truncate -s 3G sparse && printf middle | dd of=sparse bs=1 seek=1073741824 conv=notrunc 2>/dev/null"
  vm:copy_in(folder .. "/sparse", "/tmp/sparse")
  local size, blocks = vm:succeed("stat -c '%s %b' /tmp/sparse"):match "(%d+) (%d+)"
  t.same(size, tostring(3 << 30), "its size")
  assert(tonumber(blocks) < 100, blocks .. " blocks in the guest")
  vm:copy_out("/tmp/sparse", folder .. "/sparse-back")
  local size, blocks = sh("stat -c '%s %b' sparse-back"):match "(%d+) (%d+)"
  t.same(size, tostring(3 << 30), "its size on the host")
  assert(tonumber(blocks) < 100, blocks .. " blocks on the host")
  vm:succeed "rm /tmp/sparse"
end)

t.case("a hostile tree stays in its place", function()
  vm:succeed [[mkdir /tmp/evil && cd /tmp/evil && ln -s / root && ln -s ../../../etc up &&
    cp /bin/busybox suid && chmod 6755 suid]]
  sh "mkdir out"
  vm:copy_out("/tmp/evil", folder .. "/out")
  t.same(sh "readlink out/evil/root; readlink out/evil/up", "/\n../../../etc\n", "links are links")
  assert(sh("stat -c %a out/evil/suid"):match "^755", "set-user-ID bits are dropped")
  vm:succeed "mkfifo /tmp/evil/fifo"
  t.raises("file.io", vm.copy_out, vm, "/tmp/evil", folder .. "/evil")
  t.same(sh "ls -A | grep -c -e evil -e vmoon; true", "0\n", "nothing of it is left")
end)

t.case("a copy ends at its timeout, and the guest removes what came", function()
  sh "head -c 67108864 /dev/zero | tr '\\0' x >large"
  t.raises("vm.timeout", vm.copy_in, vm, folder .. "/large", "/tmp/large", { timeout = "30ms" })
  t.eventually(20, "nothing is left", function()
    return vm:succeed "ls -A /tmp | grep -c -e vmoon -e large; true" == "0\n"
  end)
end)

t.case("files go back with a snapshot", function()
  vm:write_file("/tmp/state", "clean")
  local snapshot <close> = vm:snapshot()
  vm:write_file("/tmp/state", "wrecked")
  vm:restore(snapshot)
  t.same(vm:read_file "/tmp/state", "clean", "after the restore")
end)

t.finish()
