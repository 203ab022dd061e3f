-- Values as people read them: keys in order, one entry a line where it would get long.

local ipairs, math, pairs, string, table, tostring, type =
  ipairs, math, pairs, string, table, tostring, type

--- A table that is longer than this on one line gets a line for each entry.
local WIDTH <const> = 60
--- Nobody reads on below this.
local DEPTH <const> = 20

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ['"'] = '\\"', ["\\"] = "\\\\" }

local function quote(text)
  local escaped = text:gsub('[%c"\\\127]', function(byte)
    return ESCAPES[byte] or ("\\x%02x"):format(byte:byte())
  end)
  return '"' .. escaped .. '"'
end

local RANKS = { number = 1, string = 2, boolean = 3 }

local function before(left, right)
  local one, other = RANKS[type(left)] or 4, RANKS[type(right)] or 4
  if one ~= other then return one < other end
  if one <= 2 then return left < right end
  return tostring(left) < tostring(right)
end

local function number(value)
  if math.type(value) == "integer" or value ~= value or value == math.huge or value == -math.huge then
    return tostring(value)
  end
  local short = ("%.14g"):format(value)
  if tonumber(short) ~= value then short = ("%.17g"):format(value) end
  return short:find "[.eE]" and short or short .. ".0"
end

local show ---@type fun(value: any, indent: string, seen: table): string

local function key(value, seen)
  if type(value) == "string" and value:find "^[%a_][%w_]*$" then return value end
  return "[" .. show(value, "", seen) .. "]"
end

local function entries(value, indent, seen)
  local list, keys, length = {}, {}, #value
  for index = 1, length do list[index] = show(value[index], indent, seen) end
  for name in pairs(value) do
    local listed = math.type(name) == "integer" and name >= 1 and name <= length
    if not listed then keys[#keys + 1] = name end
  end
  table.sort(keys, before)
  for _, name in ipairs(keys) do
    list[#list + 1] = key(name, seen) .. " = " .. show(value[name], indent, seen)
  end
  return list
end

function show(value, indent, seen)
  local kind = type(value)
  if kind == "string" then return quote(value) end
  if kind == "number" then return number(value) end
  if kind ~= "table" then return tostring(value) end
  local meta = getmetatable(value)
  if type(meta) == "table" and meta.__tostring then return tostring(value) end
  if seen[value] then return "<the table itself>" end
  if #indent >= 2 * DEPTH then return "{ … }" end
  seen[value] = true
  local inner = indent .. "  "
  local list = entries(value, inner, seen)
  seen[value] = nil
  if #list == 0 then return "{}" end
  local line = "{ " .. table.concat(list, ", ") .. " }"
  if #line <= WIDTH and not line:find "\n" then return line end
  return "{\n" .. inner .. table.concat(list, ",\n" .. inner) .. ",\n" .. indent .. "}"
end

return function(value) return show(value, "", {}) end
