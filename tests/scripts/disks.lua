-- Disks: images beneath overlays, images written in place, and disks written to images.
local vmoon = require "vmoon"
local t = dofile((arg[0]:match "^(.*)/" or ".") .. "/../support.lua")

local SECTOR <const> = 512

local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. folder))

--- The path of a new image with `sectors` sectors, each full of the same letter: a, b, c, …
local function image(name, sectors)
  local path = folder .. "/" .. name
  local file <close> = assert(io.open(path, "wb"))
  for sector = 0, sectors - 1 do file:write(string.char(97 + sector % 26):rep(SECTOR)) end
  return path
end

--- A sector of a file of the host's.
local function sector_of(path, sector)
  local file <close> = assert(io.open(path, "rb"))
  file:seek("set", sector * SECTOR)
  return file:read(SECTOR)
end

local function write(vm, sector, letter)
  vm:succeed(("blk write %d %s"):format(sector, ("%02x"):format(letter:byte()):rep(SECTOR)))
end

--- What the guest reads, as a letter.
local function read(vm, sector)
  local hex = t.trim(vm:succeed(("blk read %d 1"):format(sector)))
  local letter = string.char(tonumber(hex:sub(1, 2), 16))
  t.same(hex, hex:sub(1, 2):rep(SECTOR), "a sector of one letter")
  return letter
end

local function names()
  local list <close> = assert(io.popen("ls -A " .. folder))
  return list:read "a"
end

local function status(vm)
  for _, device in ipairs(vm:info().devices) do
    if device.name == "disk-0" then return device.status end
  end
end

t.case("a disk is written to an image as the guest sees it, and the guest goes on", function()
  local base, copy = image("base", 67), folder .. "/copy"
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  write(vm, 3, "X")
  write(vm, 66, "Y")
  vm:commit_disk(1, copy)
  t.same(vm.state, "running", "the state")
  write(vm, 3, "Z")
  t.same(sector_of(copy, 3), ("X"):rep(SECTOR), "the first write")
  t.same(sector_of(copy, 66), ("Y"):rep(SECTOR), "the last sector")
  t.same(sector_of(copy, 4), ("e"):rep(SECTOR), "an old sector")
  t.same(sector_of(copy, 67), nil, "the end")
  t.same(sector_of(base, 3), ("d"):rep(SECTOR), "the image beneath")

  -- In place of the copy, and another machine starts from it.
  vm:commit_disk(1, copy)
  local other <close> = vmoon.boot { disks = { { path = copy, readonly = true } } }
  t.same(read(other, 3) .. read(other, 66), "ZY", "in the other machine")
  t.same(names(), "base\ncopy\n", "the files")
end)

t.case("a snapshot's disk, too, from each place in the tree", function()
  local base, copy = image("base", 8), folder .. "/copy"
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  local snaps = {}
  for n, letter in ipairs { "P", "Q", "R" } do
    write(vm, 1, letter)
    snaps[n] = vm:snapshot(letter)
  end
  vm:restore(snaps[1])
  for n, letter in ipairs { "P", "Q", "R" } do
    snaps[n]:commit_disk(1, copy)
    t.same(sector_of(copy, 1), letter:rep(SECTOR), "snapshot " .. letter)
  end
  vm:commit_disk(1, copy)
  t.same(sector_of(copy, 1), ("P"):rep(SECTOR), "the restored machine's")
  local fork <close> = snaps[2]:fork()
  write(fork, 2, "F")
  fork:commit_disk(1, copy)
  t.same(sector_of(copy, 1):sub(1, 1) .. sector_of(copy, 2):sub(1, 1), "QF", "the fork's")
  snaps[3]:delete()
  t.raises("snapshot.not_found", snaps[3].commit_disk, snaps[3], 1, copy)
end)

t.case("a snapshot holds the clusters written since the one before", function()
  local base = folder .. "/base"
  assert(os.execute("truncate -s 1M " .. base))
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  local function fill(clusters)
    for n = 0, clusters - 1 do
      vm:succeed(("blk write %d %s"):format(n * 8, ("ab"):rep(8 * SECTOR)))
    end
  end
  -- What a snapshot holds beside pages and clusters: nothing with KVM, QEMU's own state with QEMU,
  -- which is about the same each time once the guest has set up all of its devices.
  vm.console:wait "ready"
  local empty <close> = vm:snapshot()
  local function beside_pages(snap) return (snap.bytes - snap.dirty_pages * 4096) // 4096 end
  local own <const> = vm.backend == "kvm" and 0 or beside_pages(empty)
  local slack <const> = vm.backend == "kvm" and 0 or 2
  local function of_disks(snap) return beside_pages(snap) - own end
  local function near(count, expected, what)
    assert(math.abs(count - expected) <= slack, ("%s: %d expected, got %d"):format(what, expected, count))
  end
  fill(100)
  local first <close> = vm:snapshot()
  near(of_disks(first), 100, "clusters of the first")
  fill(7)
  local second <close> = vm:snapshot()
  near(of_disks(second), 7, "of the second")
  fill(50)
  vm:restore(first)
  fill(3)
  local third <close> = vm:snapshot()
  near(of_disks(third), 3, "of one above the first")
end)

