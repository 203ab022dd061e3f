-- `require` as the manual describes it, but in Lua, so that the body of a module may wait: a call
-- through C's `require` cannot yield.

local error, ipairs, package, pcall, table, type = error, ipairs, package, pcall, table, type
local loading = {}

local function find(name)
  if type(package.searchers) ~= "table" then error("'package.searchers' must be a table", 3) end
  local messages = {}
  for _, searcher in ipairs(package.searchers) do
    local found, loader, data = pcall(searcher, name)
    -- A module that is not Lua: the message begins with a position in here, of use to nobody.
    if not found then
      error(type(loader) == "string" and loader:gsub("^%[vmoon require%]:%d+: ", "") or loader, 0)
    end
    if type(loader) == "function" then return loader, data end
    -- What C modules would need is of no use: there are none here.
    if type(loader) == "string" and not loader:find "safe mode" then
      messages[#messages + 1] = "\n\t" .. loader
    end
  end
  error(("module '%s' not found:%s"):format(name, table.concat(messages)), 3)
end

return function(name)
  if type(name) ~= "string" then
    error(("bad argument #1 to 'require' (string expected, got %s)"):format(type(name)), 2)
  end
  local loaded = package.loaded
  if loaded[name] then return loaded[name] end
  if loading[name] then
    error(("module '%s' is already being loaded: a loop of requires"):format(name), 2)
  end
  local loader, data = find(name)
  loading[name] = true
  local done <close> = setmetatable({}, { __close = function() loading[name] = nil end })
  local value = loader(name, data)
  if value ~= nil then
    loaded[name] = value
  elseif loaded[name] == nil then
    loaded[name] = true
  end
  return loaded[name], data
end
