-- Turns Rust functions into functions and objects that raise structured errors.
--
-- A Rust function answers `failure, results…`: the failure is nil, or the value to raise. It is
-- raised here, by Lua, because an error that Rust raises would reach the script as userdata.
-- The wrappers differ in how many results they pass on, and none of them ends in a tail call:
-- the name by which the user called must still be on the stack when the error is raised.

local error, select, unpack = error, select, table.unpack

local function finish(failure, ...)
  if failure ~= nil then error(failure, 0) end
  return ...
end

local wrappers = {
  [0] = function(f)
    return function(...) finish(f(...)) end
  end,
  function(f)
    return function(...)
      local result = finish(f(...))
      return result
    end
  end,
  function(f)
    return function(...)
      local first, second = finish(f(...))
      return first, second
    end
  end,
}

--- Wraps a Rust function that has this many results; -1 passes on all of them.
local function wrap(f, results)
  local make = wrappers[results]
  if make then return make(f) end
  local function keep(...)
    return select("#", ...), { ... }
  end
  return function(...)
    local count, kept = keep(finish(f(...)))
    return unpack(kept, 1, count)
  end
end

--- The `__index` of a class: methods, then fields, then an error that helps. `unknown` answers
--- the error for a name that the class does not have.
local function index(methods, getters, unknown)
  return function(self, key)
    local method = methods[key]
    if method ~= nil then return method end
    local getter = getters[key]
    if getter then
      local value = finish(getter(self))
      return value
    end
    finish(unknown(key))
  end
end

--- The `__newindex` of a class.
local function newindex(readonly)
  return function(_, key) finish(readonly(key)) end
end

--- Makes an iterator of a wrapped function. An error of the loop closes `closable`, if given.
local function iterator(step, object, closable, argument)
  return function() return step(object, argument) end, nil, nil, closable
end

return { wrap = wrap, index = index, newindex = newindex, iterator = iterator, finish = finish }
