-- The types for editors tell the truth: every documented name exists at run time, and every name
-- that exists at run time is documented. Reads stdlib/types and asks live objects.
local vmoon = require "vmoon"
local here = arg[0]:match "^(.*)/" or "."
local t = dofile(here .. "/../support.lua")
local types = here .. "/../../stdlib/types/"

--- Splits `{ a: string?, b: integer }` into its names.
local function inline_keys(text)
  local keys = {}
  for key in text:gsub("^%s*{", ","):gmatch "[,]%s*([%w_]+)%??%s*:" do keys[#keys + 1] = key end
  return keys
end

--- The classes of all files: `{ name, file, fields = { name = optional }, functions = { … } }`.
local function read_types()
  local classes, order = {}, {}
  local list <close> = io.popen("ls '" .. types .. "'")
  for file in list:lines() do
    local locals, last, params = {}, nil, {}
    for line in io.lines(types .. file) do
      local class = line:match "^%-%-%-@class%s+([%w_.]+)" or line:match "^%-%-%-@class%s+%b()%s+([%w_.]+)"
      local field, optional = line:match "^%-%-%-@field%s+([%w_]+)(%??)"
      local param, rest = line:match "^%-%-%-@param%s+([%w_.]+)%??%s+(.*)"
      local bound = line:match "^local%s+([%w_]+)%s*="
      local owner, name = line:match "^function%s+([%w_]+)[.:]([%w_]+)"
      if class then
        last = { name = class, parent = line:match ":%s*([%w_.]+)", file = file, fields = {}, functions = {} }
        classes[class] = last
        order[#order + 1] = class
      elseif field then
        last.fields[field] = optional
      elseif param then
        params[#params + 1] = { name = param, type = rest }
      elseif bound and last then
        locals[bound] = last
      elseif name then
        local owned = assert(locals[owner], file .. ": no class for " .. line)
        owned.functions[name] = { params = params, method = line:find(":", 1, true) ~= nil }
        params = {}
      elseif not line:find "^%-%-%-" then
        params = {}
      end
    end
  end
  return classes, order
end

local classes, order = read_types()

--- The names that an object has, from the error of one that it does not have.
local function names_of(object)
  local ok, err = pcall(function() return object["no such name"] end)
  assert(not ok and type(err) == "table" and err.valid, "no list of names: " .. tostring(err))
  return err.valid
end

local function keys_of(tbl)
  local keys = {}
  for key in pairs(tbl) do
    if type(key) == "string" then keys[#keys + 1] = key end
  end
  return keys
end

--- The keys that a function takes as options, from the error of one that it does not take.
local function options_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert(not ok, "an unknown option was taken")
  assert(type(err) == "table" and err.valid, "no list of options: " .. tostring(err))
  return err.valid
end

local wrong = { ["no such name"] = true }

--- Compares two sets of names; a failure says what to add where.
local function compare(class, documented, exists)
  local problems, seen = {}, {}
  for _, name in ipairs(exists) do
    seen[name] = true
    if documented[name] == nil then
      problems[#problems + 1] = ("%s has '%s', which stdlib/types/%s does not document"):format(class.name, name, class.file)
    end
  end
  for name, optional in pairs(documented) do
    if not seen[name] and optional ~= "?" then
      problems[#problems + 1] = ("stdlib/types/%s documents '%s' of %s, which does not exist"):format(class.file, name, class.name)
    end
  end
  table.sort(problems)
  if #problems > 0 then error(table.concat(problems, "\n"), 0) end
end

local vm <close> = vmoon.boot { memory = "32MiB" }
local server <close> = vm:spawn "echo-server 5000"
vm:wait_port(5000)
local snap <close> = vm:snapshot "types"
local stream <close> = vm:connect(5000)
local listener <close> = vm:listen(6000)
local forward <close> = vm:forward { port = 5000, tcp = "127.0.0.1:0" }
local fault <close> = vmoon.capabilities(vm.backend).faults and vm.faults:vsock { port = 9, cut = true } or nil
local task = vmoon.task.spawn(function() end)
local _, failure = pcall(vmoon.boot, { cpus = 0 })

-- Objects, whose names are listed by their errors. A new class belongs here, or below.
local objects = {
  ["vmoon.Vm"] = vm,
  ["vmoon.Console"] = vm.console,
  ["vmoon.Balloon"] = vm.balloon,
  ["vmoon.Faults"] = vm.faults,
  ["vmoon.Fault"] = fault,
  ["vmoon.Snapshot"] = snap,
  ["vmoon.Stream"] = stream,
  ["vmoon.Listener"] = listener,
  ["vmoon.Forward"] = forward,
  ["vmoon.Proc"] = server,
  ["vmoon.Task"] = task,
}

-- Modules and tables of results, whose names are their keys.
local tables = {
  ["vmoon"] = vmoon,
  ["vmoon.task"] = vmoon.task,
  ["vmoon.test"] = vmoon.test,
  ["vmoon.test.expect"] = vmoon.test.expect,
  ["vmoon.ExecResult"] = vm:exec "true",
  ["vmoon.Info"] = vm:info(),
  ["vmoon.BalloonStats"] = vm.balloon:stats(),
  ["vmoon.Capabilities"] = vmoon.capabilities(),
  ["vmoon.Backend"] = vmoon.backends()[1],
}

-- Tables of options, by a call that takes them.
local options = {
  ["vmoon.Spec"] = function() vmoon.create(wrong) end,
  ["vmoon.Disk"] = function() vmoon.create { disks = { wrong } } end,
  ["vmoon.Share"] = function() vmoon.create { shares = { wrong } } end,
  ["vmoon.ExecOptions"] = function() vm:exec("true", wrong) end,
  ["vmoon.RestoreOptions"] = function() vm:restore(snap, wrong) end,
  ["vmoon.SpawnOptions"] = function() vm:spawn("true", wrong) end,
  ["vmoon.ReadOptions"] = function() server:read(wrong) end,
  ["vmoon.WriteOptions"] = function() vm:copy_in(".", "/x", wrong) end,
  ["vmoon.WriteFileOptions"] = function() vm:write_file("x", "", wrong) end,
  ["vmoon.BlockFault"] = function() vm.faults:block(wrong) end,
  ["vmoon.VsockFault"] = function() vm.faults:vsock(wrong) end,
  ["vmoon.ForwardOptions"] = function() vm:forward(wrong) end,
  ["vmoon.test.Options"] = function() vmoon.test.it("never described", wrong) end,
  ["vmoon.test.FixtureOptions"] = function() vmoon.test.fixture(wrong) end,
}

-- Documented, and without names to compare: errors carry details that differ from case to case.
local open = { ["vmoon.Error"] = failure }
-- Not every backend has faults to look at.
if not fault then open["vmoon.Fault"] = { active = true, hits = 0 } end

local function documented(class)
  local all = class.parent and documented(classes[class.parent]) or {}
  for name, optional in pairs(class.fields) do all[name] = optional end
  for name in pairs(class.functions) do all[name] = "" end
  return all
end

for _, name in ipairs(order) do
  local class = classes[name]
  t.case("the names of " .. name, function()
    if objects[name] then
      compare(class, documented(class), names_of(objects[name]))
    elseif tables[name] then
      compare(class, documented(class), keys_of(tables[name]))
    elseif options[name] then
      local optional = {}
      for field in pairs(documented(class)) do optional[field] = "" end
      compare(class, optional, options_of(options[name]))
    elseif open[name] then
      for field, optional in pairs(class.fields) do
        assert(open[name][field] ~= nil or optional == "?", field .. " does not exist")
      end
    else
      error(("%s of stdlib/types/%s is compared with nothing: add it to tests/scripts/types.lua"):format(name, class.file), 0)
    end
  end)
end

t.case("everything that is compared is documented", function()
  for _, group in ipairs { objects, tables, options, open } do
    for name in pairs(group) do assert(classes[name], name .. " has no ---@class in stdlib/types") end
  end
end)

-- Arguments that come before options which are written out in a signature, by name or by type.
local samples = {
  cmd = "true", port = 5000, state = "running", snapshot = snap, target = "16MiB", list = {},
  fn = function() end, duration = "1ms", count = 1, string = "x", integer = 1,
}

for _, name in ipairs(order) do
  local object = objects[name] or tables[name]
  for called, fn in pairs(classes[name].functions) do
    local last = fn.params[#fn.params]
    local keys = last and inline_keys(last.type)
    if object and keys and last.type:find "^{" then
      t.case(("the options of %s %s"):format(name, called), function()
        local arguments, count = {}, 0
        if fn.method then arguments[1], count = object, 1 end
        for index = 1, #fn.params - 1 do
          local param = fn.params[index]
          local sample = samples[param.name] or samples[param.type:match "^[%w_.]+"]
          assert(sample ~= nil, ("no sample for the parameter '%s': add it to tests/scripts/types.lua"):format(param.name))
          count = count + 1
          arguments[count] = sample
        end
        arguments[count + 1] = wrong
        local all = {}
        for _, key in ipairs(keys) do all[key] = "" end
        compare(classes[name], all, options_of(object[called], table.unpack(arguments, 1, count + 1)))
      end)
    end
  end
end

t.finish()