t.case("what is empty takes no room", function()
  local base, copy = folder .. "/sparse", folder .. "/copy"
  assert(os.execute("truncate -s 1G " .. base))
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  write(vm, 2000000, "X")
  vm:commit_disk(1, copy)
  local blocks <close> = assert(io.popen("stat -c '%s %b' " .. copy))
  local bytes, used = blocks:read("n", "n")
  t.same(bytes, 1 << 30, "the length")
  assert(used * 512 <= 1 << 20, "it takes " .. used * 512 .. " bytes")
  t.same(sector_of(copy, 2000000), ("X"):rep(SECTOR), "the sector")
end)

t.case("a disk that does not exist, and places where no image can be", function()
  local base = image("base", 8)
  local before = names()
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  for _, number in ipairs { 0, 2 } do
    local err = t.raises("vm.spec", vm.commit_disk, vm, number, folder .. "/other")
    t.same(err.hint, "it has disk 1", "the hint")
  end
  t.raises("vm.spec", vm.commit_disk, vm)
  t.raises("vm.spec", vm.commit_disk, vm, 1)
  t.raises("file.io", vm.commit_disk, vm, 1, folder)
  t.raises("file.not_found", vm.commit_disk, vm, 1, folder .. "/none/image")
  local own = t.raises("file.io", vm.commit_disk, vm, 1, base)
  assert(t.words(own):find "a machine uses this image", t.words(own))
  vm:close()
  t.raises("vm.state", vm.commit_disk, vm, 1, folder .. "/other")
  t.same(names(), before, "the files")
end)

t.case("a direct disk is its image; it is copied while the machine does not run", function()
  local base, copy = image("direct", 8), folder .. "/copy"
  local vm <close> = vmoon.boot { disks = { { path = base, mode = "direct" } } }
  write(vm, 1, "X")
  t.same(sector_of(base, 1), ("X"):rep(SECTOR), "the image")
  local err = t.raises("vm.state", vm.commit_disk, vm, 1, copy)
  t.same(err.hint, "vm:pause() first", "the hint")
  vm:pause()
  vm:commit_disk(1, copy)
  t.same(sector_of(copy, 1), ("X"):rep(SECTOR), "the copy")
  local snap <close> = vm:snapshot()
  local refused = t.raises("vm.spec", snap.commit_disk, snap, 1, copy)
  assert(t.words(refused):find "overlay", t.words(refused))
end)

t.case("an image has one writer, or readers", function()
  local base = image("shared", 8)
  local direct <const> = { disks = { { path = base, mode = "direct" } } }
  local overlay <const> = { disks = { { path = base } } }
  do
    local vm <close> = vmoon.boot(direct)
    for _, spec in ipairs { direct, overlay } do
      local err = t.raises("file.io", vmoon.create, spec)
      assert(t.words(err):find(base, 1, true) and t.words(err):find "in use", t.words(err))
    end
    local snap <close> = vm:snapshot()
    t.raises("file.io", snap.fork, snap)
    write(vm, 1, "X")
  end
  -- A closed machine holds nothing, whether or not its handle still exists.
  local first <close> = vmoon.boot(overlay)
  local second <close> = vmoon.boot(overlay)
  t.same(read(first, 1) .. read(second, 1), "XX", "two readers")
  t.raises("file.io", vmoon.create, direct)
  local snap = first:snapshot()
  local fork <close> = snap:fork()
  snap:delete()
  first:close()
  second:close()
  fork:close()
  local last <close> = vmoon.create(direct)
end)

t.case("a read-only disk is read, and writes are errors of the guest's", function()
  local base, copy = image("readonly", 8), folder .. "/copy"
  local vm <close> = vmoon.boot { disks = { { path = base, readonly = true } } }
  local result = vm:exec("blk write 1 " .. ("00"):rep(SECTOR))
  assert(not result.ok and result.stderr:find "the device reported an error", result.stderr)
  t.same(read(vm, 1), "b", "the sector")
  vm:commit_disk(1, copy)
  t.same(sector_of(copy, 1), ("b"):rep(SECTOR), "the copy")
end)

