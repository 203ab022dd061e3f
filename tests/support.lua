-- What the test scripts share. Each script proves a list of cases, prints a line for each, and
-- fails at its end if any did not hold, so that one run shows them all.
local support = {}

local failures = 0

--- Runs one case; `name` says what it proves.
function support.case(name, body)
  local ok, err = xpcall(body, function(err)
    if type(err) == "table" then
      local text = tostring(err)
      if err.hint then text = text .. "\n    hint: " .. tostring(err.hint) end
      return text
    end
    return tostring(err)
  end)
  if ok then
    print("ok - " .. name)
  else
    failures = failures + 1
    print("not ok - " .. name .. "\n    " .. tostring(err):gsub("\n", "\n    "))
  end
  io.stdout:flush()
end

--- Ends the script: an error if any case did not hold.
function support.finish()
  if failures > 0 then error(failures .. " cases failed", 0) end
  print "all cases hold"
end

--- Asserts that `fn(...)` raises a structured error with this code (or one of these), and
--- returns the error.
function support.raises(codes, fn, ...)
  if type(codes) == "string" then codes = { codes } end
  local expected = table.concat(codes, " or ")
  local results = table.pack(pcall(fn, ...))
  if results[1] then
    error(("%s expected, but nothing was raised (%s)"):format(expected, tostring(results[2])), 2)
  end
  local err = results[2]
  if type(err) ~= "table" then
    error(("%s expected, but a %s was raised: %s"):format(expected, type(err), tostring(err)), 2)
  end
  for _, code in ipairs(codes) do
    if err.code == code then
      assert(type(err.message) == "string" and #err.message > 0, "the error has no message")
      assert(tostring(err):find(code, 1, true), "tostring(err) does not show the code")
      assert(tostring(err):find(err.message, 1, true), "tostring(err) does not show the message")
      return err
    end
  end
  error(("%s expected, but this was raised: %s"):format(expected, tostring(err)), 2)
end

--- Everything that an error tells a person, as one string.
function support.words(err)
  return table.concat({ tostring(err), err.message or "", err.hint or "" }, "\n")
end

--- Asserts equality and shows both sides.
function support.same(actual, expected, what)
  if actual ~= expected then
    error(("%s: %s expected, got %s"):format(what or "value", tostring(expected), tostring(actual)), 2)
  end
end

--- The text without the white space at its end.
function support.trim(text)
  return (text:gsub("%s+$", ""))
end

--- Reads exactly `count` bytes of a stream.
function support.read_exactly(stream, count)
  local parts, missing = {}, count
  while missing > 0 do
    local part = stream:read(missing)
    assert(part and #part > 0, ("the stream ended %d bytes early"):format(missing))
    parts[#parts + 1] = part
    missing = missing - #part
  end
  return table.concat(parts)
end

--- Calls `fn` until it returns something true; an error after `seconds`.
function support.eventually(seconds, what, fn)
  local vmoon = require "vmoon"
  local deadline = os.time() + seconds
  while true do
    local result = fn()
    if result then return result end
    assert(os.time() <= deadline, "not within " .. seconds .. " s: " .. what)
    vmoon.sleep "20ms"
  end
end

--- Seconds on a clock of the host that only goes forward.
function support.now()
  local uptime <close> = assert(io.open "/proc/uptime")
  return uptime:read "n"
end

--- Reads a whole file of the host.
function support.read_file(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

--- Writes a whole file of the host.
function support.write_file(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end

--- Asserts that two saved snapshots of a machine with one processor hold the same memory, byte by
--- byte. KVM writes its clock for the guest, 32 bytes, whenever a processor enters the guest: those
--- alone may differ.
function support.same_memory(saved, expected)
  local one = support.read_file(saved .. "/memory")
  local other = support.read_file(expected .. "/memory")
  if one == other then return end
  support.same(#one, #other, "bytes of memory")
  local places = {}
  for page = 1, #one, 4096 do
    if one:sub(page, page + 4095) ~= other:sub(page, page + 4095) then
      for at = page, page + 4095, 32 do
        if one:sub(at, at + 31) ~= other:sub(at, at + 31) then places[#places + 1] = ("%#x"):format(at - 1) end
      end
    end
  end
  if #places > 1 then error("memory differs at " .. table.concat(places, " ", 1, math.min(#places, 20)), 2) end
end

--- How many descriptors a process has open; this one if none is named. The pipe that brings the
--- answer is left out: `popen` may still hold its other end while the count is taken.
function support.descriptors(process)
  local count <close> = io.popen(([[
    pipe=$(readlink /proc/$$/fd/1)
    readlink /proc/%s/fd/* | grep -cvF "$pipe"]]):format(process or "$PPID"))
  return count:read "n"
end

--- Bytes of own memory, and open descriptors, of this process and of each QEMU that it has started.
--- The guest's memory, which is shared between them, is not counted.
function support.usage()
  collectgarbage()
  local own = support.read_file "/proc/self/stat":match "%d+"
  local memory, descriptors = 0, 0
  local status <close> = io.popen(
    ("grep -lsE '^(PPid|Tgid):[[:space:]]%s$' /proc/[0-9]*/status"):format(own)
  )
  for path in status:lines() do
    local text = support.read_file(path)
    if path:find("/" .. own .. "/", 1, true) or text:find "^Name:%s*qemu" then
      memory = memory + tonumber(text:match "RssAnon:%s*(%d+)") * 1024
      descriptors = descriptors + support.descriptors(path:match "%d+")
    end
  end
  return memory, descriptors
end

--- A new folder on the host, removed with all that is in it when it is closed.
function support.folder()
  local path = os.tmpname()
  os.remove(path)
  os.execute(("mkdir '%s'"):format(path))
  return setmetatable({ path = path }, { __close = function() os.execute(("rm -rf '%s'"):format(path)) end })
end

return support
