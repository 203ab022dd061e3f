-- What devices write to the guest's memory never enters KVM's log of dirty pages: a restore undoes
-- it all the same. Memory is compared byte by byte, by way of saved snapshots.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local folder <close> = t.folder()
local image = folder.path .. "/disk.img"
t.write_file(image, ("sector of the image "):rep(1 << 16):sub(1, 1 << 20))

local vm <close> = vmoon.boot { memory = "32MiB", disks = { { path = image } } }
local server <close> = vm:spawn "echo-server 5000"
vm:wait_port(5000, { timeout = "5s" })
vm:succeed "dirty 200 1"
-- Every device has moved its rings before the snapshot, so that nothing is there for the first time.
vm:succeed "blk read 0 1"
local sum = vm:succeed "checksum"
vm:pause()
local snap <close> = vm:snapshot "base"
snap:save(folder.path .. "/base")

--- Lets devices write, and sees that they did and that a restore takes it back.
local function undone(write)
  vm:restore(snap)
  vm:resume()
  write()
  local changed <close> = vm:snapshot "changed"
  assert(changed.dirty_pages > 0, "nothing was written")
  vm:restore(snap)
  t.same(vm.state, "paused", "state")
  local again <close> = vm:snapshot "again"
  again:save(folder.path .. "/again")
  t.same_memory(folder.path .. "/again", folder.path .. "/base")
  -- From below as well as from above.
  vm:restore(changed)
  vm:restore(snap)
  local once_more <close> = vm:snapshot "once more"
  once_more:save(folder.path .. "/again")
  t.same_memory(folder.path .. "/again", folder.path .. "/base")
end

t.case("what a vsock connection brought", function()
  undone(function()
    local stream <close> = vm:connect(5000)
    local text = ("vsock "):rep(50000)
    local writer = vmoon.task.spawn(function() stream:write(text) end)
    t.same(t.read_exactly(stream, #text), text, "the echo")
    writer:join()
  end)
end)

t.case("what was read from a disk", function()
  undone(function()
    for sector = 0, 70, 7 do
      assert(#vm:succeed(("blk read %d 7"):format(sector)) > 0, "nothing was read")
    end
  end)
end)

t.case("what the balloon took, and what it gave back", function()
  undone(function()
    vm.balloon:set("16MiB", { wait = true, timeout = "20s" })
  end)
  t.same(vm.balloon.actual, 32 << 20, "what the guest is left with")
  undone(function()
    vm.balloon:set("16MiB", { wait = true, timeout = "20s" })
    vm.balloon:set("32MiB", { wait = true, timeout = "20s" })
    vm:succeed "dirty 500 7"
  end)
end)

t.case("what the entropy device gave", function()
  undone(function() vm:succeed "random 512" end)
end)

t.case("all of them at once, and the guest goes on", function()
  undone(function()
    local stream <close> = vm:connect(5000)
    stream:write "one line\n"
    t.same(stream:read_line(), "one line", "the echo")
    vm:succeed "blk write 3 c0ffee"
    vm:succeed "blk read 3 2"
    vm.balloon:set("24MiB", { wait = true, timeout = "20s" })
  end)
  vm:resume()
  t.same(vm:succeed "checksum", sum, "the checksum")
  assert(vm:succeed("blk read 3 1"):find "^%x" and not vm:succeed("blk read 3 1"):find "^c0ffee", "the sector is back")
  local stream <close> = vm:connect(5000)
  stream:write "still\n"
  t.same(stream:read_line(), "still", "the echo")
end)

t.finish()