t.case("an image that shrinks beneath a machine is an error where it ends, and one that grows is not", function()
  local base = image("changing", 64)
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  write(vm, 63, "X")
  assert(os.execute("truncate -s 8192 " .. base))
  t.same(read(vm, 1), "b", "what is still there")
  t.same(read(vm, 63), "X", "what is in the overlay")
  assert(not vm:exec("blk read 40 1").ok, "what is gone")
  assert(status(vm):find "1 request failed, the last one: ", status(vm))
  t.raises("file.io", vm.commit_disk, vm, 1, folder .. "/copy")
  assert(os.execute("truncate -s 1M " .. base))
  t.same(read(vm, 40), "\0", "what is there again")
end)

--- An image in the format qcow2 (QEMU docs/interop/qcow2.rst) of 256 KiB, of which only the second
--- cluster of 64 KiB holds anything: sectors full of the letter q.
local function qcow2(name, fields)
  local CLUSTER <const>, COPIED <const> = 1 << 16, 1 << 63
  local at = { header = 0, l1 = 1, l2 = 2, refcounts = 3, refcount_block = 4, data = 5 }
  local clusters = {
    string.pack(">c4 I4 I8 I4 I4 I8 I4 I4 I8 I8 I4 I4 I8 I8 I8 I8 I4 I4",
      "QFI\xfb", 3, fields.backing or 0, 0, 16, 4 * CLUSTER, fields.encryption or 0,
      1, at.l1 * CLUSTER, at.refcounts * CLUSTER, 1, 0, 0, fields.incompatible or 0, 0, 0, 4, 104),
    string.pack(">i8", at.l2 * CLUSTER | COPIED),
    string.pack(">i8i8", 0, at.data * CLUSTER | COPIED),
    string.pack(">I8", at.refcount_block * CLUSTER),
    string.pack(">I2", 1):rep(6),
    ("q"):rep(CLUSTER),
  }
  local path = folder .. "/" .. name
  local file <close> = assert(io.open(path, "wb"))
  for _, bytes in ipairs(clusters) do file:write(bytes, ("\0"):rep(CLUSTER - #bytes)) end
  return path
end

t.case("a qcow2 image lies beneath an overlay like any other", function()
  local base, copy = qcow2("disk.qcow2", {}), folder .. "/copy"
  local vm <close> = vmoon.boot { disks = { { path = base } } }
  t.same(read(vm, 127) .. read(vm, 128) .. read(vm, 255) .. read(vm, 256), "\0qq\0", "at first")
  t.same(vm:exec("blk read 512 1").stderr, "blk: out of range\n", "the end")
  write(vm, 130, "X")
  local snap <close> = vm:snapshot()
  write(vm, 130, "Y")
  local fork <close> = snap:fork()
  t.same(read(fork, 130) .. read(fork, 131) .. read(vm, 130), "XqY", "the fork's, and the machine's")
  vm:commit_disk(1, copy)
  t.same(sector_of(copy, 127) .. sector_of(copy, 130), ("\0"):rep(SECTOR) .. ("Y"):rep(SECTOR), "the copy")
  t.same(sector_of(copy, 511), ("\0"):rep(SECTOR), "its last sector")
  t.same(sector_of(copy, 512), nil, "its end")
end)

t.case("images that cannot be read, or written, are refused by their format and the reason", function()
  local function refused(path, reason, mode)
    local err = t.raises("vm.spec", vmoon.create, { disks = { { path = path, mode = mode } } })
    assert(t.words(err):find(reason, 1, true), t.words(err))
    assert(t.words(err):find("qemu-img convert -O raw " .. path, 1, true), t.words(err))
  end
  refused(qcow2("whole", {}), "beneath an overlay only", "direct")
  refused(qcow2("backed", { backing = 200 }), "has a backing file")
  refused(qcow2("secret", { encryption = 2 }), "is encrypted")
  refused(qcow2("apart", { incompatible = 1 << 2 }), "has its data in another file")
  refused(qcow2("newer", { incompatible = 1 << 9 }), "no qcow2 image that can be read")
  local vmdk = folder .. "/disk.vmdk"
  local file = assert(io.open(vmdk, "wb"))
  file:write("KDMV", ("\0"):rep(508))
  file:close()
  refused(vmdk, "format vmdk")
  local odd = folder .. "/odd"
  assert(os.execute("truncate -s 513 " .. odd))
  t.raises("vm.spec", vmoon.create, { disks = { { path = odd } } })
end)

os.execute("rm -r " .. folder)
t.finish()
